"""The kinds that the operator works with, the words it marks objects with, and what all its kinds have. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

GROUP: Final = "protectedservice.dev"
VERSION: Final = "v1alpha1"
FINALIZER: Final = f"{GROUP}/client"
SERVER_FINALIZER: Final = f"{GROUP}/clients"  # of an AuthorizationServer: of all the clients that live there
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
NETWORK_POLICY: Final = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
SERVICE: Final = Kind("", "v1", "services", "Service")
SERVICE_ACCOUNT: Final = Kind("", "v1", "serviceaccounts", "ServiceAccount")
CONFIG_MAP: Final = Kind("", "v1", "configmaps", "ConfigMap")
SECRET: Final = Kind("", "v1", "secrets", "Secret")
POD: Final = Kind("", "v1", "pods", "Pod")
NAMESPACE: Final = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
EVENT: Final = Kind("", "v1", "events", "Event")

# Kinds that own a client, by the name under which the ledger remembers them.
OWNERS: Final[Mapping[str, Kind]] = {kind.kind: kind for kind in (PROTECTED_SERVICE, SERVICE_CLIENT)}
# Those and what the operator registers a client of its own for (cross_client_check.py).
LEDGER_OWNERS: Final[Mapping[str, Kind]] = {**OWNERS, AUTHORIZATION_SERVER.kind: AUTHORIZATION_SERVER}
# Key.kind of what is no object of the API: a ledger entry whose object is gone, and the sweep over all entries.
LEDGER: Final = "Ledger"
SWEEP: Final = "Sweep"

# Watched kinds with the label selector of each watch (None: everything). Secrets and pods are many: only ours, and
# what users mark for us. NetworkPolicies are few, and what ours may say depends on the others of its namespace.
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
    NETWORK_POLICY: None,
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

    @property
    def is_going(self) -> bool:
        """Whether the object is being deleted."""
        return self.deletion_timestamp is not None

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


def rotation_request(body: Mapping[str, Any]) -> str | None:
    """What asks for a rotation. The annotation may be of any length, and counts only as another one than before."""
    value = (body["metadata"].get("annotations") or {}).get(ANNOTATION_ROTATE)
    return hashlib.sha256(value.encode()).hexdigest()[:16] if value else None
