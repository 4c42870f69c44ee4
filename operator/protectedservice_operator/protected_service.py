"""ProtectedService as typed, frozen data, and the names of its children. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .resource import CLIENT_ID, CLIENT_SECRET, PROTECTED_SERVICE, Bundle, Key, Kind, Meta, Reference, rotation_request
from .tenancy import Namespaces
from .workload import Workload


@dataclass(frozen=True, slots=True)
class UpstreamTLS:
    """How an upstream's certificate is judged."""

    ca_bundle: Bundle | None
    """Only these certificates are trusted then; of the service's own namespace, and mounted by its pods."""
    server_name: str | None

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> UpstreamTLS:
        return cls(Bundle.parse(spec["caBundle"]) if "caBundle" in spec else None, spec.get("serverName"))


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where admitted requests go: a Service in the same namespace, or a URL."""

    service: str | None
    port: int
    url: str | None
    timeout: str
    forward_token: bool
    identity_headers: Mapping[str, Any] | None  # as in spec
    tls: UpstreamTLS | None
    isolate: bool

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> Upstream:
        service = spec.get("service") or {}
        return cls(
            service=service.get("name"),
            port=service.get("port", 0),
            url=spec.get("url"),
            timeout=spec["timeout"],
            forward_token=spec["forwardToken"],
            identity_headers=spec.get("identityHeaders"),
            tls=UpstreamTLS.parse(spec["tls"]) if "tls" in spec else None,
            isolate=spec.get("isolate", False),
        )

    def url_from(self, namespace: str) -> str:
        """Scheme and authority as a pod of this namespace reaches it."""
        if self.url is not None:
            return self.url
        return f"{'http' if self.tls is None else 'https'}://{self.service}.{namespace}.svc:{self.port}"

    def is_service(self, name: str, namespace: str) -> bool:
        """Whether this is the Service of that name in that namespace, which the upstream's pods are in."""
        if self.url is None:
            return self.service == name
        host = (urlsplit(self.url).hostname or "").rstrip(".").split(".")
        return host[0] == name and (len(host) == 1 or (host[1] == namespace and host[2:3] in ([], ["svc"])))


@dataclass(frozen=True, slots=True)
class ProtectedService:
    """A ProtectedService as the API server keeps it: defaults filled in, fields checked by the CRD."""

    meta: Meta
    server: Reference | None
    scopes: tuple[str, ...]
    scope_match: str
    audience: str | None
    resource: str | None
    rules: Sequence[Mapping[str, Any]]  # as in spec
    demo: bool
    upstream: Upstream | None
    max_revocation_delay: str
    introspection_timeout: str
    introspection_retries: int
    serve_stale: str
    webhook_secret: str | None
    client_display_name: str | None
    credentials_secret: str
    client_id_key: str  # of the Secret's data
    client_secret_key: str
    credentials_labels: Mapping[str, str]
    credentials_annotations: Mapping[str, str]
    brings_credentials: bool  # somebody else writes the Secret, and it says which client this is
    retains_client: bool  # a deletion leaves the client registered
    rotation_interval: str | None  # a duration; None: on demand only
    rotation_request: str | None  # digest of the annotation's value
    allowed_clients: Namespaces  # whose ServiceClients may name this service
    replicas: int
    resources: Mapping[str, Any]
    workload: Workload
    pod_labels: Mapping[str, str]
    pod_annotations: Mapping[str, str]
    image_pull_secrets: tuple[str, ...]
    log_level: str
    service_port: int
    service_type: str
    service_annotations: Mapping[str, str]
    suspend: bool
    status: Mapping[str, Any]

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> ProtectedService:
        """Raises KeyError where a default of the CRD is missing, which only an outdated CRD can cause."""
        meta, spec = Meta.parse(body), body["spec"]
        reference = spec.get("authorizationServerRef")
        client, workload, validation = spec.get("client") or {}, spec["workload"], spec["validation"]
        credentials = client.get("credentialsSecret") or {}
        keys = credentials.get("keys") or {}
        return cls(
            meta=meta,
            server=Reference.of(reference, meta.namespace) if reference else None,
            scopes=tuple(spec["scopes"]),
            scope_match=spec["scopeMatch"],
            audience=spec.get("audience"),
            resource=spec.get("resource"),
            rules=spec.get("rules") or (),
            demo=spec.get("demo", False),
            upstream=Upstream.parse(spec["upstream"]) if "upstream" in spec else None,
            max_revocation_delay=validation["maxRevocationDelay"],
            introspection_timeout=validation["timeout"],
            introspection_retries=validation["retries"],
            serve_stale=validation["serveStale"],
            webhook_secret=(validation.get("revocationWebhook") or {}).get("secretName"),
            client_display_name=client.get("name"),
            credentials_secret=credentials.get("name") or f"{meta.name}-oauth2-client",
            client_id_key=keys.get("clientId", "client_id"),
            client_secret_key=keys.get("clientSecret", "client_secret"),
            credentials_labels=credentials.get("labels") or {},
            credentials_annotations=credentials.get("annotations") or {},
            brings_credentials=not credentials.get("create", True),
            retains_client=client.get("deletionPolicy", "Delete") == "Retain",
            rotation_interval=(client.get("rotation") or {}).get("interval"),
            rotation_request=rotation_request(body),
            allowed_clients=Namespaces.parse(spec["allowedClients"]),
            replicas=workload["replicas"],
            resources=workload["resources"],
            workload=Workload.parse(workload),
            pod_labels=workload.get("podLabels") or {},
            pod_annotations=workload.get("podAnnotations") or {},
            image_pull_secrets=tuple(secret["name"] for secret in workload.get("imagePullSecrets") or ()),
            log_level=workload["logLevel"],
            service_port=spec["service"]["port"],
            service_type=spec["service"]["type"],
            service_annotations=spec["service"].get("annotations") or {},
            suspend=spec["suspend"],
            status=body.get("status") or {},
        )

    @property
    def kind(self) -> Kind:
        return PROTECTED_SERVICE

    @property
    def key(self) -> Key:
        return Key(PROTECTED_SERVICE.kind, self.meta.namespace, self.meta.name)

    @property
    def reference(self) -> Reference:
        return Reference(self.meta.namespace, self.meta.name)

    @property
    def credentials_keys(self) -> dict[str, str]:
        """Keys of the tenant's Secret, and the file of the resource server that each becomes."""
        return {self.client_id_key: CLIENT_ID, self.client_secret_key: CLIENT_SECRET}

    def admits_clients_of(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether ServiceClients of this namespace may name the service."""
        return self.allowed_clients.admit(namespace, labels, self.meta.namespace)

    @property
    def rotation_overlap(self) -> str:
        """None: the old client is needed until the pods are known to work with the new one."""
        return "0s"

    @property
    def introspects(self) -> bool:
        """Its pods ask about the callers' tokens with its client."""
        return True

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it may be changed: suspended, and not being deleted."""
        return self.suspend and self.meta.deletion_timestamp is None

    @property
    def scaled_to_zero(self) -> bool:
        """Whether no pod is wanted."""
        return self.replicas == 0 and self.workload.autoscaling is None

    @property
    def isolated_upstream(self) -> str | None:
        """The Service whose pods the resource server alone is to reach; None: whoever can reach them may."""
        return self.upstream.service if self.upstream is not None and self.upstream.isolate else None

    @property
    def serves_stale(self) -> bool:
        """Whether revoked tokens may be let in for longer while the authorization server is down."""
        return not self.serve_stale.startswith("0")

    @property
    def child_name(self) -> str:
        """Name of every child but ConfigMaps and the Secret."""
        return f"{self.meta.name}-protected"

    @property
    def ca_name(self) -> str:
        """Name of the ConfigMap with the certificates that the authorization server's must come from."""
        return f"{self.child_name}-ca"

    @property
    def url(self) -> str:
        """Where callers inside the cluster reach the service."""
        scheme, usual = ("http", 80) if self.workload.tls_secret is None else ("https", 443)
        port = "" if self.service_port == usual else f":{self.service_port}"
        return f"{scheme}://{self.child_name}.{self.meta.namespace}.svc{port}"

    @property
    def recorded_server(self) -> Reference | None:
        """The AuthorizationServer that status says this service was given."""
        recorded = self.status.get("authorizationServer")
        return Reference(recorded["namespace"], recorded["name"]) if recorded else None
