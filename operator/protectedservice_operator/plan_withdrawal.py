"""What to do about the client of a service that its AuthorizationServer serves no more: the checks, in order. Pure.

    note ── (ten minutes) ── unregister ── forget         or, given back in time: forget that it was noted

Told at once, done after a while: a label taken off a namespace by mistake must not cost every service in it its client.
The time stands in the ledger, where no restart loses it and no tenant changes it.

An AuthorizationServer that is being deleted serves nobody any more, and waits for its clients: they are ended at once.
Those that are to stay (deletionPolicy Retain) are left as they are, for an AuthorizationServer of the same name.

A suspended service is no exception: else suspending it would be a way to keep what was withdrawn.
"""

from __future__ import annotations

from typing import Final

from . import plan_deletion, reasons
from .conditions import timestamp
from .errors import AdministratorMustAct
from .observed import ObservedClient, Settings
from .registration.ledger import RETAINABLE, Record, State, has_second
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


def server_gone(observed: ObservedClient) -> AdministratorMustAct | None:
    """Why nothing can be had of the AuthorizationServer that the object refers to: it is going, or is not there."""
    reference, service = observed.reference, observed.service
    if reference is None:
        return None
    if observed.server is not None:
        if not observed.server.meta.is_going:
            return None
        text = f"AuthorizationServer {reference} is being deleted{_fate_with_server(observed)}"
        return AdministratorMustAct(reasons.SERVER_DELETED, text)
    if service.recorded_server == reference:
        text = (
            f"AuthorizationServer {reference} was deleted; create it anew, or delete this {service.kind} and apply it "
            "with another authorizationServerRef"
        )
        return AdministratorMustAct(reasons.SERVER_DELETED, text)
    text = f"AuthorizationServer {reference} does not exist; create it, or refer to another one"
    return AdministratorMustAct(reasons.SERVER_NOT_FOUND, text)


def _fate_with_server(observed: ObservedClient) -> str:
    record = observed.ledger
    if record is None or record.client_id is None or record.state in (State.ORPHANED, State.RETAINED):
        return ": nothing is registered there any more"
    if _retained(observed, record):
        return f"; client {record.client_id} stays registered (deletionPolicy Retain)"
    return f"; client {record.client_id} is deleted first"


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
    if record is None or record.state in _ENDED or record.withdrawn is not None or _served_no_more(observed, settings):
        return None
    if permitted(observed, settings) is not False:
        return None
    return NoteWithdrawal(reasons.CLIENT_REGISTERED, "the AuthorizationServer serves this service no more", since=now)


def _permission_given_back(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    record = observed.ledger
    if record is None or record.state in _ENDED or record.withdrawn is None or not permitted(observed, settings):
        return None
    return NoteWithdrawal(reasons.CLIENT_REGISTERED, "the AuthorizationServer serves this service again", since=None)


def _kept_client_half_updated(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    """An update was interrupted, and may have changed the secret of a client that stays when its server goes."""
    if not _served_no_more(observed, settings):
        return None
    return plan_deletion.kept_client_half_updated(observed, settings, now)


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
    if _served_no_more(observed, settings):
        return not _retained(observed, record)
    over = record.withdrawn is not None and now - record.withdrawn >= GRACE
    return over and permitted(observed, settings) is False


def _served_no_more(observed: ObservedClient, settings: Settings) -> bool:
    """Whether the AuthorizationServer, which the operator honours, is being deleted."""
    server = observed.server
    return server is not None and server.meta.is_going and server.reference.namespace in settings.honoured_namespaces


def _retained(observed: ObservedClient, record: Record) -> bool:
    """Whether the client stays at the server when that goes: there is one, it is ours, and it is to stay."""
    return (
        observed.retains_client
        and record.client_id is not None
        and record.state in RETAINABLE
        and not record.is_foreign
    )


def stays(observed: ObservedClient) -> bool:
    """Whether an AuthorizationServer that is being deleted need not wait for the client of this living object."""
    record = observed.ledger
    if record is None or record.state is State.ORPHANED:
        return True
    at_rest = record.state in (State.REGISTERED, State.IDLE) and not has_second(record)
    return at_rest and _retained(observed, record)


CHECKS: Final[tuple[ClientCheck, ...]] = (
    _withdrawal_not_noted,
    _permission_given_back,
    _kept_client_half_updated,
    _client_outlives_permission,
)
