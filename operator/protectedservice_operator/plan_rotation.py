"""What a rotation needs next, and when the next one is due: the checks, in their order. Pure.

    rotate ── (update, hold) ── take over ── project ── workload ── prove ── hold ── end the old client

The steps between the two halves are those of any changed client and stand in `plan.py`. All that fails here fails in a
phase of its own, which no condition of the service waits for: the client in use serves on.
"""

from __future__ import annotations

from typing import Final

from . import reasons
from .conditions import duration_seconds
from .observed import (
    Observed,
    Settings,
    is_repeatable,
    projected,
    proved,
    server_changed,
    wanted_metadata,
    workload_available,
)
from .registration.ledger import Record, Role, State
from .steps import Blocked, Check, CheckClient, EndSecond, GiveUpRotation, Hold, Rotate, Step, TakeOver

# How long a rotation that was given up is left at rest, unless another one is asked for.
REST: Final = 3600.0
# An old client is kept at least so long after the last pod is known to use the new one: kubelets bring a changed Secret
# to those who mount it within a minute or two.
LEAST_OVERLAP: Final = 120.0
PHASE: Final = reasons.ROTATION


def _rotation_interrupted(observed: Observed, settings: Settings, now: float) -> Step | Blocked | None:
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


def _next_client_waits(observed: Observed, settings: Settings, now: float) -> Step | Blocked | None:
    """Where introspection goes by audience, tokens from before the two knew each other must have expired first."""
    record, server = observed.ledger, observed.server
    if not _is_settled(record) or record is None or record.second is None or record.second.role is not Role.NEXT:
        return None
    metadata = wanted_metadata(observed, settings, record.tag_attempt)
    if server is not None and server.names_introspectors:
        if record.metadata_digest != metadata.digest():
            return None  # the client in use is to be told of the next one first
        if record.second.due is None:
            return Hold(PHASE, "tokens of the client in use do not name the next one yet", 0.0)
        if now < record.second.due:
            return None
    if observed.unreachable is not None:
        return Blocked(PHASE, observed.unreachable)
    return TakeOver(PHASE, "the next client is ready", metadata)


def _second_client_left(observed: Observed, settings: Settings, now: float) -> Step | Blocked | None:
    """The old client goes when every pod was seen at work with the new one and no token of the old one can live."""
    record = observed.ledger
    if not _is_settled(record) or record is None or record.second is None or record.second.role is Role.NEXT:
        return None
    second = record.second
    if second.role is Role.OLD:
        if not projected(observed, settings) or not workload_available(observed, settings):
            return None
        if not proved(observed, settings):
            return None
        if second.due is None:
            return Hold(PHASE, "the new client is in use everywhere", LEAST_OVERLAP)
        if now < second.due:
            return None
    if observed.unreachable is not None:
        return Blocked(PHASE, observed.unreachable)
    return EndSecond(PHASE, f"client {second.client_id} is of no use any more")


def _rotation_due(observed: Observed, settings: Settings, now: float) -> Step | None:
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


def _client_unchecked(observed: Observed, settings: Settings, now: float) -> Step | None:
    record = observed.ledger
    if not observed.check_due or record is None or observed.unreachable is not None:
        return None
    if not _is_settled(record) or record.fault is not None or server_changed(observed):
        return None
    metadata = wanted_metadata(observed, settings, record.tag_attempt)
    if record.metadata_digest != metadata.digest():
        return None
    return CheckClient(reasons.CLIENT_CHECK, "it is time to look at the client", metadata)


BEFORE_PROJECTION: Final[tuple[Check, ...]] = (_rotation_interrupted, _next_client_waits)
AFTER_PROOF: Final[tuple[Check, ...]] = (_second_client_left, _rotation_due, _client_unchecked)


# --- when ----------------------------------------------------------------------------------------------------------


def next_rotation(observed: Observed) -> float | None:
    """When the client in use has served its time, or may be tried again; seconds since the epoch."""
    record, interval = observed.ledger, observed.service.rotation_interval
    if interval is None or record is None or record.registered is None:
        return None
    due = record.registered + duration_seconds(interval)
    return due if record.rotation_refusal is None else max(due, record.rotation_refusal.at + REST)


def due_in(observed: Observed, now: float) -> float | None:
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


def _is_whole(observed: Observed, settings: Settings, record: Record) -> bool:
    """Whether nothing else is to be done about the client, and nothing is wrong with it."""
    return (
        _is_settled(record)
        and record.second is None
        and record.fault is None
        and record.metadata_digest == wanted_metadata(observed, settings, record.tag_attempt).digest()
        and _is_allowed(observed, settings)
        and projected(observed, settings)
    )


def _is_allowed(observed: Observed, settings: Settings) -> bool:
    """Whether the service may have a client made there now."""
    server, namespace = observed.server, observed.service.meta.namespace
    return (
        server is not None
        and server.meta.namespace in settings.honoured_namespaces
        and server.allows(namespace, observed.namespace_labels)
        and observed.audience_holder is None
        and (not observed.refused_scopes or observed.is_to_be_narrowed)
        and not server_changed(observed)
    )
