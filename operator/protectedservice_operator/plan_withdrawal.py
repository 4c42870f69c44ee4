"""What to do about the client of a service that its AuthorizationServer serves no more: the checks, in order. Pure.

    note ── (ten minutes) ── unregister ── forget         or, given back in time: forget that it was noted

Told at once, done after a while: a label taken off a namespace by mistake must not cost every service in it its client.
The time stands in the ledger, where no restart loses it and no tenant changes it.

A suspended service is no exception: else suspending it would be a way to keep what was withdrawn.
"""

from __future__ import annotations

from typing import Final

from . import plan_deletion, reasons
from .conditions import timestamp
from .observed import ObservedClient, Settings
from .registration.ledger import Record, State
from .steps import Blocked, ClientCheck, NoteWithdrawal, Step

# How long a client outlives the permission to have it (design: 10 min).
GRACE: Final = 600.0
_ENDED: Final = frozenset({State.DELETING, State.ORPHANED, State.RETAINED})


def permitted(observed: ObservedClient, settings: Settings) -> bool | None:
    """Whether the AuthorizationServer lets the service have a client; None while that is not known."""
    server = observed.server
    if server is None or server.reference.namespace not in settings.honoured_namespaces:
        return None
    allowed = server.allows(observed.service.meta.namespace, observed.namespace_labels)
    return allowed and (bool(observed.scopes) or not observed.refused_scopes)


def fate(observed: ObservedClient) -> str:
    """What becomes of a client whose permission is gone, to be put at the end of a message; empty without one."""
    record = observed.ledger
    if record is None or record.withdrawn is None or record.state in _ENDED:
        return ""
    return f"; client {record.client_id} is deleted at {timestamp(record.withdrawn + GRACE)}, unless it is by then"


def due(observed: ObservedClient, now: float) -> float | None:
    """Seconds until a withdrawn client's time is over; None where nothing waits for that."""
    record = observed.ledger
    if record is None or record.withdrawn is None or record.state in _ENDED:
        return None
    return max(record.withdrawn + GRACE - now, 1.0)


def _withdrawal_not_noted(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    record = observed.ledger
    if record is None or record.state in _ENDED or record.withdrawn is not None:
        return None
    if permitted(observed, settings) is not False:
        return None
    return NoteWithdrawal(reasons.CLIENT_REGISTERED, "the AuthorizationServer serves this service no more", since=now)


def _permission_given_back(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    record = observed.ledger
    if record is None or record.state in _ENDED or record.withdrawn is None or not permitted(observed, settings):
        return None
    return NoteWithdrawal(reasons.CLIENT_REGISTERED, "the AuthorizationServer serves this service again", since=None)


def _client_outlives_permission(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    record = observed.ledger
    if record is None or not _ends(observed, settings, record, now):
        return None
    for check in plan_deletion.CLIENT_CHECKS:
        found = check(observed, settings, now)
        if found is not None:
            return found
    return None


def _ends(observed: ObservedClient, settings: Settings, record: Record, now: float) -> bool:
    """Whether the client is to be ended, though its object lives. What has begun is ended in any case."""
    if record.state in _ENDED:
        return record.state is State.DELETING
    over = record.withdrawn is not None and now - record.withdrawn >= GRACE
    return over and permitted(observed, settings) is False


CHECKS: Final[tuple[ClientCheck, ...]] = (
    _withdrawal_not_noted,
    _permission_given_back,
    _client_outlives_permission,
)
