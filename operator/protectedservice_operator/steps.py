"""The steps that a plan can ask for. Each is one effect; `reconcile.py` knows how to do it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import Outcome
from .observed import Observed, ObservedClient, Settings
from .registration.driver import ClientMetadata
from .resource import Kind


@dataclass(frozen=True, slots=True)
class Step:
    """One effect. `phase` is the condition type that tells about it, `why` what is logged."""

    phase: str
    why: str


@dataclass(frozen=True, slots=True)
class AddFinalizer(Step):
    """Hold the object until its client is gone."""


@dataclass(frozen=True, slots=True)
class Register(Step):
    """Open an intent in the ledger, register, store. `attempt` continues an interrupted intent with the same key."""

    attempt: str | None = None
    abandoned: bool = False  # an older intent is given up: count it as uncertain


@dataclass(frozen=True, slots=True)
class Update(Step):
    """Replace the client's metadata at the server (RFC 7592 section 2.2)."""

    metadata: ClientMetadata  # of a new intent; an interrupted one repeats what the ledger says it sent
    attempt: str | None = None
    brought: bool = False  # with the secret that the service brings by now


@dataclass(frozen=True, slots=True)
class Project(Step):
    """Write the tenant's Secret from the ledger."""

    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Apply(Step):
    """Server-side apply of a child. `repair`: it was as wanted before, somebody changed or removed it.

    `differences` are the paths of what was changed, if anything is there at all.
    """

    kind: Kind
    manifest: Mapping[str, Any] = field(compare=False)
    repair: bool = False
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evict(Step):
    """Remove what somebody else put into closed lists of ours."""

    kind: Kind
    name: str
    pointers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prune(Step):
    """Delete a child that nothing uses, or that spec does not want any more."""

    kind: Kind
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Prove(Step):
    """Schedule the live proof of this template."""

    template: str


@dataclass(frozen=True, slots=True)
class Try(Step):
    """Schedule a direct connection to the isolated upstream, while the policy of this hash is in force."""

    policy: str


@dataclass(frozen=True, slots=True)
class NoteWithdrawal(Step):
    """Write down since when (seconds since the epoch) the service may not have its client; None: it may again."""

    since: float | None


@dataclass(frozen=True, slots=True)
class StartDeletion(Step):
    """Write down that the client is about to be deleted."""


@dataclass(frozen=True, slots=True)
class Unregister(Step):
    """Delete the client at the server, then the ledger entry."""


@dataclass(frozen=True, slots=True)
class Retain(Step):
    """Write down that the client stays registered."""


@dataclass(frozen=True, slots=True)
class LeaveBehind(Step):
    """Let go of a client that its server cannot delete. Counted as uncertain; nothing is asked."""


@dataclass(frozen=True, slots=True)
class ForgetForeign(Step):
    """Drop the ledger entry of a client that was made by other hands. Nothing is asked."""


@dataclass(frozen=True, slots=True)
class Abandon(Step):
    """Give up an intent that cannot be continued: nothing is known to delete. Counted as uncertain."""


@dataclass(frozen=True, slots=True)
class Discard(Step):
    """Drop a ledger entry that never had a client."""


@dataclass(frozen=True, slots=True)
class CheckClient(Step):
    """Look whether the client is at the server as the ledger has it."""

    metadata: ClientMetadata


@dataclass(frozen=True, slots=True)
class Rotate(Step):
    """Make a second client. `attempt` continues an interrupted attempt with the same key."""

    request: str | None
    attempt: str | None = None


@dataclass(frozen=True, slots=True)
class GiveUpRotation(Step):
    """Let an interrupted attempt at a second client go that cannot be continued. Counted as uncertain."""

    request: str | None


@dataclass(frozen=True, slots=True)
class Hold(Step):
    """Begin the wait for a second client's last token, or change its length. In seconds.

    `overlap`: how long tokens may still be made with its credentials; `least`: of the whole wait.
    """

    least: float
    overlap: float = 0.0


@dataclass(frozen=True, slots=True)
class TakeOver(Step):
    """Put the second client in the place of the one in use."""

    metadata: ClientMetadata


@dataclass(frozen=True, slots=True)
class UpdateSecond(Step):
    """Replace the metadata of the second client at the server; an interrupted update is finished first."""

    metadata: ClientMetadata


@dataclass(frozen=True, slots=True)
class RollBack(Step):
    """Put the old client back in its place."""


@dataclass(frozen=True, slots=True)
class EndSecond(Step):
    """Delete the second client at the server."""


@dataclass(frozen=True, slots=True)
class Release(Step):
    """Take the finalizer off."""

    orphaned: bool = False  # past the deadline: the ledger entry stays behind
    disown: bool = False  # leave the credentials Secret behind first, without an owner


@dataclass(frozen=True, slots=True)
class Blocked:
    """Nothing can be done for this phase now; the outcome says who must act."""

    phase: str
    outcome: Outcome


Check = Callable[[Observed, Settings, float], Step | Blocked | None]
"""One sentence that ought to be true: what to do, or who must act, where it is not; None where it is."""
ClientCheck = Callable[[ObservedClient, Settings, float], Step | Blocked | None]
"""The same about a client alone, whatever kind of object it is registered for."""
