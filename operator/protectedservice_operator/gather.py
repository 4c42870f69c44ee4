"""What the caches show about one ProtectedService, put together for its plan. Reads memory only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import reasons
from .authorization_servers import AuthorizationServers
from .cache import Cache, Cached
from .observed import Observed, Projection, Settings
from .proof import Pod
from .registration.ledger import ANNOTATION, Record, secret_name
from .resource import (
    AUTHORIZATION_SERVER,
    CONFIG_MAP,
    DEPLOYMENT,
    NAMESPACE,
    POD,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    AuthorizationServer,
    Key,
    ProtectedService,
    Reference,
    is_true,
)
from .verification import Verifier

_CHILDREN = (DEPLOYMENT, SERVICE, SERVICE_ACCOUNT, CONFIG_MAP)


class Gatherer:
    """Puts `Observed` together. Keeps one index: who holds which audience."""

    def __init__(
        self, cache: Cache, servers: AuthorizationServers, verifier: Verifier, settings: Settings, namespace: str
    ) -> None:
        self._cache, self._servers, self._verifier = cache, servers, verifier
        self._settings, self._namespace = settings, namespace
        self._audiences: Audiences | None = None

    def service(self, key: Key) -> ProtectedService | None:
        """The service as the watch last showed it."""
        cached = self._cache.get(PROTECTED_SERVICE, key.namespace, key.name)
        return ProtectedService.parse(cached.body()) if cached else None

    def observe(self, service: ProtectedService) -> Observed:
        """Everything a plan for this service may look at."""
        meta = service.meta
        ledger_entry = self._cache.get(SECRET, self._namespace, secret_name(meta.uid))
        ledger = ledger_record(ledger_entry.body()) if ledger_entry else None
        reference = self.reference(service, ledger)
        server = self.server(reference)
        pods, mounted = self._pods(service)
        projection = self._cache.get(SECRET, meta.namespace, service.credentials_secret)
        namespace = self._cache.get(NAMESPACE, None, meta.namespace)
        self._recognise(service, pods)
        return Observed(
            service=service,
            reference=reference,
            server=server,
            unreachable=self._servers.unreachable(server) if server else None,
            ca_bundle=self._servers.ca_bundle(server) if server else None,
            refused=self._servers.refused(server) if server else None,
            namespace_labels=(namespace.body()["metadata"].get("labels") or {}) if namespace else {},
            audience_holder=self.audiences.holder(service, reference),
            ledger=ledger,
            ledger_digests=ledger_entry.digests if ledger_entry else {},
            projection=_projection(projection) if projection else None,
            children={
                (entry.kind, entry.name): entry.body()
                for entry in self._cache.owned_by(meta.uid)
                if entry.kind in _CHILDREN
            },
            pods=pods,
            mounted_config_maps=mounted,
            proof=self._verifier.proof(meta.uid),
            proof_due=self._verifier.due(meta.uid, pods),
            proof_running=self._verifier.running(meta.uid),
        )

    def reference(self, service: ProtectedService, ledger: Record | None) -> Reference | None:
        """Which AuthorizationServer the service uses: spec, else what was settled before, else the default."""
        settled = Reference.parse(ledger.server) if ledger else service.recorded_server
        return service.server or settled or self._settings.default_server

    def server_of(self, service: ProtectedService) -> AuthorizationServer | None:
        """The AuthorizationServer that the service uses."""
        entry = self._cache.get(SECRET, self._namespace, secret_name(service.meta.uid))
        return self.server(self.reference(service, ledger_record(entry.body()) if entry else None))

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
                self._audiences.put(ProtectedService.parse(entry.body()))
        return self._audiences

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


class Audiences:
    """Which service holds which audience at which AuthorizationServer: among namespaces, the oldest.

    A service that never got to register holds nothing against an older one, and two of one namespace may share.
    """

    def __init__(self, default: Reference | None) -> None:
        self._default = default
        self._holders: dict[tuple[Reference, str], dict[str, tuple[str, str, str, str]]] = {}
        self._places: dict[str, tuple[Reference, str]] = {}

    def put(self, service: ProtectedService) -> None:
        """Take in a service as it is now."""
        self.remove(service.meta.uid)
        reference = service.server or service.recorded_server or self._default
        if service.audience is None or reference is None:
            return
        place, meta = (reference, service.audience), service.meta
        self._places[meta.uid] = place
        self._holders.setdefault(place, {})[meta.uid] = (meta.created, meta.uid, meta.namespace, meta.name)

    def remove(self, uid: str) -> list[Key]:
        """Forget a service; returns who may move up."""
        place = self._places.pop(uid, None)
        if place is None:
            return []
        holders = self._holders[place]
        del holders[uid]
        if not holders:
            del self._holders[place]
        return [Key(PROTECTED_SERVICE.kind, namespace, name) for _, _, namespace, name in holders.values()]

    def holder(self, service: ProtectedService, reference: Reference | None) -> str | None:
        """namespace/name of an older service of another namespace with this audience, if there is one."""
        if service.audience is None or reference is None:
            return None
        holders = self._holders.get((reference, service.audience), {})
        mine = (service.meta.created, service.meta.uid, service.meta.namespace, service.meta.name)
        others = [other for other in holders.values() if other < mine and other[2] != service.meta.namespace]
        return f"{min(others)[2]}/{min(others)[3]}" if others else None


def ledger_record(body: Mapping[str, Any]) -> Record:
    """The record in a ledger Secret as the cache keeps it."""
    return Record.model_validate_json(body["metadata"]["annotations"][ANNOTATION])


def _projection(entry: Cached) -> Projection:
    metadata = entry.body()["metadata"]
    return Projection(entry.owner_uid, entry.digests, metadata.get("labels") or {}, metadata.get("annotations") or {})


def _pod(body: Mapping[str, Any]) -> Pod:
    now = body.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in now.get("conditions") or ())
    return Pod(body["metadata"]["name"], now.get("podIP"), ready and bool(now.get("podIP")))
