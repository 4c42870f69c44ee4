"""What to do next for an object with a client that is being deleted: the checks, in their order. Pure.

unregister ── forget ── release      or, with deletionPolicy Retain: retain ── disown ── release

A rotation may be under way: without Retain both clients are deleted; with it, the one whose credentials the tenant has
stays.
"""

from __future__ import annotations

from typing import Final

from . import reasons
from .conditions import timestamp
from .errors import AdministratorMustAct, ServerUnavailable, Wait
from .observed import ObservedClient, Settings, is_repeatable, server_changed, wanted_metadata
from .registration.ledger import CHOSEN_CLIENT_ID, RETAINABLE, SECOND_PREFIX, Record, Role, State, has_second
from .resource import FINALIZER
from .steps import (
    Abandon,
    Blocked,
    ClientCheck,
    Discard,
    EndSecond,
    ForgetForeign,
    GiveUpRotation,
    LeaveBehind,
    Release,
    Retain,
    RollBack,
    StartDeletion,
    Step,
    Unregister,
    Update,
)


def _nothing_to_release(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    if observed.ledger is not None and observed.ledger.state is State.RETAINED:
        return None
    gone = observed.ledger is None or observed.ledger.state is State.ORPHANED
    if gone and FINALIZER in observed.service.meta.finalizers:
        return Release(reasons.CLIENT_REGISTERED, "the client is gone")
    return None


def _retained_not_released(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    record = observed.ledger
    if record is None or record.state is not State.RETAINED or FINALIZER not in observed.service.meta.finalizers:
        return None
    in_time = now - (record.deletion_started or now) < settings.deletion_deadline
    return Release(reasons.CLIENT_REGISTERED, "the client stays registered", disown=in_time)


def _rotation_lost(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    """A rotation was interrupted, and whether there is a second client cannot be learnt: let it go."""
    record = observed.ledger
    if record is None or record.state is not State.ROTATING or observed.server is None:
        return None
    if is_repeatable(observed.server, now - record.attempt_started):
        return None
    return GiveUpRotation(reasons.CLIENT_REGISTERED, "a rotation was interrupted", None)


def _new_client_not_projected(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    """Of two clients, the one stays whose credentials were given out."""
    record, projection, digests = observed.ledger, observed.projection, observed.ledger_digests
    if not observed.retains_client or record is None or record.state is not State.REGISTERED:
        return None
    if record.second is None or record.second.role is not Role.OLD or projection is None:
        return None
    if digests.get(f"{SECOND_PREFIX}client_id") not in projection.digests.values():
        return None
    return RollBack(reasons.CLIENT_REGISTERED, "the new client's credentials were never given out")


def _second_client_not_deleted(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    """The client is to stay, but not the one beside it."""
    record, phase = observed.ledger, reasons.CLIENT_REGISTERED
    if record is None or record.state is not State.RETAINED or not has_second(record):
        return None
    if FINALIZER not in observed.service.meta.finalizers:
        return None
    if now - (record.deletion_started or now) >= settings.deletion_deadline:
        return None  # the ledger entry remembers it, and it is deleted as soon as the server answers
    obstacle = observed.unreachable or observed.refused
    if observed.server is None:
        text = f"AuthorizationServer {record.server} was deleted"
        obstacle = AdministratorMustAct(reasons.SERVER_DELETED, text)
    elif server_changed(observed):
        obstacle = AdministratorMustAct(reasons.SERVER_CHANGED, "its AuthorizationServer now names another server")
    if obstacle is not None:
        text = f"waiting to delete the client beside {record.client_id}: {obstacle.message}"
        text += f"; {_until(observed, record, settings)}"
        if isinstance(obstacle, Wait):
            return Blocked(phase, ServerUnavailable(obstacle.reason, text, retry_after=obstacle.retry_after))
        return Blocked(phase, AdministratorMustAct(obstacle.reason, text))
    return EndSecond(phase, "the object is deleted during a rotation")


def kept_client_half_updated(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    """An update was interrupted, and may have changed the secret: finish it, if the server can be asked now."""
    record = observed.ledger
    if not observed.retains_client or record is None or record.state is not State.UPDATING:
        return None
    if observed.server is None or observed.unreachable is not None or observed.refused is not None:
        return None
    metadata = wanted_metadata(observed, settings, record.tag_attempt)
    return Update(reasons.CLIENT_REGISTERED, "an interrupted update is finished", metadata, attempt=record.attempt)


def _client_kept(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    record = observed.ledger
    if not observed.retains_client or record is None or record.client_id is None or record.is_foreign:
        return None
    if record.state not in RETAINABLE:
        return None  # a deletion that has begun is ended; an interrupted registration gave nobody a client
    return Retain(reasons.CLIENT_REGISTERED, "the object is deleted, its client is to stay")


def _deadline_passed(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    record = observed.ledger
    if record is None or FINALIZER not in observed.service.meta.finalizers or record.state is not State.DELETING:
        return None
    if now - (record.deletion_started or now) < settings.deletion_deadline:
        return None
    return Release(reasons.CLIENT_REGISTERED, "the deletion deadline has passed", orphaned=True)


def _intent_without_client(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    """A registration was interrupted and its object is deleted: finish it to learn what to delete, or give it up."""
    record, phase = observed.ledger, reasons.CLIENT_REGISTERED
    if record is None or record.state is not State.REGISTERING:
        return None
    # An AuthorizationServer that is gone may come back: until the deadline nothing is given up for its sake.
    if observed.server is not None and not is_repeatable(observed.server, now - record.attempt_started):
        return Abandon(phase, "an interrupted registration cannot be continued: its client, if any, is not known")
    return StartDeletion(phase, _why(observed))


def _no_client_was_made(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    """Every attempt was refused, or none was ever made: there is nothing to ask of any server."""
    record = observed.ledger
    if record is None or record.client_id is not None or record.intent is not None:
        return None
    if CHOSEN_CLIENT_ID in observed.ledger_digests:
        return None  # an attempt with this id may have made a part of what it was to make
    if record.state not in (State.IDLE, State.DELETING):
        return None
    return Discard(reasons.CLIENT_REGISTERED, "no client was ever made")


def _deletion_not_started(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    if observed.ledger is None or observed.ledger.state in (State.DELETING, State.ORPHANED, State.RETAINED):
        return None
    return StartDeletion(reasons.CLIENT_REGISTERED, _why(observed))


def _client_not_deleted(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    phase = reasons.CLIENT_REGISTERED
    if observed.ledger is None or observed.ledger.state is not State.DELETING:
        return None
    if observed.ledger.is_foreign:
        return ForgetForeign(phase, "the client was made by other hands and is theirs")
    if not observed.ledger.manageable:
        return LeaveBehind(phase, "the server offers no way to delete the client")
    if observed.server is None:
        text = (
            f"AuthorizationServer {observed.ledger.server} was deleted before client {observed.ledger.client_id}, "
            "which goes when one of that name and issuer is there again, or is to be deleted at the server by hand; "
            f"{_until(observed, observed.ledger, settings)}"
        )
        return Blocked(phase, AdministratorMustAct(reasons.SERVER_DELETED, text))
    obstacle = observed.unreachable
    if server_changed(observed):
        obstacle = AdministratorMustAct(reasons.SERVER_CHANGED, "its AuthorizationServer now names another server")
    if obstacle is not None:
        text = f"waiting to delete client {observed.ledger.client_id}: {obstacle.message}"
        text += f"; {_until(observed, observed.ledger, settings)}"
        if isinstance(obstacle, Wait):
            return Blocked(phase, ServerUnavailable(obstacle.reason, text, retry_after=obstacle.retry_after))
        return Blocked(phase, AdministratorMustAct(obstacle.reason, text))
    return Unregister(phase, _why(observed))


def _why(observed: ObservedClient) -> str:
    if observed.service.meta.is_going:
        return "the object is deleted"
    server_goes = observed.server is not None and observed.server.meta.is_going
    return "its AuthorizationServer is deleted" if server_goes else "the object may not have it any more"


def _until(observed: ObservedClient, record: Record, settings: Settings) -> str:
    if observed.service.meta.deletion_timestamp is None:
        return "it is tried until it is done"
    deadline = timestamp((record.deletion_started or 0) + settings.deletion_deadline)
    return f"the object is released at {deadline} at the latest"


def seconds_until_release(observed: ObservedClient, settings: Settings, now: float) -> float | None:
    """How long a deletion that has begun may still wait; None where none has, or where the deadline has passed."""
    record = observed.ledger
    if not observed.service.meta.deletion_timestamp or record is None:
        return None
    if record.state is not State.DELETING and not (record.state is State.RETAINED and has_second(record)):
        return None
    left = (record.deletion_started or now) + settings.deletion_deadline - now
    return left if left > 0 else None


# How a client is ended, whatever becomes of its object.
CLIENT_CHECKS: Final[tuple[ClientCheck, ...]] = (
    _rotation_lost,
    _intent_without_client,
    _no_client_was_made,
    _deletion_not_started,
    _client_not_deleted,
)
CHECKS: Final[tuple[ClientCheck, ...]] = (
    _nothing_to_release,
    _second_client_not_deleted,
    _retained_not_released,
    _deadline_passed,
    _rotation_lost,
    _new_client_not_projected,
    kept_client_half_updated,
    _client_kept,
    *CLIENT_CHECKS,
)
