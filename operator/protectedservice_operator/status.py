"""What a ProtectedService's status should say: conditions (metav1.Condition, kstatus), facts, the proof. Pure.

Messages hold no counters, times or resourceVersions, so that a status that says the same thing is the same bytes and
costs no write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from . import plan_rotation, plan_withdrawal, reasons
from .conditions import Condition, find_condition, merge_conditions, seconds, timestamp
from .errors import AdministratorMustAct, Outcome, UserMustEdit, foreign_text
from .isolation import Fault, Finding, Trial
from .observed import (
    Observed,
    ObservedClient,
    Settings,
    has_client,
    network_policy_applied,
    projected,
    proved_template,
    wanted_metadata,
    wanted_network_policy,
    wanted_template,
    workload_available,
)
from .proof import Verdict, duration
from .protected_service import ProtectedService
from .registration.ledger import Role, State
from .resource import ANNOTATION_DESIRED_HASH, DEPLOYMENT, FINALIZER

# How old a proof's entry in status may grow before a newer proof of the same outcome is written (design: 24 h).
VERIFICATION_REWRITE: Final = 24 * 3600.0


def status(observed: Observed, settings: Settings, settled: Mapping[str, Outcome], now: float) -> dict[str, Any]:
    """The whole status that a service should show now.

    Args:
        settled: the phases (condition types) in which this pass stopped, and why.
        now: seconds since the epoch.
    """
    service, old = observed.service, observed.service.status
    conditions = _conditions(observed, settings, settled)
    result: dict[str, Any] = {
        "observedGeneration": service.meta.generation,
        "conditions": merge_conditions(old.get("conditions") or (), conditions, now),
    }
    result |= client_facts(observed)
    if has_client(observed):
        result["url"] = service.url
    verification = _verification_status(observed, settings, conditions)
    if verification:
        result["verification"] = verification
    return result


def client_facts(observed: ObservedClient) -> dict[str, Any]:
    """What status says about the client beside the conditions."""
    facts: dict[str, Any] = {}
    if observed.reference is not None and FINALIZER in observed.service.meta.finalizers:
        facts["authorizationServer"] = {"namespace": observed.reference.namespace, "name": observed.reference.name}
    if has_client(observed) and observed.ledger is not None:
        facts["clientId"] = observed.ledger.client_id
        facts["credentialsSecret"] = observed.service.credentials_secret
        if observed.ledger.registered is not None:
            facts["registeredAt"] = timestamp(observed.ledger.registered)
        if observed.ledger.rotated is not None:
            facts["rotatedAt"] = timestamp(observed.ledger.rotated)
        if (planned := plan_rotation.next_rotation(observed)) is not None:
            facts["nextRotation"] = timestamp(planned)
    return facts


def _conditions(observed: Observed, settings: Settings, settled: Mapping[str, Outcome]) -> list[Condition]:
    told = {
        reasons.AUTHORIZATION_SERVER_READY: server_told(observed, _stale(observed.service)),
        reasons.CLIENT_REGISTERED: client_told(observed, settings),
        reasons.CREDENTIALS_READY: credentials_told(observed, holds=projected(observed, settings)),
        reasons.WORKLOAD_AVAILABLE: _workload_condition(observed, settings),
        reasons.VERIFIED: _verified_condition(observed, settings),
    }
    told_isolated = _isolated_condition(observed, settings, settled.get(reasons.UPSTREAM_ISOLATED))
    beside = {} if told_isolated is None else {reasons.UPSTREAM_ISOLATED: told_isolated}
    return composed(observed, told, settled, lambda final: _ready_condition(observed, settings, final), beside=beside)


def composed(
    observed: ObservedClient,
    told: dict[str, Told],
    settled: Mapping[str, Outcome],
    ready: Callable[[Mapping[str, Told]], Told],
    *,
    goes_on: str = "a deletion",
    beside: Mapping[str, Told] | None = None,
) -> list[Condition]:
    """All conditions: those that are `told`, unless this pass stopped there, `ready` after them, kstatus' own, and what
    a rotation does.

    `goes_on`: what a suspended object is not spared. `beside`: conditions that are no part of Ready.
    """
    service, aside = observed.service, settled.get(reasons.ROTATION)
    settled = {phase: outcome for phase, outcome in settled.items() if phase in told}
    for phase, outcome in settled.items():
        told[phase] = ("False", outcome.reason, outcome.message)
    if service.at_rest:
        told = {type_: _suspended(*said) for type_, said in told.items()}
    told[reasons.READY] = ready(told)
    if service.at_rest:
        told[reasons.SUSPENDED] = ("True", reasons.SUSPENDED, f"spec.suspend is true: only {goes_on} goes on")
    stalled = next((o for o in settled.values() if isinstance(o, UserMustEdit | AdministratorMustAct)), None)
    if stalled is not None:
        told[reasons.STALLED] = ("True", stalled.reason, stalled.message)
    elif told[reasons.READY][0] != "True" and not service.at_rest:
        told[reasons.RECONCILING] = ("True", told[reasons.READY][1], told[reasons.READY][2])
    if (rotating := _rotating_told(observed, aside)) is not None:
        told[reasons.ROTATING] = rotating
    told |= beside or {}
    generation = service.meta.generation
    return [
        {"type": type_, "status": status_, "reason": reason, "message": message, "observedGeneration": generation}
        for type_, (status_, reason, message) in told.items()
    ]


Told = tuple[str, str, str]  # status, reason, message
# Reasons that hold for a suspended service, too: none of them waits for anything that we would do.
_STANDING: Final = frozenset(
    {
        reasons.SERVER_DELETED,
        reasons.SERVER_NOT_FOUND,
        reasons.UNREACHABLE,
        reasons.NOT_PROBED,
        reasons.SCALED_TO_ZERO,
        reasons.VERIFICATION_DISABLED,
        reasons.VERIFICATION_FAILED,
        reasons.PODS_UNREACHABLE,
    }
)


def _suspended(status_: str, reason: str, message: str) -> Told:
    """What is not as it should be, of a service at which nothing is done."""
    if status_ == "True" or reason in _STANDING:
        return status_, reason, message
    return status_, reasons.SUSPENDED, f"{message}; spec.suspend is true, so that nothing is changed"


def server_told(observed: ObservedClient, meanwhile: str = "") -> Told:
    """AuthorizationServerReady; `meanwhile`: what holds while the server is away."""
    if (gone := plan_withdrawal.server_gone(observed)) is not None:
        return "False", gone.reason, gone.message
    if observed.unreachable is not None:
        return "False", observed.unreachable.reason, observed.unreachable.message + meanwhile
    return "True", reasons.REACHABLE_NOW, f"AuthorizationServer {observed.reference} answers"


def client_told(observed: ObservedClient, settings: Settings) -> Told:
    """ClientRegistered."""
    record = observed.ledger
    if observed.service.meta.deletion_timestamp:
        if observed.retains_client and has_client(observed):
            return "False", reasons.DELETING, "the object is being deleted; its client stays registered"
        return "False", reasons.DELETING, "the client is being deleted at the authorization server"
    if record is None or record.client_id is None:
        return "False", reasons.PENDING, "the client is not registered yet"
    if record.state is State.DELETING:
        return "False", reasons.DELETING, "the client is being deleted at the authorization server"
    if record.state is State.IDLE and record.adopted:
        text = f"adopted client {record.client_id} was lost; it is adopted again as soon as the Secret's secret is good"
        return "False", reasons.CLIENT_LOST, text
    if record.state is State.ORPHANED:
        return "False", reasons.PENDING, f"client {record.client_id} was left behind; the service has no client"
    wanted = wanted_metadata(observed, settings, record.tag_attempt).digest()
    if record.state not in (State.REGISTERED, State.ROTATING) or record.metadata_digest != wanted:
        return "False", reasons.PENDING, f"client {record.client_id} is being updated"
    if record.is_foreign:
        return "True", reasons.REGISTERED, f"client {record.client_id} is used as it is: the server registers nobody"
    if record.is_unchangeable:
        text = f"client {record.client_id} is adopted and used as it is: the server gives no way to change it"
        return "True", reasons.REGISTERED, f"{text}; see there that it has the scopes of spec"
    return "True", reasons.REGISTERED, f"client {record.client_id} is registered with the scopes of spec"


def _rotating_told(observed: ObservedClient, obstacle: Outcome | None) -> Told | None:
    """What a rotation does, or why the last one came to nothing. No part of Ready: the client in use serves on."""
    record = observed.ledger
    if record is None:
        return None
    client, second, asked = record.client_id, record.second, observed.service.rotation_request
    if record.adopted and asked is not None and asked != record.rotation_request:
        text = (
            f"client {client} is adopted and keeps its id, which no rotation would: change its secret where it was "
            "made, and write it into the Secret that spec.client.adopt names"
        )
        return "False", reasons.CANNOT_ROTATE, text
    if record.state is State.ROTATING:
        text = f"a client is made to replace {client}"
    elif second is not None and second.role is Role.NEXT:
        text = f"client {second.client_id} is to replace {client}"
    elif second is not None and second.role is Role.OLD:
        text = f"client {client} is in use; {second.client_id} is deleted when its last token has expired"
    elif record.rotation_refusal is not None:
        text = f"client {client} serves on, another one is tried later: {record.rotation_refusal.message}"
        return "False", reasons.ROTATION_GIVEN_UP, text
    elif second is not None:
        text = f"client {second.client_id} is deleted again"
    else:
        return None
    return "True", reasons.ROTATING, text if obstacle is None else f"{text}; {obstacle.message}"


def _isolated_condition(observed: Observed, settings: Settings, obstacle: Outcome | None) -> Told | None:
    """Whether nobody else reaches the upstream. No part of Ready: a caller who goes past us is no caller of ours."""
    service, upstream, trial = observed.service, observed.upstream, observed.trial
    if service.upstream is None or not service.upstream.isolate or service.meta.deletion_timestamp is not None:
        return None
    told: Told = "False", reasons.PENDING, f"NetworkPolicy {service.child_name} is not applied yet"
    wanted = wanted_network_policy(observed)
    if service.isolated_upstream is None:
        text = "spec.upstream.url names no pods that a NetworkPolicy could mean; name a Service, or isolate it by hand"
        told = "False", reasons.UPSTREAM_WITHOUT_SELECTOR, text
    elif obstacle is not None:
        told = "False", obstacle.reason, obstacle.message
    elif isinstance(upstream, Fault):
        told = "False", upstream.reason, upstream.message
    elif wanted is not None and network_policy_applied(observed):
        if trial is not None and trial.policy == wanted["metadata"]["annotations"][ANNOTATION_DESIRED_HASH]:
            told = _tried(service, trial)
        else:
            why = "nobody has tried yet whether the network enforces it"
            if not settings.verification:
                why = "nobody tries whether the network enforces it: verification is switched off for this operator"
            told = "Unknown", reasons.POLICY_APPLIED, f"NetworkPolicy {service.child_name} is applied; {why}"
    return _suspended(*told) if service.at_rest and told[0] == "False" else told


def _tried(service: ProtectedService, trial: Trial) -> Told:
    match trial.finding:
        case Finding.REFUSED:
            return "True", reasons.DIRECT_CONNECTION_REFUSED, trial.message
        case Finding.ACCEPTED:
            text = (
                f"{trial.message}, whatever NetworkPolicy {service.child_name} says: the cluster's network (CNI) does "
                "not enforce NetworkPolicies, or another policy lets callers in; ask the cluster's administrator"
            )
            return "False", reasons.NOT_ENFORCED, text
    text = f"NetworkPolicy {service.child_name} is applied; whether it is enforced is not known: {trial.message}"
    return "Unknown", reasons.POLICY_APPLIED, text


def credentials_told(observed: ObservedClient, *, holds: bool) -> Told:
    """CredentialsReady; `holds`: whether the tenant's Secret says what it ought to."""
    name = observed.service.credentials_secret
    if holds:
        return "True", reasons.PROJECTED, f"Secret {name} holds the client's credentials"
    if observed.service.brings_credentials:
        return "False", reasons.PENDING, f"the client is not yet what Secret {name} brings"
    return "False", reasons.PENDING, f"Secret {name} does not hold the client's credentials yet"


def _workload_condition(observed: Observed, settings: Settings) -> Told:
    name = observed.service.child_name
    live = observed.children.get((DEPLOYMENT, name))
    if live is None:
        return "False", reasons.PENDING, f"Deployment {name} is not applied yet"
    if not workload_available(observed, settings):
        # No counters: they would be a status write at each pod's step.
        failure = _rollout_failure(live.get("status") or {}) or "is rolling out; see its pods"
        return "False", reasons.PROGRESSING, f"Deployment {name}: {failure}"
    if observed.service.scaled_to_zero:
        return "True", reasons.SCALED_TO_ZERO, "spec.workload.replicas is 0: nothing runs, nothing answers"
    return "True", reasons.AVAILABLE, f"Deployment {name} runs this generation on all its replicas"


def _rollout_failure(deployment_status: Mapping[str, Any]) -> str | None:
    """What the Deployment itself says is in the way: quota, admission, a deadline."""
    for condition in deployment_status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return foreign_text(condition.get("message", "its pods are refused"))
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return "its pods did not become ready in time; see their events and logs"
    return None


def _verified_condition(observed: Observed, settings: Settings) -> Told:
    if not settings.verification:
        return "Unknown", reasons.VERIFICATION_DISABLED, "verification is switched off for this operator"
    if observed.service.scaled_to_zero:
        return "Unknown", reasons.SCALED_TO_ZERO, "there is no pod to call"
    template, proof = wanted_template(observed, settings), observed.proof
    if proof is not None and proof.template == template:
        match proof.verdict:
            case Verdict.PROVED:
                return "True", reasons.PROVED, proof.message
            case Verdict.REVOCATION_NOT_PROVED:
                return "True", reasons.REVOCATION_NOT_PROVED, proof.message
            case Verdict.FAILED:
                return "False", reasons.VERIFICATION_FAILED, proof.message + _what_the_server_hides(observed)
            case Verdict.UNREACHABLE:
                return "Unknown", reasons.PODS_UNREACHABLE, proof.message
    if template is not None and proved_template(observed) == template:
        verified = find_condition(observed.service.status["conditions"], reasons.VERIFIED)
        if verified is not None:
            return "True", verified["reason"], verified["message"]
    return "Unknown", reasons.VERIFYING, "the proof of this generation has not ended yet"


def _what_the_server_hides(observed: Observed) -> str:
    """What is known of the AuthorizationServer that may explain a proof that failed."""
    conditions = observed.server.status.get("conditions") or () if observed.server is not None else ()
    cross = find_condition(conditions, reasons.CROSS_CLIENT_INTROSPECTION)
    if cross is None or cross["status"] != "False":
        return ""
    return f"; CrossClientIntrospection of AuthorizationServer {observed.reference} is False: {cross['message']}"


def _ready_condition(observed: Observed, settings: Settings, told: Mapping[str, Told]) -> Told:
    if observed.service.meta.deletion_timestamp:
        return "False", reasons.DELETING, told[reasons.CLIENT_REGISTERED][2]
    service = observed.service
    exempt = not settings.verification or service.scaled_to_zero or service.at_rest
    for type_, (status_, reason, message) in told.items():
        if status_ != "True" and not (type_ == reasons.VERIFIED and exempt):
            return "False", reason, message
    if service.at_rest:
        return "True", reasons.SUSPENDED, "everything is in place; spec.suspend is true: only a deletion goes on"
    if exempt:
        reason = told[reasons.VERIFIED][1]
        return "True", reason, "everything is in place; the service is not verified: " + told[reasons.VERIFIED][2]
    return "True", reasons.READY_NOW, "registered, deployed and verified" + _stale(service)


def _stale(service: ProtectedService) -> str:
    """What spec.validation.serveStale does to the promise, for people."""
    if not service.serves_stale:
        return ""
    return (
        f"; while the authorization server is down, tokens that were found good are let in up to {service.serve_stale} "
        f"longer than {service.max_revocation_delay} after their revocation (spec.validation.serveStale)"
    )


def _verification_status(
    observed: Observed, settings: Settings, conditions: list[Condition]
) -> Mapping[str, Any] | None:
    """What the last proof showed; rewritten when Verified changes, or when the proof is a day older."""
    old: Mapping[str, Any] | None = observed.service.status.get("verification")
    proof = observed.proof
    if proof is None or proof.verdict is Verdict.INCONCLUSIVE or proof.template != wanted_template(observed, settings):
        return old
    before = find_condition(observed.service.status.get("conditions") or (), reasons.VERIFIED)
    after = find_condition(conditions, reasons.VERIFIED)
    same = before is not None and after is not None and before["status"] == after["status"]
    if old and same and old.get("hash") == proof.template:
        last = old.get("lastVerified")
        if proof.verdict in (Verdict.FAILED, Verdict.UNREACHABLE) or (
            last is not None and proof.finished - seconds(last) < VERIFICATION_REWRITE
        ):
            return old
    result: dict[str, Any] = {
        "hash": proof.template,
        "checks": [step for check in proof.checks for step in check.to_status()],
    }
    if proof.verdict in (Verdict.PROVED, Verdict.REVOCATION_NOT_PROVED):
        result["lastVerified"] = timestamp(proof.finished)
    elif old and old.get("lastVerified"):
        result["lastVerified"] = old["lastVerified"]
    if proof.revocation_delay is not None:
        result["revocationDelay"] = duration(proof.revocation_delay)
    return result
