"""What the caches show about one ProtectedService, put together for its plan. Reads memory only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import manifests, reasons
from .authorization_server import AuthorizationServer
from .authorization_servers import AuthorizationServers
from .brought_credentials import BroughtCredentials
from .cache import Cache
from .client_checks import ClientChecks
from .conditions import find_condition, is_true
from .isolation import Finding, Isolated, Trial
from .observed import Observed, Projection, Settings
from .proof import Pod
from .protected_service import ProtectedService
from .registrant import Registrant
from .registration.ledger import ANNOTATION, Record, secret_name
from .resource import (
    ANNOTATION_DESIRED_HASH,
    AUTHORIZATION_SERVER,
    CONFIG_MAP,
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    POD_DISRUPTION_BUDGET,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Key,
    Reference,
)
from .trials import Trials
from .upstream_pods import UpstreamPods
from .verification import Verifier

_CHILDREN = (
    DEPLOYMENT,
    SERVICE,
    SERVICE_ACCOUNT,
    CONFIG_MAP,
    POD_DISRUPTION_BUDGET,
    HORIZONTAL_POD_AUTOSCALER,
    NETWORK_POLICY,
)


class Gatherer:
    """Puts `Observed` together. Keeps one index: who holds which audience."""

    def __init__(
        self,
        cache: Cache,
        servers: AuthorizationServers,
        verifier: Verifier,
        brought: BroughtCredentials,
        checks: ClientChecks,
        upstreams: UpstreamPods,
        trials: Trials,
        settings: Settings,
        namespace: str,
    ) -> None:
        self._cache, self._servers, self._verifier = cache, servers, verifier
        self._brought, self._checks, self._upstreams, self._trials = brought, checks, upstreams, trials
        self._settings, self._namespace = settings, namespace
        self._audiences: Audiences | None = None

    def service(self, key: Key) -> ProtectedService | None:
        """The service as the watch last showed it."""
        cached = self._cache.get(PROTECTED_SERVICE, key.namespace, key.name)
        return ProtectedService.parse(cached.body()) if cached else None

    def observe(self, service: ProtectedService) -> Observed:
        """Everything a plan for this service may look at."""
        meta = service.meta
        ledger = self.ledger(service)
        reference = self.reference(service, ledger)
        server = self.server(reference)
        pods, mounted = self._pods(service)
        self._recognise(service, pods)
        children = {
            (entry.kind, entry.name): entry.body()
            for entry in self._cache.owned_by(meta.uid)
            if entry.kind in _CHILDREN and entry.namespace == meta.namespace
        }
        self._recognise_trial(service, children.get((NETWORK_POLICY, service.child_name)))
        upstream = self._upstreams.known(service)
        return Observed(
            service=service,
            reference=reference,
            server=server,
            unreachable=self._servers.unreachable(server) if server else None,
            ca_bundle=self._servers.ca_bundle(server) if server else None,
            refused=self._servers.refused(server) if server else None,
            namespace_labels=self.namespace_labels(meta.namespace),
            audience_holder=self.audiences.holder(service, reference, ledger),
            ledger=ledger,
            ledger_digests=self.ledger_digests(service),
            projection=self.projection(service),
            brought=self._brought.known(service),
            children=children,
            pods=pods,
            mounted_config_maps=mounted,
            proof=self._verifier.proof(meta.uid),
            proof_due=self._verifier.due(meta.uid, pods),
            proof_running=self._verifier.running(meta.uid),
            check_due=self.check_due(service),
            upstream=upstream,
            trial=self._trials.trial(meta.uid),
            trial_due=isinstance(upstream, Isolated)
            and self._trials.due(meta.uid, _hash(manifests.network_policy(service, upstream))),
        )

    def reference(self, service: Registrant, ledger: Record | None) -> Reference | None:
        """Which AuthorizationServer the object uses: spec, else what was settled before, else the default."""
        settled = Reference.parse(ledger.server) if ledger else service.recorded_server
        return service.server or settled or self._settings.default_server

    def server_of(self, service: Registrant) -> AuthorizationServer | None:
        """The AuthorizationServer that the object uses."""
        return self.server(self.reference(service, self.ledger(service)))

    def server(self, reference: Reference | None) -> AuthorizationServer | None:
        """The AuthorizationServer object, as the watch last showed it."""
        cached = self._cache.get(AUTHORIZATION_SERVER, reference.namespace, reference.name) if reference else None
        return AuthorizationServer.parse(cached.body()) if cached else None

    @property
    def audiences(self) -> Audiences:
        """Who holds which audience; made from the whole cache when it is first needed, which is after its sync."""
        if self._audiences is None:
            self._audiences = Audiences(self._settings.default_server)
            for entry in self._cache.all(PROTECTED_SERVICE):
                service = ProtectedService.parse(entry.body())
                self._audiences.put(service, self.ledger(service))
        return self._audiences

    def ledger(self, service: Registrant) -> Record | None:
        """What the ledger says of this object, secrets left out."""
        entry = self._cache.get(SECRET, self._namespace, secret_name(service.meta.uid))
        return ledger_record(entry.body()) if entry else None

    def ledger_digests(self, service: Registrant) -> Mapping[str, str]:
        """Digests of the secrets in the ledger, by name."""
        entry = self._cache.get(SECRET, self._namespace, secret_name(service.meta.uid))
        return entry.digests if entry else {}

    def check_due(self, service: Registrant) -> bool:
        """Whether it is time to look at the object's client at its server."""
        return self._checks.due(service.meta.uid)

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Labels of a namespace; none while it is not known."""
        namespace = self._cache.get(NAMESPACE, None, name)
        return (namespace.body()["metadata"].get("labels") or {}) if namespace else {}

    def projection(self, service: Registrant) -> Projection | None:
        """The tenant's Secret."""
        entry = self._cache.get(SECRET, service.meta.namespace, service.credentials_secret)
        if entry is None:
            return None
        metadata = entry.body()["metadata"]
        return Projection(
            entry.owner_uid, entry.digests, metadata.get("labels") or {}, metadata.get("annotations") or {}
        )

    def ready_pods(self, service: ProtectedService) -> tuple[Pod, ...]:
        """The pods that serve at this moment."""
        return self._pods(service)[0]

    def _pods(self, service: ProtectedService) -> tuple[tuple[Pod, ...], frozenset[str]]:
        bodies = [entry.body() for entry in self._cache.of_service(POD, service.meta.namespace, service.meta.name)]
        mounted = {
            volume["configMap"]["name"]
            for body in bodies
            for volume in body.get("spec", {}).get("volumes") or ()
            if "configMap" in volume
        }
        living = (body for body in bodies if not body["metadata"].get("deletionTimestamp"))
        pods = (_pod(body) for body in living)
        return tuple(sorted((pod for pod in pods if pod.ready), key=lambda pod: pod.name)), frozenset(mounted)

    def _recognise(self, service: ProtectedService, pods: Iterable[Pod]) -> None:
        """After a start, what status says was proved is not proved again at once: a restart calls nobody."""
        if is_true(service.status.get("conditions") or (), reasons.VERIFIED):
            self._verifier.recognise(service.meta.uid, [pod.name for pod in pods])

    def _recognise_trial(self, service: ProtectedService, policy: Mapping[str, Any] | None) -> None:
        """The same of the upstream's trial: what status says is about the policy that stands in the cluster."""
        told = find_condition(service.status.get("conditions") or (), reasons.UPSTREAM_ISOLATED)
        if policy is not None and told is not None and told["status"] == "True":
            self._trials.recognise(service.meta.uid, Trial(_hash(policy), Finding.REFUSED, told["message"]))


def _hash(manifest: Mapping[str, Any]) -> str:
    return str((manifest["metadata"].get("annotations") or {}).get(ANNOTATION_DESIRED_HASH))


@dataclass(frozen=True, order=True)
class _Claim:
    """One service's claim to an audience; the lowest wins."""

    unheld: bool  # False sorts first: a client that is registered with the audience holds it
    created: str
    uid: str
    namespace: str
    name: str


class Audiences:
    """Which service holds which audience at which AuthorizationServer.

    Who is registered with it holds it; among those who are not, the oldest may. Only claims of other namespaces stand
    in the way: two services of one namespace may share.
    """

    def __init__(self, default: Reference | None) -> None:
        self._default = default
        self._claims: dict[tuple[Reference, str], dict[str, _Claim]] = {}
        self._places: dict[str, tuple[Reference, str]] = {}
        self._askers: dict[tuple[Reference, str], set[Key]] = {}  # ServiceClients that name the audience itself
        self._asked: dict[Key, tuple[Reference, str]] = {}

    def put(self, service: ProtectedService, ledger: Record | None) -> list[Key]:
        """Take in a service as it is now; returns who must look again: who may move up, or asks for its audience."""
        meta = service.meta
        reference = service.server or service.recorded_server or self._default
        place = (reference, service.audience) if reference is not None and service.audience is not None else None
        concerned: list[Key] = []
        if self._places.get(meta.uid) != place:
            concerned = self.remove(meta.uid)
            concerned += self._askers.get(place, ()) if place is not None else ()
        if place is not None:
            self._places[meta.uid] = place
            self._claims.setdefault(place, {})[meta.uid] = _claim(service, ledger)
        return concerned

    def remove(self, uid: str) -> list[Key]:
        """Forget a service; returns who may move up, or asks for its audience."""
        place = self._places.pop(uid, None)
        if place is None:
            return []
        claims = self._claims[place]
        del claims[uid]
        if not claims:
            del self._claims[place]
        waiting = [Key(PROTECTED_SERVICE.kind, claim.namespace, claim.name) for claim in claims.values()]
        return [*waiting, *self._askers.get(place, ())]

    def ask(self, key: Key, reference: Reference | None, audience: str | None) -> Reference | None:
        """Take in that a ServiceClient names this audience (None: none any more); returns the service that holds it."""
        place = (reference, audience) if reference is not None and audience is not None else None
        if (before := self._asked.pop(key, None)) is not None:
            self._askers[before].discard(key)
            if not self._askers[before]:
                del self._askers[before]
        if place is None:
            return None
        self._asked[key] = place
        self._askers.setdefault(place, set()).add(key)
        holder = min(self._claims.get(place, {}).values(), default=None)
        return Reference(holder.namespace, holder.name) if holder is not None else None

    def holder(self, service: ProtectedService, reference: Reference | None, ledger: Record | None) -> str | None:
        """namespace/name of the service of another namespace that has this audience, if there is one."""
        if service.audience is None or reference is None:
            return None
        mine = _claim(service, ledger)
        claims = self._claims.get((reference, service.audience), {}).values()
        others = [claim for claim in claims if claim < mine and claim.namespace != mine.namespace]
        return f"{min(others).namespace}/{min(others).name}" if others else None


def _claim(service: ProtectedService, ledger: Record | None) -> _Claim:
    meta = service.meta
    holds = ledger is not None and ledger.client_id is not None and service.audience in ledger.audiences
    return _Claim(not holds, meta.created, meta.uid, meta.namespace, meta.name)


def ledger_record(body: Mapping[str, Any]) -> Record:
    """The record in a ledger Secret as the cache keeps it."""
    return Record.model_validate_json(body["metadata"]["annotations"][ANNOTATION])


def _pod(body: Mapping[str, Any]) -> Pod:
    now = body.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in now.get("conditions") or ())
    return Pod(body["metadata"]["name"], now.get("podIP"), ready and bool(now.get("podIP")))
