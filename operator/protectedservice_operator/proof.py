"""The result of one live proof (401 without a token, 204 with one, 401 after its revocation). Pure data."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """What the proof showed for the whole service."""

    PROVED = "proved"  # all three, on every pod
    REVOCATION_NOT_PROVED = "revocation not proved"  # the first two; the third cannot be shown here
    FAILED = "failed"  # a pod gave a wrong answer
    UNREACHABLE = "unreachable"  # a pod could not be called
    INCONCLUSIVE = "inconclusive"  # the authorization server was away meanwhile: says nothing about the pods


@dataclass(frozen=True, slots=True)
class Check:
    """The three answers of one pod: HTTP status codes, or None where the pod was not asked or did not answer."""

    pod: str
    without_token: int | None = None
    with_token: int | None = None
    after_revocation: int | None = None
    revocation_delay: float | None = None  # seconds from the revocation's answer to the first 401

    def to_status(self) -> list[dict[str, str]]:
        """As published in ProtectedService.status.verification.checks[]: one entry a step that was taken."""
        delay = "" if self.revocation_delay is None else f" after {duration(self.revocation_delay)}"
        steps = {
            "WithoutToken": self.without_token,
            "WithToken": self.with_token,
            "AfterRevocation": self.after_revocation,
        }
        return [
            {"pod": self.pod, "name": name, "result": f"{code}{delay if name == 'AfterRevocation' else ''}"}
            for name, code in steps.items()
            if code is not None
        ]


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved, of which template, when.

    Attributes:
        template: the template hash that the pods were made from (manifests.template_hash).
        finished: seconds since the epoch.
        message: for people; names the pod and the answer where something went wrong.
    """

    template: str
    verdict: Verdict
    checks: tuple[Check, ...]
    finished: float
    message: str

    @property
    def revocation_delay(self) -> float | None:
        """The longest delay among the pods, seconds."""
        delays = [check.revocation_delay for check in self.checks if check.revocation_delay is not None]
        return max(delays) if delays else None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a protected service, as far as a proof needs it."""

    name: str
    ip: str | None
    ready: bool


def duration(seconds: float) -> str:
    """Seconds as the CRDs write durations: `1.25s`."""
    return f"{seconds:.2f}s"
