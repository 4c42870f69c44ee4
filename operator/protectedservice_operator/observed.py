"""All that one pass knows about a ProtectedService, and what follows from it without any decision. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from . import manifests, reasons
from .authorization_server import AuthorizationServer, RegistrationKind
from .conditions import find_condition
from .drift import differs, intruders
from .errors import Outcome
from .isolation import Fault, Isolated, Trial
from .proof import Pod, Proof, Verdict
from .protected_service import ProtectedService
from .registrant import Registrant
from .registration.driver import ClientMetadata
from .registration.ledger import Record, Role, State
from .registration.names import client_name, tag
from .resource import (
    CLIENT_ID,
    CLIENT_SECRET,
    CONFIG_MAP,
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
    Reference,
)

# How long a server that honours Idempotency-Key is trusted to remember it (design: 24 h).
IDEMPOTENCY_WINDOW: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's own settings, as far as plans depend on them."""

    cluster_id: str
    server_image: str
    honoured_namespaces: frozenset[str]
    default_server: Reference | None = None
    verification: bool = True
    deletion_deadline: float = 24 * 3600.0
    cross_client_check: bool = True


@dataclass(frozen=True, slots=True)
class Projection:
    """The tenant's Secret as the cache knows it: digests of values, never values."""

    owner_uid: str | None
    digests: Mapping[str, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Brought:
    """What a service brings for its client: digests of values, never a secret; or why that cannot be used."""

    fault: str | None = None
    client_id: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)  # of client_id and client_secret
    taken: bool = False  # another object's client has this id


class ObservedClient(Protocol):
    """What a plan about a client may look at, whatever `service` is: a service that is called, or one that calls."""

    @property
    def service(self) -> Registrant: ...

    @property
    def reference(self) -> Reference | None:
        """The AuthorizationServer that the object is to use."""

    @property
    def server(self) -> AuthorizationServer | None: ...

    @property
    def unreachable(self) -> Outcome | None: ...

    @property
    def refused(self) -> Outcome | None: ...

    @property
    def namespace_labels(self) -> Mapping[str, str]: ...

    @property
    def ledger(self) -> Record | None: ...

    @property
    def ledger_digests(self) -> Mapping[str, str]: ...

    @property
    def projection(self) -> Projection | None: ...

    @property
    def scopes(self) -> tuple[str, ...]:
        """That the client is to have."""

    @property
    def refused_scopes(self) -> tuple[str, ...]:
        """That it asks for and that its AuthorizationServer does not let its namespace ask for."""

    @property
    def brought(self) -> Brought | None:
        """What the object brings for its client, where it does."""

    @property
    def audiences(self) -> tuple[str, ...]: ...

    @property
    def peers(self) -> tuple[str, ...]:
        """Ids of clients that must be able to introspect its tokens."""

    @property
    def barred(self) -> bool:
        """Whether what is asked for is such that there can be no client."""

    @property
    def retains_client(self) -> bool:
        """Whether its client stays when the object goes."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What the tenant's Secret holds beside the credentials, by name."""

    @property
    def check_due(self) -> bool:
        """Whether it is time to look at the client at its server."""

    def is_projected(self, settings: Settings) -> bool:
        """Whether the tenant's Secret says what the ledger says, and is ours."""

    def is_in_use(self, settings: Settings) -> bool:
        """Whether the client of the ledger is the one that is used, as far as the cluster can show it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that a plan for a ProtectedService may look at."""

    service: ProtectedService
    reference: Reference | None = None  # the AuthorizationServer that this service is to use
    server: AuthorizationServer | None = None
    unreachable: Outcome | None = None  # why the authorization server must not be called now
    ca_bundle: str | None = None  # certificates to trust, where the AuthorizationServer names some and they were read
    refused: Outcome | None = None  # why it will register no new client of ours now
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    audience_holder: str | None = None  # namespace/name of an older service of another namespace with our audience
    ledger: Record | None = None
    ledger_digests: Mapping[str, str] = field(default_factory=dict)
    projection: Projection | None = None
    brought: Brought | None = None  # where the service brings its credentials
    children: Mapping[tuple[Kind, str], Mapping[str, Any]] = field(default_factory=dict)  # owned by this service
    pods: tuple[Pod, ...] = ()
    mounted_config_maps: frozenset[str] = frozenset()
    proof: Proof | None = None
    proof_due: bool = False  # time, or a pod that has not been proved
    proof_running: bool = False
    check_due: bool = False  # it is time to look at the client at the server
    upstream: Isolated | Fault | None = None  # where it is to be isolated, and was looked at
    trial: Trial | None = None
    trial_due: bool = False  # time, or another policy
    memory: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # what was worked out already

    @property
    def scopes(self) -> tuple[str, ...]:
        """That the client is to have: those of spec that it may have."""
        refused = self.refused_scopes
        return tuple(scope for scope in self.service.scopes if scope not in refused)

    @property
    def refused_scopes(self) -> tuple[str, ...]:
        """Those of spec that the AuthorizationServer does not let this namespace ask for."""
        if self.server is None:
            return ()
        return self.server.refused_scopes(self.service.scopes, self.service.meta.namespace, self.namespace_labels)

    @property
    def is_to_be_narrowed(self) -> bool:
        """Whether there is a client that keeps some of spec's scopes and loses the others."""
        record = self.ledger
        if record is None or record.client_id is None or record.state in (State.DELETING, State.ORPHANED):
            return False
        return bool(self.refused_scopes) and bool(self.scopes)

    @property
    def audiences(self) -> tuple[str, ...]:
        """That the client's tokens may be meant for. What somebody else holds is not asked for, whatever changes."""
        if self.audience_holder is not None:
            return () if self.ledger is None else self.ledger.audiences
        return () if self.service.audience is None else (self.service.audience,)

    @property
    def peers(self) -> tuple[str, ...]:
        """Ids of clients that must be able to introspect its tokens."""
        return ()

    @property
    def barred(self) -> bool:
        """Whether what is asked for is such that there can be no client."""
        ungranted = bool(self.refused_scopes) and not self.is_to_be_narrowed
        return self.audience_holder is not None or upstream_is_itself(self.service) or ungranted

    @property
    def retains_client(self) -> bool:
        """Whether its client stays when the object goes: never with what it may not have any more."""
        allowed = self.server is None or self.server.allows(self.service.meta.namespace, self.namespace_labels)
        return self.service.retains_client and allowed and not self.refused_scopes

    @property
    def facts(self) -> Mapping[str, str]:
        """The credentials Secret holds credentials alone."""
        return {}

    def is_projected(self, settings: Settings) -> bool:
        """Whether the tenant's Secret says what the ledger says, and is ours."""
        return projected(self, settings)

    def is_in_use(self, settings: Settings) -> bool:
        """Whether every pod was seen at work with the client of the ledger."""
        return projected(self, settings) and workload_available(self, settings) and proved(self, settings)


def wanted_metadata(observed: ObservedClient, settings: Settings, attempt8: str) -> ClientMetadata:
    """What the authorization server is to hold about the object's client."""
    service, meta = observed.service, observed.service.meta
    mark = tag(settings.cluster_id, meta.namespace, meta.name, meta.uid, attempt8)
    metadata = ClientMetadata(
        client_name(service.client_display_name, mark),
        observed.scopes,
        observed.audiences,
        tag=mark,
        peers=observed.peers,
    )
    if observed.server is None:
        return metadata
    if observed.server.registration is RegistrationKind.NONE:
        return ClientMetadata(mark, (), tag=mark)  # the client is as it is: nothing of spec is told to the server
    if observed.server.names_introspectors and service.introspects:
        metadata = replace(metadata, peers=(*metadata.peers, *_peers(observed.ledger, attempt8)))
    return replace(metadata, token_endpoint_auth_method=observed.server.token_authentication)


def _peers(record: Record | None, attempt8: str) -> tuple[str, ...]:
    """During a rotation each client is to introspect the other's tokens; `attempt8` tells which one is meant."""
    if record is None or record.client_id is None:
        return ()
    if attempt8 == record.tag_attempt:
        return () if record.second is None or record.second.role is Role.SURPLUS else (record.second.client_id,)
    return (record.client_id,) if record.state in (State.REGISTERED, State.ROTATING) else ()


def wanted_children(observed: Observed, settings: Settings) -> list[tuple[Kind, Mapping[str, Any]]] | None:
    """The children in the order of their creation, or None while the client or the endpoints are not known.

    The endpoints come from the AuthorizationServer's status, not from a live answer: an outage changes no policy. An
    AuthorizationServer that names another server now changes none either: our client is not known there.
    """
    if "children" not in observed.memory:
        observed.memory["children"] = _children(observed, settings)
    found: list[tuple[Kind, Mapping[str, Any]]] | None = observed.memory["children"]
    return found


def upstream_is_itself(service: ProtectedService) -> bool:
    """Whether requests would go round in a circle."""
    return service.upstream is not None and service.upstream.is_service(service.child_name, service.meta.namespace)


def server_changed(observed: ObservedClient) -> bool:
    """Whether the AuthorizationServer object now names another server than the one that made our client."""
    record, endpoints = observed.ledger, observed.server.published_endpoints if observed.server else None
    if record is None or record.registration_endpoint is None or endpoints is None or endpoints.registration is None:
        return False
    return _origin(record.registration_endpoint) != _origin(endpoints.registration)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _children(observed: Observed, settings: Settings) -> list[tuple[Kind, Mapping[str, Any]]] | None:
    server, record = observed.server, observed.ledger
    endpoints = server.published_endpoints if server else None
    if server is None or endpoints is None or record is None or record.client_id is None or server_changed(observed):
        return None
    if upstream_is_itself(observed.service):
        return None
    service, own = observed.service, server.ca_bundle is not None
    if own and observed.ca_bundle is None and (CONFIG_MAP, service.ca_name) not in observed.children:
        return None  # nothing to trust yet
    facts = manifests.Server(
        endpoints, server.allow_insecure_http, server.introspection_authentication, own_authorities=own
    )
    policy = manifests.config_map(service, facts)
    name, client_id = policy["metadata"]["name"], record.client_id
    deployment = manifests.deployment(service, settings.server_image, name, client_id, own_authorities=own)
    # Certificates that cannot be read now leave those in force that were copied before.
    authorities = [] if observed.ca_bundle is None else [manifests.ca_config_map(service, observed.ca_bundle)]
    account, budget = service.workload.service_account, service.workload.disruption_budget
    scaling = service.workload.autoscaling
    return [
        (CONFIG_MAP, policy),
        *((CONFIG_MAP, manifest) for manifest in authorities),
        *([(SERVICE_ACCOUNT, manifests.service_account(service))] if account is None else []),
        (DEPLOYMENT, deployment),
        (SERVICE, manifests.service(service)),
        *([(HORIZONTAL_POD_AUTOSCALER, manifests.horizontal_pod_autoscaler(service, scaling))] if scaling else []),
        *([(POD_DISRUPTION_BUDGET, manifests.pod_disruption_budget(service, budget))] if budget is not None else []),
    ]


def wanted_network_policy(observed: Observed) -> Mapping[str, Any] | None:
    """What keeps others from the upstream; None where nothing is to, or where it cannot be said now."""
    if not isinstance(observed.upstream, Isolated):
        return None
    return manifests.network_policy(observed.service, observed.upstream)


def network_policy_applied(observed: Observed) -> bool:
    """Whether the policy stands in the cluster as it is wanted."""
    wanted, live = wanted_network_policy(observed), observed.children.get((NETWORK_POLICY, observed.service.child_name))
    return wanted is not None and live is not None and not (differs(wanted, live) or intruders(wanted, live))


def wanted_template(observed: Observed, settings: Settings) -> str | None:
    """Hash of the pod template that the service is to run, or None while it is not known."""
    wanted = wanted_children(observed, settings)
    if wanted is None:
        return None
    return manifests.template_hash(next(manifest for kind, manifest in wanted if kind is DEPLOYMENT))


def projected_keys(observed: Observed, settings: Settings) -> dict[str, str]:
    """Keys that the tenant's Secret is to have, and which value of the ledger each holds.

    Changed keys are first added: until this generation's pods, and no others, are available, some pod may still be
    made from a template that mounts the old ones, so that every key stays that holds one of our values.
    """
    wanted, projection = observed.service.credentials_keys, observed.projection
    if projection is None or workload_available(observed, settings):
        return wanted
    names = {digest: name for name, digest in observed.ledger_digests.items() if name in wanted.values()}
    old = {key: names[digest] for key, digest in projection.digests.items() if digest in names}
    return {**old, **wanted}


def projected(observed: Observed, settings: Settings) -> bool:
    """Whether the tenant's Secret says what the ledger says, and is ours."""
    return projects(observed, projected_keys(observed, settings))


def projects(observed: ObservedClient, keys: Mapping[str, str]) -> bool:
    """Whether the tenant's Secret is ours, and holds under these keys alone what the ledger and the facts say."""
    projection, ledger = observed.projection, observed.ledger_digests
    if observed.service.brings_credentials:
        brought = observed.brought
        return (
            brought is not None
            and brought.fault is None
            and all(brought.digests[name] == ledger.get(name) for name in (CLIENT_ID, CLIENT_SECRET))
        )
    values = {**{name: hashlib.sha256(fact.encode()).hexdigest() for name, fact in observed.facts.items()}, **ledger}
    metadata = manifests.credentials_metadata(observed.service)
    return (
        projection is not None
        and projection.owner_uid == observed.service.meta.uid
        and projection.labels.items() >= metadata["labels"].items()
        and projection.annotations.items() >= metadata["annotations"].items()
        and ledger.keys() >= {CLIENT_ID, CLIENT_SECRET}
        and dict(projection.digests) == {key: values.get(name) for key, name in keys.items()}
    )


def has_client(observed: ObservedClient) -> bool:
    return observed.ledger is not None and observed.ledger.client_id is not None


def proved_template(observed: Observed) -> str | None:
    """The template that status says was proved, if Verified holds."""
    verified = find_condition(observed.service.status.get("conditions") or (), reasons.VERIFIED)
    if verified is None or verified["status"] != "True":
        return None
    hash_: str | None = (observed.service.status.get("verification") or {}).get("hash")
    return hash_


def proved(observed: Observed, settings: Settings) -> bool:
    """Whether the wanted template was shown to work, or nobody is to show that."""
    if not settings.verification or observed.service.scaled_to_zero:
        return True
    template, proof = wanted_template(observed, settings), observed.proof
    if template is None:
        return False
    if proof is not None and proof.template == template and proof.verdict is not Verdict.INCONCLUSIVE:
        return proof.verdict in (Verdict.PROVED, Verdict.REVOCATION_NOT_PROVED)
    return proved_template(observed) == template


def rolled_out(observed: Observed) -> bool:
    """Whether the Deployment's own status says that its current template runs on all replicas and on nothing else.

    Of an autoscaled one, that the least number of them serves: more may be on their way at any time.
    """
    live = observed.children.get((DEPLOYMENT, observed.service.child_name))
    if live is None:
        return False
    now, want = live.get("status") or {}, observed.service.replicas
    seen = now.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    counts = (now.get("updatedReplicas", 0), now.get("replicas", 0), now.get("availableReplicas", 0))
    scaling = observed.service.workload.autoscaling
    if scaling is not None:
        least: int = min(scaling.least, live["spec"].get("replicas", 1))
        return bool(seen and counts[0] == counts[1] and counts[2] >= least > 0)
    return seen and counts == (want, want, want)


def workload_available(observed: Observed, settings: Settings) -> bool:
    """Whether this generation's pods, and no others, are available."""
    wanted = wanted_children(observed, settings)
    live = observed.children.get((DEPLOYMENT, observed.service.child_name))
    if wanted is None or live is None:
        return False
    manifest = next(manifest for kind, manifest in wanted if kind is DEPLOYMENT)
    return not differs(manifest, live) and rolled_out(observed)


def is_repeatable(server: AuthorizationServer | None, age: float) -> bool:
    """Whether an interrupted registration of this age can be sent again without making a second client."""
    if server is None:
        return False
    return server.chooses_client_ids or (server.idempotency_honoured and age < IDEMPOTENCY_WINDOW)
