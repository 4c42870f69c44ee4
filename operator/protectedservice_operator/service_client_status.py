"""What a ServiceClient's status should say. Pure. Rules as in `status.py`, whose words about a client it shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import reasons
from .conditions import merge_conditions, timestamp
from .errors import Outcome
from .observed import Settings, projects
from .registration.ledger import Role
from .service_client import TOKEN_URL
from .service_client_observed import ObservedCaller
from .status import Told, client_facts, client_told, composed, credentials_told, server_told


def status(observed: ObservedCaller, settings: Settings, settled: Mapping[str, Outcome], now: float) -> dict[str, Any]:
    """The whole status that a ServiceClient should show now; arguments as of `status.status`."""
    caller = observed.service
    told = {
        reasons.AUTHORIZATION_SERVER_READY: server_told(observed),
        reasons.SERVICES_ALLOWED: _services_told(observed),
        reasons.CLIENT_REGISTERED: _client_told(observed, settings),
        reasons.CREDENTIALS_READY: _credentials_told(observed),
    }
    conditions = composed(
        observed, told, settled, lambda final: _ready_told(observed, final), goes_on="a deletion or a withdrawal"
    )
    result: dict[str, Any] = {
        "observedGeneration": caller.meta.generation,
        "conditions": merge_conditions(caller.status.get("conditions") or (), conditions, now),
        **client_facts(observed),
    }
    if not observed.has_client:
        for name in ("clientId", "credentialsSecret", "registeredAt", "rotatedAt", "nextRotation"):
            result.pop(name, None)
    elif TOKEN_URL in observed.facts:
        result["tokenUrl"] = observed.facts[TOKEN_URL]
    if (previous := _previous_client(observed)) is not None:
        result["previousClient"] = previous
    return result


def _previous_client(observed: ObservedCaller) -> dict[str, str] | None:
    """The client that a rotation has replaced and whose credentials are good still, and how long they are."""
    second = observed.ledger.second if observed.ledger is not None else None
    if not observed.has_client or second is None or second.role is not Role.OLD:
        return None
    told = {"clientId": second.client_id}
    if second.due is not None:
        told["keptUntil"] = timestamp(second.due)
    return told


def _services_told(observed: ObservedCaller) -> Told:
    if observed.refusals:  # of an object of which nothing is looked at, or that is going
        return "False", observed.refusals[0].reason, "; ".join(refusal.message for refusal in observed.refusals)
    if not observed.called:
        return "True", reasons.NONE_NAMED, "spec.services is empty: the scopes of spec alone are asked for"
    return "True", reasons.ALLOWED, f"may call {', '.join(str(service) for service in observed.called)}"


def _client_told(observed: ObservedCaller, settings: Settings) -> Told:
    if observed.service.meta.deletion_timestamp is None and not observed.has_client and observed.barred:
        refusals = observed.refusals
        reason = refusals[0].reason if refusals else reasons.PENDING
        return "False", reason, "there is no scope that the client may have, so that there is no client"
    told, record = client_told(observed, settings), observed.ledger
    if told[0] != "True" or record is None:
        return told
    audience = f", audience {' '.join(record.audiences)}" if record.audiences else ""
    return "True", told[1], f"client {record.client_id} is registered for scope {' '.join(record.scopes)}{audience}"


def _credentials_told(observed: ObservedCaller) -> Told:
    if not observed.has_client and observed.projection is not None:
        name = observed.service.credentials_secret
        return "False", reasons.PENDING, f"there is no client; what Secret {name} holds is good for nothing"
    return credentials_told(observed, holds=observed.has_client and projects(observed, observed.keys))


def _ready_told(observed: ObservedCaller, told: Mapping[str, Told]) -> Told:
    if observed.service.meta.deletion_timestamp:
        return "False", reasons.DELETING, told[reasons.CLIENT_REGISTERED][2]
    for status_, reason, message in told.values():
        if status_ != "True":
            return "False", reason, message
    if observed.service.at_rest:
        return "True", reasons.SUSPENDED, "everything is in place; spec.suspend is true: nothing is added or repaired"
    return "True", reasons.READY_NOW, "registered, and the Secret holds what a caller needs"
