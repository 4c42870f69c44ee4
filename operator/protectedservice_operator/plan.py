"""What to do next for one ProtectedService: observed + settings + now -> the first thing that is not yet true. Pure.

The reconcile asks again after each step, so that this file needs no memory: a pass that was killed anywhere is taken up
by the next one, from what is written in the cluster. Each check below reads as a sentence; it guards its own
prerequisites and returns a `Step` to take, a `Blocked` that says who must act, or None when its sentence is false.

    resolve ── finalizer ── register ── (update) ── project ── workload ── prove

What to do for one that is being deleted stands in `plan_deletion.py`, for another client in the place of the one in use
in `plan_rotation.py`, for one whose AuthorizationServer serves it no more in `plan_withdrawal.py`, for one that brings
its credentials in `plan_brought.py`, for one whose upstream is to be isolated in `plan_isolation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from . import plan_brought, plan_deletion, plan_isolation, plan_rotation, plan_withdrawal, reasons
from .conditions import find_condition
from .drift import differences, intruders
from .errors import AdministratorMustAct, Outcome, UserMustEdit, Wait
from .observed import (
    Observed,
    ObservedClient,
    Settings,
    has_client,
    is_repeatable,
    projected,
    projected_keys,
    proved_template,
    server_changed,
    upstream_is_itself,
    wanted_children,
    wanted_metadata,
    wanted_template,
    workload_available,
)
from .registration.driver import ClientMetadata
from .registration.ledger import Record, State
from .resource import (
    ANNOTATION_DESIRED_HASH,
    CONFIG_MAP,
    FINALIZER,
    HORIZONTAL_POD_AUTOSCALER,
    POD_DISRUPTION_BUDGET,
    Kind,
)
from .steps import (
    AddFinalizer,
    Apply,
    Blocked,
    Check,
    ClientCheck,
    Evict,
    Project,
    Prove,
    Prune,
    Register,
    Step,
    Update,
)

Seen = TypeVar("Seen", bound=ObservedClient)

# How long an interrupted attempt at a server without Idempotency-Key is left to rest: the POST's deadline is 10 s, so
# that after 60 s nothing of it can still arrive (design: an open intent).
INTENT_REST: Final = 60.0
# How long a server's no to the same metadata is believed; a server may learn a scope without telling us.
REFUSAL_HOLDS: Final = 3600.0
ADMINISTRATOR_RETRY: Final = 60.0
# Old policies kept beside the one in use: enough for one rollback of a Deployment.
KEPT_CONFIG_MAPS: Final = 2
# Kinds of children that are deleted when spec wants them no more.
_OPTIONAL: Final = (HORIZONTAL_POD_AUTOSCALER, POD_DISRUPTION_BUDGET)


def next_step(observed: Observed, settings: Settings, now: float, settled: Iterable[str] = ()) -> Step | Blocked | None:
    """The first thing that is not as it should be, leaving out the phases that were settled in this pass.

    Of a suspended service only its deletion, and the end of a client that it may not have any more.
    """
    if observed.service.at_rest:
        return first(_CHECKS_AT_REST, observed, settings, now, settled)
    checks = plan_deletion.CHECKS if observed.service.meta.deletion_timestamp else _CHECKS
    return first(checks, observed, settings, now, settled)


def first(
    checks: Iterable[Callable[[Seen, Settings, float], Step | Blocked | None]],
    observed: Seen,
    settings: Settings,
    now: float,
    settled: Iterable[str] = (),
) -> Step | Blocked | None:
    """What the first check finds that is not settled yet."""
    done = frozenset(settled)
    for check in checks:
        found = check(observed, settings, now)
        if found is not None and found.phase not in done:
            return found
    return None


# --- checks of a living service --------------------------------------------------------------------------------------


def server_unresolved(observed: ObservedClient, settings: Settings, now: float) -> Blocked | None:
    phase, reference = reasons.AUTHORIZATION_SERVER_READY, observed.reference
    if reference is None:
        text = (
            "spec.authorizationServerRef is absent and the operator has no default AuthorizationServer; "
            "set spec.authorizationServerRef, or ask the administrator for a default"
        )
        return Blocked(phase, UserMustEdit(reasons.NO_DEFAULT_SERVER, text))
    if reference.namespace not in settings.honoured_namespaces:
        text = (
            f"AuthorizationServer {reference}: the operator honours AuthorizationServers only in "
            f"{', '.join(sorted(settings.honoured_namespaces))}; refer to one there"
        )
        return Blocked(phase, UserMustEdit(reasons.NOT_ALLOWED, text))
    if (gone := plan_withdrawal.server_gone(observed)) is not None:
        return Blocked(phase, gone)
    if observed.server is None:
        raise TypeError("an AuthorizationServer that is neither there nor gone")
    if not observed.server.allows(observed.service.meta.namespace, observed.namespace_labels):
        text = (
            f"AuthorizationServer {reference} does not allow namespace {observed.service.meta.namespace}; "
            f"ask its owner to extend spec.allowedNamespaces{plan_withdrawal.fate(observed)}"
        )
        return Blocked(phase, AdministratorMustAct(reasons.NOT_ALLOWED, text))
    return None


def _upstream_is_the_service_itself(observed: Observed, settings: Settings, now: float) -> Blocked | None:
    if not upstream_is_itself(observed.service):
        return None
    text = f"spec.upstream names {observed.service.child_name}, the protected Service itself; name the one behind it"
    return Blocked(reasons.WORKLOAD_AVAILABLE, UserMustEdit(reasons.UPSTREAM_IS_ITSELF, text))


def _audience_taken(observed: Observed, settings: Settings, now: float) -> Blocked | None:
    if observed.audience_holder is None:
        return None
    text = (
        f"spec.audience {observed.service.audience} is held by ProtectedService {observed.audience_holder} on the same "
        "AuthorizationServer; choose another audience"
    )
    return Blocked(reasons.CLIENT_REGISTERED, UserMustEdit(reasons.AUDIENCE_TAKEN, text))


def scope_not_allowed(observed: ObservedClient, settings: Settings, now: float) -> Blocked | None:
    """Comes after the client was narrowed to what it may have: what was withdrawn is withdrawn, told or not."""
    refused = observed.refused_scopes
    if not refused:
        return None
    text = (
        f"AuthorizationServer {observed.reference} does not let namespace {observed.service.meta.namespace} ask for "
        f"scope {', '.join(refused)}; edit the scopes, or ask its owner to extend spec.allowedScopes"
        f"{plan_withdrawal.fate(observed)}"
    )
    return Blocked(reasons.CLIENT_REGISTERED, UserMustEdit(reasons.SCOPE_NOT_ALLOWED, text))


def _finalizer_missing(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    if FINALIZER in observed.service.meta.finalizers or not _may_register(observed, settings):
        return None
    return AddFinalizer(reasons.CLIENT_REGISTERED, "the object must wait for its client when it is deleted")


def _client_unregistered(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    """No client yet, or an attempt at one that was interrupted."""
    phase, record = reasons.CLIENT_REGISTERED, observed.ledger
    if not _may_register(observed, settings) or (
        record is not None and record.state not in (State.REGISTERING, State.IDLE, State.ORPHANED)
    ):
        return None
    obstacle = observed.unreachable or observed.refused
    if obstacle is not None:
        return Blocked(phase, obstacle)
    if record is None:
        return Register(phase, "there is no client")
    if record.state in (State.IDLE, State.ORPHANED):
        wanted = wanted_metadata(observed, settings, record.tag_attempt)
        if (refusal := _refusal_in_force(observed, record, wanted, now)) is not None:
            return Blocked(phase, refusal)
        return Register(phase, "the service's client is to be made anew")
    age = now - record.attempt_started
    if is_repeatable(observed.server, age):
        return Register(phase, "a registration was interrupted", attempt=record.attempt)
    if age < INTENT_REST:
        text = (
            "a registration was interrupted and its outcome is not known; the next attempt is made 60 s after it began"
        )
        return Blocked(phase, Wait(reasons.INTENT_OPEN, text, retry_after=INTENT_REST - age))
    return Register(phase, "an interrupted registration is given up", abandoned=True)


def _server_changed(observed: ObservedClient, settings: Settings, now: float) -> Blocked | None:
    """The client lives elsewhere: its handle and its secret are nothing to the server that is named now."""
    if not server_changed(observed) or observed.ledger is None:
        return None
    text = (
        f"AuthorizationServer {observed.ledger.server} now names another server than the one that made client "
        f"{observed.ledger.client_id}; name the old one again, or delete this {observed.service.kind} and apply it anew"
    )
    return Blocked(reasons.CLIENT_REGISTERED, AdministratorMustAct(reasons.SERVER_CHANGED, text))


def client_outdated(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    return _update(observed, settings, now, permitted=_may_register(observed, settings))


def _scope_outlives_permission(observed: Observed, settings: Settings, now: float) -> Step | Blocked | None:
    """A client that keeps some of its scopes loses the others, whatever else of its spec is in the way."""
    if not observed.is_to_be_narrowed or server_changed(observed):
        return None
    found = _update(observed, settings, now, permitted=bool(plan_withdrawal.permitted(observed, settings)))
    return found if isinstance(found, Step) else None


def _update(observed: ObservedClient, settings: Settings, now: float, *, permitted: bool) -> Step | Blocked | None:
    phase, record = reasons.CLIENT_REGISTERED, observed.ledger
    if record is None or record.client_id is None or record.state not in (State.REGISTERED, State.UPDATING):
        return None
    metadata = wanted_metadata(observed, settings, record.tag_attempt)
    other_secret = plan_brought.secret_changed(observed)
    if record.state is State.REGISTERED and record.metadata_digest == metadata.digest() and not other_secret:
        return None if record.fault is None else Blocked(phase, UserMustEdit(record.fault.reason, record.fault.message))
    if not permitted:
        return None
    if record.state is State.REGISTERED and (refusal := _refusal_in_force(observed, record, metadata, now)) is not None:
        return Blocked(phase, refusal)
    if observed.unreachable is not None:
        return Blocked(phase, observed.unreachable)
    attempt = record.attempt if record.state is State.UPDATING else None
    why = "the client's metadata differ from spec" if not other_secret else "another secret is brought"
    return Update(phase, why, metadata, attempt=attempt, brought=other_secret)


def _projection_differs(observed: Observed, settings: Settings, now: float) -> Step | Blocked | None:
    if not has_client(observed) or projected(observed, settings) or observed.service.brings_credentials:
        return None
    if "client_secret" not in observed.ledger_digests:
        text = "the authorization server gave the client no secret; see ClientRegistered"
        return Blocked(reasons.CREDENTIALS_READY, UserMustEdit(reasons.INVALID_CLIENT_METADATA, text))
    keys = projected_keys(observed, settings)
    return Project(reasons.CREDENTIALS_READY, "the credentials Secret differs from the ledger", keys)


def _child_unwanted(observed: Observed, settings: Settings, now: float) -> Step | None:
    """A child of a kind that spec wanted once. Before the rest is applied: it might work against it."""
    wanted = wanted_children(observed, settings)
    if wanted is None:
        return None
    kinds = {kind for kind, _ in wanted}
    for (kind, name), body in observed.children.items():
        if kind in _OPTIONAL and kind not in kinds:
            why = f"spec wants no {kind} any more"
            return Prune(reasons.WORKLOAD_AVAILABLE, why, kind, name, body["metadata"]["uid"])
    return None


def _workload_differs(observed: Observed, settings: Settings, now: float) -> Step | None:
    wanted = wanted_children(observed, settings)
    if wanted is None or not projected(observed, settings):
        return None
    for kind, manifest in wanted:
        live = observed.children.get((kind, manifest["metadata"]["name"]))
        name = manifest["metadata"]["name"]
        if live is None:
            repair = _was_wanted(observed, kind, manifest, live)
            return Apply(reasons.WORKLOAD_AVAILABLE, f"{kind} {name} is missing", kind, manifest, repair)
        if changed := tuple(differences(manifest, live)):
            repair = _was_wanted(observed, kind, manifest, live)
            why = f"{kind} {name} is not as wanted at {', '.join(changed)}"
            return Apply(reasons.WORKLOAD_AVAILABLE, why, kind, manifest, repair, changed)
        strangers = intruders(manifest, live)
        if strangers:
            why = f"{kind} {name} holds what is not ours: {', '.join(strangers)}"
            return Evict(reasons.WORKLOAD_AVAILABLE, why, kind, name, tuple(strangers))
    return None


def _old_policy_unused(observed: Observed, settings: Settings, now: float) -> Step | None:
    wanted = wanted_children(observed, settings)
    if wanted is None or not workload_available(observed, settings):
        return None
    current = {manifest["metadata"]["name"] for _, manifest in wanted}
    authorities = observed.children.get((CONFIG_MAP, observed.service.ca_name))
    current.add(observed.service.ca_name)  # is no policy: kept or removed for a reason of its own
    named = observed.server is not None and observed.server.ca_bundle is not None
    if authorities is not None and not named and observed.service.ca_name not in observed.mounted_config_maps:
        uid, why = authorities["metadata"]["uid"], "the AuthorizationServer names no certificates any more"
        return Prune(reasons.WORKLOAD_AVAILABLE, why, CONFIG_MAP, observed.service.ca_name, uid)
    old = sorted(
        (
            (body["metadata"]["creationTimestamp"], name, body["metadata"]["uid"])
            for (kind, name), body in observed.children.items()
            if kind.kind == "ConfigMap" and name not in current
        ),
        reverse=True,
    )
    for _, name, uid in old[KEPT_CONFIG_MAPS - 1 :]:
        if name not in observed.mounted_config_maps:
            return Prune(reasons.WORKLOAD_AVAILABLE, f"policy {name} is used by nothing", CONFIG_MAP, name, uid)
    return None


def _proof_missing(observed: Observed, settings: Settings, now: float) -> Step | None:
    template = wanted_template(observed, settings)
    if template is None or not settings.verification or observed.service.scaled_to_zero or observed.proof_running:
        return None
    if not workload_available(observed, settings) or observed.unreachable is not None or observed.refused_scopes:
        return None
    if observed.ledger is None or observed.ledger.state in (State.DELETING, State.ORPHANED):
        return None
    if proved_template(observed) == template and not observed.proof_due:
        return None
    if observed.proof is not None and observed.proof.template == template and not observed.proof_due:
        return None  # failed lately: the verifier says when it is due again
    return Prove(reasons.VERIFIED, "this template's pods have not been proved", template)


_CHECKS_AT_REST: Final[tuple[Check, ...]] = (*plan_withdrawal.CHECKS, _scope_outlives_permission)
# How a client comes into being and is kept, whatever kind of object it is registered for.
CLIENT_CHECKS: Final[tuple[ClientCheck, ...]] = (
    _finalizer_missing,
    _server_changed,
    _client_unregistered,
    client_outdated,
)
_CHECKS: Final[tuple[Check, ...]] = (
    *_CHECKS_AT_REST,
    server_unresolved,
    _upstream_is_the_service_itself,
    _audience_taken,
    *plan_brought.CHECKS,
    *CLIENT_CHECKS,
    scope_not_allowed,
    *plan_rotation.BEFORE_PROJECTION,
    _projection_differs,
    _child_unwanted,
    _workload_differs,
    *plan_isolation.CHECKS,
    _old_policy_unused,
    _proof_missing,
    *plan_rotation.AFTER_PROOF,
)


# --- shared by the checks -----------------------------------------------------------------------------------------


def _refusal_in_force(observed: ObservedClient, record: Record, metadata: ClientMetadata, now: float) -> Outcome | None:
    """The server's answer to this very question, as long as asking again makes no sense."""
    refusal = record.refusal
    if refusal is None or refusal.digest != metadata.digest():
        return None
    outcome = UserMustEdit if refusal.user_must_edit else AdministratorMustAct
    # What is brought is no part of the digest: it may have been corrected since.
    long = refusal.user_must_edit and not observed.service.brings_credentials
    holds = REFUSAL_HOLDS if long else ADMINISTRATOR_RETRY
    return outcome(refusal.reason, refusal.message) if now - refusal.at < holds else None


def _may_register(observed: ObservedClient, settings: Settings) -> bool:
    return (
        server_unresolved(observed, settings, 0) is None
        and not observed.barred
        and plan_brought.obstacle(observed, settings) is None
    )


def _was_wanted(observed: Observed, kind: Kind, manifest: Mapping[str, Any], live: Mapping[str, Any] | None) -> bool:
    """Whether this child had been applied as it is wanted now, so that applying it again is a repair."""
    if live is not None:
        have = (live["metadata"].get("annotations") or {}).get(ANNOTATION_DESIRED_HASH)
        return bool(have == manifest["metadata"]["annotations"][ANNOTATION_DESIRED_HASH])
    conditions = observed.service.status.get("conditions") or ()
    available = find_condition(conditions, reasons.WORKLOAD_AVAILABLE)
    return available is not None and available.get("observedGeneration") == observed.service.meta.generation
