"""How a pass can fail, and what each failure means for the next one.

    Outcome
     ├── Wait                      try again later, by backoff; the other side's Retry-After wins
     │    ├── ClusterUnavailable   the Kubernetes API: unreachable, 5xx, 429
     │    ├── Conflict             somebody wrote first (409): gather anew, at once
     │    └── ServerUnavailable    the authorization server: unreachable, slow, 5xx, 429, not JSON, breaker open
     ├── UserMustEdit              only a change of the object's spec helps: no retry until its generation changes
     └── AdministratorMustAct      a credential, a policy or a foreign object stands in the way: slow retry

Whatever else is raised is a bug of ours and is logged with its traceback.

No message here ever holds a credential, a token or a response body. Text from another system is limited to the
OAuth `error` code and to 256 printable characters, see `foreign_text`.
"""

from __future__ import annotations

from typing import Final

FOREIGN_TEXT_LIMIT: Final = 256


class Outcome(Exception):
    """A pass ended early. `reason` is a condition reason (CamelCase), `message` what the user reads.

    Attributes:
        at_latest: seconds after which to look again, whatever the backoff says, because a deadline ends then; or None.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.at_latest: float | None = None
        self.reason = reason
        self.message = message


class Wait(Outcome):
    """Nothing to edit: the same pass may succeed later.

    Attributes:
        retry_after: seconds asked for by the other side, or None for our own backoff.
    """

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class ClusterUnavailable(Wait):
    """The Kubernetes API did not answer, or answered 5xx or 429."""


class Conflict(Wait):
    """The Kubernetes API refused a stale write (409); what was read is not what is there."""


class ServerUnavailable(Wait):
    """The authorization server gave no answer that could be trusted.

    Attributes:
        uncertain: the request was sent, so that it may have taken effect. False when it certainly was not sent
            (breaker open, connection refused, name not resolved).
    """

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None, uncertain: bool = False) -> None:
        super().__init__(reason, message, retry_after=retry_after)
        self.uncertain = uncertain


class UserMustEdit(Outcome):
    """Only an edit of the object's spec helps."""


class AdministratorMustAct(Outcome):
    """Somebody with other rights than the object's author must act."""


class NotFound(Exception):
    """The Kubernetes API answered 404 to a write on an object that was to exist."""


class AlreadyExists(Exception):
    """The Kubernetes API answered 409 AlreadyExists to a create."""


class Rejected(Exception):
    """The Kubernetes API refused the object itself (400, 403 or 422). `message` is its own, cut and printable."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message


def foreign_text(text: object) -> str:
    """Text of another system, fit for a condition: printable characters only, at most 256 of them."""
    cleaned = "".join(c if c.isprintable() else " " for c in str(text))
    return cleaned if len(cleaned) <= FOREIGN_TEXT_LIMIT else cleaned[: FOREIGN_TEXT_LIMIT - 1] + "…"
