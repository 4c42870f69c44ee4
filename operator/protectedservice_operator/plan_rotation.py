"""What a rotation needs next, and when the next one is due: the checks, in their order. Pure.

    rotate ── (update, hold) ── take over ── project ── workload ── prove ── hold ── end the old client

The steps between the two halves are those of any changed client and stand in `plan.py`; of a ServiceClient, whose
readers nobody sees, it is `project` alone, and the hold is longer by its overlap. All that fails here fails in a phase
of its own, which no condition of the object waits for: the client in use serves on.

What is taken off the client in use meanwhile is taken off the second one, too.
"""

from __future__ import annotations

from typing import Final

from . import plan_brought, reasons
from .conditions import duration_seconds
from .observed import ObservedClient, Settings, is_repeatable, server_changed, wanted_metadata
from .registration.ledger import Record, Role, State, holds_too_much
from .steps import (
    Blocked,
    CheckClient,
    ClientCheck,
    EndSecond,
    GiveUpRotation,
    Hold,
    Rotate,
    Step,
    TakeOver,
    UpdateSecond,
)

# How long a rotation that was given up is left at rest, unless another one is asked for.
REST: Final = 3600.0
# An old client is kept at least so long after the new one is known to be in use: kubelets bring a changed Secret to
# those who mount it within a minute or two.
LEAST_OVERLAP: Final = 120.0
PHASE: Final = reasons.ROTATION


def _rotation_interrupted(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    record = observed.ledger
    if record is None or record.state is not State.ROTATING:
        return None
    if not is_repeatable(observed.server, now - record.attempt_started):
        return GiveUpRotation(PHASE, "a rotation was interrupted", observed.service.rotation_request)
    if not _is_allowed(observed, settings):
        return None  # told by other phases; the attempt stays open
    obstacle = observed.unreachable or observed.refused
    if obstacle is not None:
        return Blocked(PHASE, obstacle)
    return Rotate(PHASE, "a rotation was interrupted", observed.service.rotation_request, attempt=record.attempt)


def _next_client_waits(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    """Where introspection goes by audience, tokens from before the two knew each other must have expired first."""
    record, server = observed.ledger, observed.server
    if not _is_settled(record) or record is None or record.second is None or record.second.role is not Role.NEXT:
        return None
    if record.second.intent is not None:
        return None
    metadata = wanted_metadata(observed, settings, record.tag_attempt)
    if server is not None and server.names_introspectors and observed.service.introspects:
        if record.metadata_digest != metadata.digest():
            return None  # the client in use is to be told of the next one first
        if record.second.due is None:
            return Hold(PHASE, "tokens of the client in use do not name the next one yet", 0.0)
        if now < record.second.due:
            return None
    if observed.unreachable is not None:
        return Blocked(PHASE, observed.unreachable)
    return TakeOver(PHASE, "the next client is ready", metadata)


def _second_client_left(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    """The old client goes when nobody uses it any more, as far as can be told, and no token of it can live."""
    record = observed.ledger
    if not _is_settled(record) or record is None or record.second is None or record.second.role is Role.NEXT:
        return None
    second = record.second
    if second.role is Role.OLD:
        if not observed.is_in_use(settings):
            return None
        overlap = duration_seconds(observed.service.rotation_overlap)
        if second.due is None or second.overlap != overlap:
            return Hold(PHASE, "the new client is in use", LEAST_OVERLAP, overlap)
        if now < second.due:
            return None
    if observed.unreachable is not None:
        return Blocked(PHASE, observed.unreachable)
    return EndSecond(PHASE, f"client {second.client_id} is of no use any more")


def _next_client_outdated(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    return _second_outdated(observed, settings, Role.NEXT)


def _old_client_outdated(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    return _second_outdated(observed, settings, Role.OLD)


def _second_outdated(observed: ObservedClient, settings: Settings, role: Role) -> Step | Blocked | None:
    """It is to hold what the client in use holds. One that cannot be changed stays as it is, if it may."""
    record = observed.ledger
    if not _is_settled(record) or record is None or record.second is None or record.second.role is not role:
        return None
    second = record.second
    if second.deletion_started is not None or not _is_allowed(observed, settings):
        return None
    if plan_brought.obstacle(observed, settings) is not None:
        return None  # the server registers nobody by now, and changes nobody either
    metadata = wanted_metadata(observed, settings, second.tag_attempt)
    too_much = holds_too_much(second, metadata)
    if second.intent is None:
        if second.metadata_digest == metadata.digest():
            return None
        if not too_much and (not second.manageable or second.refused == metadata.digest()):
            return None
    if observed.unreachable is not None:
        return Blocked(PHASE, observed.unreachable)
    return UpdateSecond(PHASE, f"the metadata of client {second.client_id} differ from spec", metadata)


def _second_holds_too_much(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    """Of a suspended object only this; what a spec of more asks for waits."""
    record = observed.ledger
    if record is None or record.second is None:
        return None
    metadata = wanted_metadata(observed, settings, record.second.tag_attempt)
    if record.second.intent is None and not holds_too_much(record.second, metadata):
        return None
    return _second_outdated(observed, settings, record.second.role)


def _rotation_due(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    record = observed.ledger
    if record is None or not _is_whole(observed, settings, record):
        return None
    if observed.unreachable is not None or observed.refused is not None or observed.service.brings_credentials:
        return None  # whoever brings credentials rotates them
    if observed.server is None or observed.server.meta.is_going:
        return None  # one that is under way goes on
    request = observed.service.rotation_request
    asked = request is not None and request != record.rotation_request
    planned = next_rotation(observed)
    if not asked and (planned is None or now < planned):
        return None
    refusal = record.rotation_refusal
    if refusal is not None and refusal.digest == (request or "") and now < refusal.at + REST:
        return None
    return Rotate(PHASE, "a rotation is asked for" if asked else "a rotation is due", request)


def _client_unchecked(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    record = observed.ledger
    if not observed.check_due or record is None or observed.unreachable is not None:
        return None
    if not _is_settled(record) or record.fault is not None or server_changed(observed):
        return None
    metadata = wanted_metadata(observed, settings, record.tag_attempt)
    if record.metadata_digest != metadata.digest():
        return None
    return CheckClient(reasons.CLIENT_CHECK, "it is time to look at the client", metadata)


BEFORE_PROJECTION: Final[tuple[ClientCheck, ...]] = (_rotation_interrupted, _next_client_outdated, _next_client_waits)
AFTER_PROOF: Final[tuple[ClientCheck, ...]] = (
    _old_client_outdated,
    _second_client_left,
    _rotation_due,
    _client_unchecked,
)
# Of one at which nothing else is done: what was begun is ended, and what is withdrawn is withdrawn.
AT_REST: Final[tuple[ClientCheck, ...]] = (_rotation_interrupted, _second_holds_too_much)


# --- when ----------------------------------------------------------------------------------------------------------


def next_rotation(observed: ObservedClient) -> float | None:
    """When the client in use has served its time, or may be tried again; seconds since the epoch."""
    record, interval = observed.ledger, observed.service.rotation_interval
    if interval is None or record is None or record.registered is None:
        return None
    due = record.registered + duration_seconds(interval)
    return due if record.rotation_refusal is None else max(due, record.rotation_refusal.at + REST)


def due_in(observed: ObservedClient, now: float) -> float | None:
    """Seconds until a rotation has something to do that only time brings."""
    record, times = observed.ledger, []
    if record is None or observed.service.at_rest or observed.service.meta.deletion_timestamp is not None:
        return None
    if record.second is not None:
        times.append(record.second.due)
    else:
        times.append(next_rotation(observed))
        if record.rotation_refusal is not None:
            times.append(record.rotation_refusal.at + REST)
    remaining = [time - now for time in times if time is not None and time > now]
    return min(remaining, default=None)


def _is_settled(record: Record | None) -> bool:
    return record is not None and record.state is State.REGISTERED and record.client_id is not None


def _is_whole(observed: ObservedClient, settings: Settings, record: Record) -> bool:
    """Whether nothing else is to be done about the client, and nothing is wrong with it."""
    return (
        _is_settled(record)
        and record.second is None
        and record.fault is None
        and record.metadata_digest == wanted_metadata(observed, settings, record.tag_attempt).digest()
        and _is_allowed(observed, settings)
        and observed.is_projected(settings)
    )


def _is_allowed(observed: ObservedClient, settings: Settings) -> bool:
    """Whether the object may have a client made there now."""
    server, namespace = observed.server, observed.service.meta.namespace
    return (
        server is not None
        and server.meta.namespace in settings.honoured_namespaces
        and server.allows(namespace, observed.namespace_labels)
        and not observed.barred
        and not server_changed(observed)
    )
