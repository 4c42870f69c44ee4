"""What an AuthorizationServer's status says: conditions, capabilities, and what of it concerns its services. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from . import reasons
from .authorization_server import AuthorizationServer, Endpoints
from .conditions import Condition, find_condition
from .errors import AdministratorMustAct, Outcome, ServerUnavailable
from .registration.driver import Capabilities


def find_refusal(server: AuthorizationServer) -> Condition | None:
    """The Ready condition, where it says that the registration credential was refused."""
    ready = find_condition(server.status.get("conditions") or (), reasons.READY)
    return ready if ready is not None and ready["reason"] == reasons.REGISTRATION_REFUSED else None


def ending_because(ending: Outcome, unready: Outcome | None) -> Outcome:
    """What Ready says of one that is being deleted: `ending`, and what is missing for that."""
    if not isinstance(unready, AdministratorMustAct):
        return ending
    return AdministratorMustAct(unready.reason, f"{ending.message}; {unready.message}")


def says(server: AuthorizationServer, outcome: Outcome) -> bool:
    """Whether Ready says this already."""
    ready = find_condition(server.status.get("conditions") or (), reasons.READY)
    return ready is not None and outcome.message in ready["message"]


def server_condition(
    server: AuthorizationServer, type_: str, outcome: Outcome | None, reason: str, text: str
) -> Condition:
    """True for `reason` and `text`; False, in the outcome's words, where there is one."""
    status = "True"
    if outcome is not None:
        status, reason, text = "False", outcome.reason, outcome.message
        before = find_condition(server.status.get("conditions") or (), type_)
        if before and isinstance(outcome, ServerUnavailable) and before["reason"] == reason:
            text = before["message"]  # each probe of an outage fails in its own words; the first ones stand
    generation = server.meta.generation
    return {"type": type_, "status": status, "reason": reason, "message": text, "observedGeneration": generation}


def exposure(server: AuthorizationServer, exposed: bool) -> Condition:
    """AdminApiExposed: whether whoever introspects reaches the admin API too."""
    if exposed:
        reason, text = (
            reasons.SAME_ORIGIN,
            (
                "whoever may introspect reaches the admin API too, which asks for no credential: put a filter in front "
                "that passes introspection alone, name it in spec.endpoints.introspection, and close the admin port"
            ),
        )
    else:
        reason, text = reasons.OTHER_ORIGIN, "introspection and the admin API are reached at different origins"
    return {
        "type": reasons.ADMIN_API_EXPOSED,
        "status": str(exposed),
        "reason": reason,
        "message": text,
        "observedGeneration": server.meta.generation,
    }


def still_known(server: AuthorizationServer, endpoints: Endpoints | None) -> Condition | None:
    """CrossClientIntrospection, as long as it tells of this spec and of the endpoints in use now."""
    known = find_condition(server.status.get("conditions") or (), reasons.CROSS_CLIENT_INTROSPECTION)
    if known is None or endpoints != server.published_endpoints:
        return None
    if known.get("observedGeneration") != server.meta.generation:
        return None
    return {name: value for name, value in known.items() if name != "lastTransitionTime"}


def spelt_capabilities(capabilities: Capabilities) -> dict[str, bool]:
    """In the CRD's spelling."""
    words = {name: name.split("_") for name in asdict(capabilities)}
    return {
        parts[0] + "".join(part.capitalize() for part in parts[1:]): getattr(capabilities, name)
        for name, parts in words.items()
    }


def replacing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` as a merge patch that leaves nothing of `old` behind in nested maps."""
    patch: dict[str, Any] = dict(new)
    for key in ("endpoints", "capabilities"):
        if isinstance(old.get(key), Mapping) and isinstance(new.get(key), Mapping):
            patch[key] = {**dict.fromkeys(set(old[key]) - set(new[key])), **new[key]}
    return patch


def concerns_services(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether services must look again: reachability, readiness, endpoints, or anything in spec changed."""

    def facts(status: Mapping[str, Any]) -> object:
        conditions = status.get("conditions") or ()
        told = [(c["type"], c["status"], c["reason"]) for c in conditions]
        return told, status.get("endpoints"), status.get("observedGeneration")

    return facts(old) != facts(new)
