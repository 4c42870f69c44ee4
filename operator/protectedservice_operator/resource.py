"""ProtectedService and AuthorizationServer as typed, frozen data; the names of their children; conditions. No I/O."""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from .tenancy import Namespaces, ScopeGrant, refused_scopes
from .workload import Workload

GROUP: Final = "protectedservice.dev"
VERSION: Final = "v1alpha1"
FINALIZER: Final = f"{GROUP}/client"
FIELD_MANAGER: Final = "protectedservice-operator"
REPLICAS_MANAGER: Final = f"{FIELD_MANAGER}-replicas"  # holds a Deployment's replicas for the autoscaler
ANNOTATION_DESIRED_HASH: Final = f"{GROUP}/desired-hash"
ANNOTATION_ROTATE: Final = f"{GROUP}/rotate"  # a value that was not there before asks for a rotation
ANNOTATION_AUTOSCALED: Final = f"{GROUP}/autoscaled"  # at a Deployment whose number of replicas is not ours

LABEL_NAME: Final = f"{GROUP}/name"
LABEL_COMPONENT: Final = f"{GROUP}/component"
LABEL_WATCH: Final = f"{GROUP}/watch"  # Secrets and pods carry it so that one selector finds them; users may set it
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "protectedservice"
COMPONENT_SERVER: Final = "resource-server"
COMPONENT_CREDENTIALS: Final = "credentials"
COMPONENT_LEDGER: Final = "ledger"

CLIENT_ID: Final = "client_id"  # names in the ledger, and of the files in the resource server's pod
CLIENT_SECRET: Final = "client_secret"  # noqa: S105 (a file's name)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of the Kubernetes API. `namespaced` is False for cluster-scoped kinds."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As in manifests: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return self.kind


PROTECTED_SERVICE: Final = Kind(GROUP, VERSION, "protectedservices", "ProtectedService")
SERVICE_CLIENT: Final = Kind(GROUP, VERSION, "serviceclients", "ServiceClient")
AUTHORIZATION_SERVER: Final = Kind(GROUP, VERSION, "authorizationservers", "AuthorizationServer")
DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")
POD_DISRUPTION_BUDGET: Final = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
HORIZONTAL_POD_AUTOSCALER: Final = Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
SERVICE: Final = Kind("", "v1", "services", "Service")
SERVICE_ACCOUNT: Final = Kind("", "v1", "serviceaccounts", "ServiceAccount")
CONFIG_MAP: Final = Kind("", "v1", "configmaps", "ConfigMap")
SECRET: Final = Kind("", "v1", "secrets", "Secret")
POD: Final = Kind("", "v1", "pods", "Pod")
NAMESPACE: Final = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
EVENT: Final = Kind("", "v1", "events", "Event")

# Kinds that own a client, by the name under which the ledger remembers them.
OWNERS: Final[Mapping[str, Kind]] = {kind.kind: kind for kind in (PROTECTED_SERVICE, SERVICE_CLIENT)}
# Key.kind of what is no object of the API: a ledger entry whose object is gone, and the sweep over all entries.
LEDGER: Final = "Ledger"
SWEEP: Final = "Sweep"

# Watched kinds with the label selector of each watch (None: everything). Secrets and pods are many: only ours, and
# what users mark for us.
WATCHED: Final[Mapping[Kind, str | None]] = {
    PROTECTED_SERVICE: None,
    SERVICE_CLIENT: None,
    AUTHORIZATION_SERVER: None,
    NAMESPACE: None,
    SECRET: f"{LABEL_WATCH}=true",
    DEPLOYMENT: f"{LABEL_COMPONENT}={COMPONENT_SERVER}",
    SERVICE: f"{LABEL_COMPONENT}={COMPONENT_SERVER}",
    SERVICE_ACCOUNT: f"{LABEL_COMPONENT}={COMPONENT_SERVER}",
    CONFIG_MAP: f"{LABEL_COMPONENT}={COMPONENT_SERVER}",
    POD_DISRUPTION_BUDGET: f"{LABEL_COMPONENT}={COMPONENT_SERVER}",
    HORIZONTAL_POD_AUTOSCALER: f"{LABEL_COMPONENT}={COMPONENT_SERVER}",
    POD: f"{LABEL_COMPONENT}={COMPONENT_SERVER}",
}


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One thing to reconcile: kind name (of the API, or LEDGER, SWEEP), namespace, name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A namespaced object of a kind that the context names."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, mapping: Mapping[str, str], home: str) -> Reference:
        """From `name` and `namespace` in a manifest; without the latter, in the namespace `home` of the manifest."""
        return cls(mapping.get("namespace", home), mapping["name"])

    @classmethod
    def parse(cls, text: str) -> Reference:
        """`namespace/name`; raises ValueError otherwise."""
        namespace, slash, name = text.partition("/")
        if not (slash and namespace and name) or "/" in name:
            raise ValueError(f"{text!r} is not namespace/name")
        return cls(namespace, name)


@dataclass(frozen=True, slots=True)
class Meta:
    """What every object has, as far as the operator needs it."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created: str
    finalizers: tuple[str, ...]
    deletion_timestamp: str | None

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Meta:
        metadata = body["metadata"]
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            resource_version=metadata["resourceVersion"],
            created=metadata.get("creationTimestamp", ""),
            finalizers=tuple(metadata.get("finalizers", ())),
            deletion_timestamp=metadata.get("deletionTimestamp"),
        )


@dataclass(frozen=True, slots=True)
class Bundle:
    """Where certificates stand: a key of a Secret or a ConfigMap in the namespace of whoever names it."""

    kind: Kind
    name: str
    key: str

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> Bundle:
        kind, source = (SECRET, spec["secret"]) if "secret" in spec else (CONFIG_MAP, spec["configMap"])
        return cls(kind, source["name"], source["key"])


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
            rotation_request=_rotation_request(body),
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
    def at_rest(self) -> bool:
        """Whether nothing of it may be changed: suspended, and not being deleted."""
        return self.suspend and self.meta.deletion_timestamp is None

    @property
    def scaled_to_zero(self) -> bool:
        """Whether no pod is wanted."""
        return self.replicas == 0 and self.workload.autoscaling is None

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


def _rotation_request(body: Mapping[str, Any]) -> str | None:
    """The annotation may be of any length, and is of interest only as another one than before."""
    value = (body["metadata"].get("annotations") or {}).get(ANNOTATION_ROTATE)
    return hashlib.sha256(value.encode()).hexdigest()[:16] if value else None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where an authorization server answers; absolute URLs."""

    issuer: str | None = None
    token: str | None = None
    introspection: str | None = None
    revocation: str | None = None
    registration: str | None = None
    jwks: str | None = None

    def to_status(self) -> dict[str, str]:
        """As published in AuthorizationServer.status.endpoints."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> Endpoints:
        """From spec.endpoints or status.endpoints; other keys are ignored."""
        return cls(**{name: mapping[name] for name in cls.__slots__ if mapping.get(name)})


class RegistrationKind(enum.StrEnum):
    """How clients come into being at a server: the members of spec.registration."""

    DYNAMIC = "dynamicClientRegistration"
    HYDRA = "hydra"
    KEYCLOAK = "keycloak"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast and how wide the operator may talk to one authorization server; defaults as in the CRD."""

    requests_per_second: int = 20
    burst: int = 40
    concurrency: int = 10


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """An AuthorizationServer as the API server keeps it."""

    meta: Meta
    issuer: str | None
    endpoints: Endpoints
    allow_insecure_http: bool
    registration: RegistrationKind
    idempotency_honoured: bool
    open_registration: bool  # no credential is needed
    redirect_uri: str | None  # for servers that demand one
    admin_url: str | None  # of Hydra and Keycloak
    realm: str | None  # of Keycloak
    credentials_secret: str | None
    token_authentication: str  # as in RFC 7591 section 2, token_endpoint_auth_method
    introspection_authentication: str
    allowed: Namespaces
    allowed_scopes: tuple[ScopeGrant, ...] | None  # None: whoever is allowed may ask for all
    rates: Rates
    ca_bundle: Bundle | None  # only these certificates are trusted then
    status: Mapping[str, Any]

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> AuthorizationServer:
        spec = body["spec"]
        registration = spec["registration"]
        kind = next(kind for kind in RegistrationKind if kind in registration)
        own, dynamic = registration[kind], registration.get(RegistrationKind.DYNAMIC) or {}
        grants = spec.get("allowedScopes")
        return cls(
            meta=Meta.parse(body),
            issuer=spec.get("issuer"),
            endpoints=Endpoints.from_mapping(spec.get("endpoints") or {}),
            allow_insecure_http=spec["allowInsecureHTTP"],
            registration=kind,
            idempotency_honoured=dynamic.get("idempotencyKey") == "Honoured",
            open_registration=kind in (RegistrationKind.HYDRA, RegistrationKind.NONE) or dynamic.get("open", False),
            redirect_uri=dynamic.get("redirectURI"),
            admin_url=own.get("adminUrl"),
            realm=own.get("realm"),
            credentials_secret=(registration.get("credentialsSecret") or {}).get("name"),
            token_authentication=spec["token"]["clientAuthentication"],
            introspection_authentication=spec["introspection"]["clientAuthentication"],
            allowed=Namespaces.parse(spec["allowedNamespaces"]),
            allowed_scopes=None if grants is None else tuple(ScopeGrant.parse(grant) for grant in grants),
            rates=Rates(**{word: spec["limits"][name] for word, name in _RATES.items()}),
            ca_bundle=Bundle.parse(spec["tls"]["caBundle"]) if "tls" in spec else None,
            status=body.get("status") or {},
        )

    @property
    def reference(self) -> Reference:
        return Reference(self.meta.namespace, self.meta.name)

    @property
    def key(self) -> Key:
        return Key(AUTHORIZATION_SERVER.kind, self.meta.namespace, self.meta.name)

    @property
    def audience_parameter(self) -> str | None:
        """How its token endpoint is asked for an audience; None: it adds the client's unasked."""
        return _AUDIENCE_PARAMETERS[self.registration]

    @property
    def chooses_client_ids(self) -> bool:
        """Whether the operator chooses the client's id, so that a registration can be repeated without harm."""
        return self.registration is not RegistrationKind.DYNAMIC

    @property
    def names_introspectors(self) -> bool:
        """Whether a client can introspect only those tokens whose audience names it (Keycloak from 26.6.2 on)."""
        return self.registration is RegistrationKind.KEYCLOAK

    def allows(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether services of this namespace may use the server (Gateway API's `from`)."""
        return self.allowed.admit(namespace, labels, self.meta.namespace)

    def refused_scopes(self, scopes: Iterable[str], namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Those of these scopes that services of this namespace may not ask for."""
        return refused_scopes(self.allowed_scopes, scopes, namespace, labels, self.meta.namespace)

    @property
    def published_endpoints(self) -> Endpoints | None:
        """What the last successful probe found, kept in status so that an outage changes no policy."""
        published = self.status.get("endpoints")
        return Endpoints.from_mapping(published) if published else None


_AUDIENCE_PARAMETERS: Final[Mapping[RegistrationKind, str | None]] = {
    RegistrationKind.DYNAMIC: "resource",  # RFC 8707
    RegistrationKind.HYDRA: "audience",  # `resource` is ignored there
    RegistrationKind.KEYCLOAK: None,  # mappers add it
    RegistrationKind.NONE: "resource",  # RFC 8707
}
_RATES: Final = {"requests_per_second": "requestsPerSecond", "burst": "burst", "concurrency": "concurrency"}


# --- conditions (metav1.Condition) -----------------------------------------------------------------------------------

Condition = dict[str, Any]


def timestamp(now: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, whole seconds (metav1.Time)."""
    return dt.datetime.fromtimestamp(int(now), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """metav1.Time as seconds since the epoch."""
    return dt.datetime.fromisoformat(text).timestamp()


_DURATION: Final = re.compile(r"([0-9.]+)(ms|s|m|h)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_seconds(text: str) -> float:
    """A duration of the CRDs (`1m30s`, `500ms`) in seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


def find_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of this type, if there is one."""
    return next((condition for condition in conditions if condition["type"] == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether there is a condition of this type and it says True."""
    condition = find_condition(conditions, type_)
    return condition is not None and condition["status"] == "True"


def merge_conditions(old: Sequence[Condition], new: Sequence[Condition], now: float) -> list[Condition]:
    """`new` with the transition times of `old` where the status did not flip (metav1.Condition's rule)."""
    merged = []
    for condition in new:
        before = find_condition(old, condition["type"])
        unchanged = before is not None and before["status"] == condition["status"]
        time = before["lastTransitionTime"] if before and unchanged else timestamp(now)
        merged.append({**condition, "lastTransitionTime": time})
    return merged
