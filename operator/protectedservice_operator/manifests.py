"""Pure builders of the children of a ProtectedService: one function per kind, a fresh dict each time.

The children's names never change (protected_service.py); their selectors are two labels of ours and never anybody
else's: what users add to labels and annotations stands beside ours, which win. Every child carries the controller
ownerReference, so that the garbage collector removes it with its service, and the annotation
`protectedservice.dev/desired-hash`, so that an unchanged child costs no call.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .authorization_server import Endpoints
from .isolation import PROTOCOLS, Isolated, ranges
from .protected_service import ProtectedService, Upstream
from .registrant import Registrant
from .resource import (
    ANNOTATION_AUTOSCALED,
    ANNOTATION_DESIRED_HASH,
    COMPONENT_CREDENTIALS,
    COMPONENT_SERVER,
    CONFIG_MAP,
    GROUP,
    HORIZONTAL_POD_AUTOSCALER,
    LABEL_COMPONENT,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_WATCH,
    MANAGED_BY,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    Kind,
)
from .workload import Autoscaling

Manifest = dict[str, Any]

SERVER_PORT: Final = 8080
MANAGEMENT_PORT: Final = 9090
POLICY_FOLDER: Final = "/etc/protectedservice/policy"
POLICY_FILE: Final = "policy.yaml"
CA_FOLDER: Final = "/etc/protectedservice/ca"
CA_FILE: Final = "ca.crt"
UPSTREAM_CA_FOLDER: Final = "/etc/protectedservice/upstream-ca"
TLS_FOLDER: Final = "/etc/protectedservice/tls"
TLS_FILES: Final = ("tls.crt", "tls.key")  # and keys of a Secret of type kubernetes.io/tls
WEBHOOK_FOLDER: Final = "/etc/protectedservice/revocation-webhook"
WEBHOOK_SECRET: Final = "secret"  # noqa: S105 (a file's name, and a key's)
CREDENTIALS_FOLDER: Final = "/etc/protectedservice/credentials"
CONTAINER: Final = "resource-server"
UNPRIVILEGED_USER: Final = 65532  # the images' user; a number, so that runAsNonRoot can be checked
LAST_CALLS: Final = 5  # seconds between the decision to end a pod and its SIGTERM
DRAIN_SECONDS: Final = 45  # last calls and the server's own drain (25 s) end by then; see protectedservice_server.main


@dataclass(frozen=True, slots=True)
class Server:
    """What the children need to know of the authorization server."""

    endpoints: Endpoints
    allow_insecure_http: bool
    introspection_authentication: str = "client_secret_basic"
    own_authorities: bool = False  # its certificates come from those in the ConfigMap <name>-protected-ca


def digest(content: object) -> str:
    """16 hexadecimal digits of SHA-256 over the canonical JSON of `content`."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def controller_reference(service: Registrant) -> Manifest:
    """The ownerReference that every child carries."""
    return {
        "apiVersion": service.kind.api_version,
        "kind": service.kind.kind,
        "name": service.meta.name,
        "uid": service.meta.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def selector(service: ProtectedService) -> dict[str, str]:
    """The two labels that select the service's pods, for ever."""
    return {LABEL_NAME: service.meta.name, LABEL_COMPONENT: COMPONENT_SERVER}


def pod_labels(service: ProtectedService) -> dict[str, str]:
    """Labels of the service's pods."""
    return {**service.pod_labels, **labels(service)}


def labels(service: Registrant, component: str = COMPONENT_SERVER) -> dict[str, str]:
    """Labels of every child."""
    return {
        LABEL_NAME: service.meta.name,
        LABEL_COMPONENT: component,
        LABEL_MANAGED_BY: MANAGED_BY,
        "app.kubernetes.io/name": component,
        "app.kubernetes.io/instance": service.meta.name,
        "app.kubernetes.io/part-of": MANAGED_BY,
    }


def policy(service: ProtectedService, server: Server) -> Manifest:
    """The resource server's policy file, in the words of the CR (design: data plane contract, Standalone)."""
    content: Manifest = {"scopes": list(service.scopes), "scopeMatch": service.scope_match}
    if service.audience is not None:
        content["audience"] = service.audience
    if service.resource is not None:
        content["resource"] = service.resource
    if service.rules:
        content["rules"] = [dict(rule) for rule in service.rules]
    if service.upstream is None:
        content["demo"] = True
    else:
        content["upstream"] = _upstream(service.upstream, service.meta.namespace)
    content["validation"] = {
        "maxRevocationDelay": service.max_revocation_delay,
        "timeout": service.introspection_timeout,
        "retries": service.introspection_retries,
    }
    if service.serves_stale:
        content["validation"]["serveStale"] = service.serve_stale
    if service.webhook_secret is not None:
        content["validation"]["revocationWebhook"] = {"secretFile": f"{WEBHOOK_FOLDER}/{WEBHOOK_SECRET}"}
    authorization_server: Manifest = {
        "endpoints": {"introspection": server.endpoints.introspection},
        "introspection": {"clientAuthentication": server.introspection_authentication},
        "allowInsecureHTTP": server.allow_insecure_http,
    }
    if server.endpoints.issuer is not None:
        authorization_server["issuer"] = server.endpoints.issuer
    if server.own_authorities:
        authorization_server["tls"] = {"caFile": f"{CA_FOLDER}/{CA_FILE}"}
    content["authorizationServers"] = [authorization_server]
    return content


def _upstream(upstream: Upstream, namespace: str) -> Manifest:
    """What is as it would be anyhow is left out: pods whose policy means the same need not roll."""
    content: Manifest = {"url": upstream.url_from(namespace), "timeout": upstream.timeout}
    if upstream.forward_token:
        content["forwardToken"] = True
    if upstream.identity_headers is not None:
        content["identityHeaders"] = dict(upstream.identity_headers)
    if upstream.tls is not None:
        content["tls"] = {}
        if upstream.tls.ca_bundle is not None:
            content["tls"]["caFile"] = f"{UPSTREAM_CA_FOLDER}/{CA_FILE}"
        if upstream.tls.server_name is not None:
            content["tls"]["serverName"] = upstream.tls.server_name
    return content


def config_map(service: ProtectedService, server: Server) -> Manifest:
    """The policy, immutable and named by its content: a pod can never run with another policy than its template's."""
    text = json.dumps(policy(service, server), indent=2, sort_keys=True) + "\n"  # JSON is YAML
    return _finished(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(service, f"{service.child_name}-{digest(text)}"),
            "immutable": True,
            "data": {POLICY_FILE: text},
        }
    )


def ca_config_map(service: ProtectedService, bundle: str) -> Manifest:
    """The certificates to trust. Mutable and of one name: pods read them anew when they change, and need not roll."""
    return _finished(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(service, service.ca_name),
            "data": {CA_FILE: bundle},
        }
    )


def service_account(service: ProtectedService) -> Manifest:
    """An identity without rights; its token is mounted nowhere."""
    return _finished(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": _metadata(service, service.child_name),
            "automountServiceAccountToken": False,
        }
    )


def credentials_secret(service: Registrant, values: Mapping[str, str], keys: Mapping[str, str]) -> Manifest:
    """The tenant's projection of the ledger: id and secret, nothing that manages the client.

    `values`: these by name, and of a caller what else it needs. `keys`: those of `credentials_keys` and, while pods
    still read them, older ones; each has its value.
    """
    # The desired-hash is that of the metadata only: a digest of a secret in an annotation would be one more place that
    # knows about it. The cache compares digests of the values themselves.
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": credentials_metadata(service),
        "type": "Opaque",
        "data": {key: base64.b64encode(values[name].encode()).decode() for key, name in keys.items()},
    }


def credentials_metadata(service: Registrant) -> Manifest:
    """Metadata of the tenant's Secret; known without knowing any credential."""
    metadata = _metadata(service, service.credentials_secret, COMPONENT_CREDENTIALS)
    metadata["labels"] = {**service.credentials_labels, **metadata["labels"], LABEL_WATCH: "true"}
    metadata["annotations"] = dict(service.credentials_annotations)
    finished: Manifest = _finished({"metadata": metadata})["metadata"]
    return finished


def service(service: ProtectedService) -> Manifest:
    """Where callers go. The management port is never in it."""
    metadata = _metadata(service, service.child_name)
    metadata["annotations"] = dict(service.service_annotations)
    return _finished(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "type": service.service_type,
                "selector": selector(service),
                "ports": [{"name": "http", "port": service.service_port, "targetPort": "http", "protocol": "TCP"}],
            },
        }
    )


def deployment(
    service: ProtectedService, image: str, config_map_name: str, client_id: str, *, own_authorities: bool = False
) -> Manifest:
    """The resource server. A changed policy or client changes the template and so rolls the pods."""
    pod = _pod_spec(service, image, config_map_name)
    if own_authorities:
        _mount(pod, "ca", CA_FOLDER, CONFIG_MAP, service.ca_name, {CA_FILE: CA_FILE})
    tls = service.upstream.tls if service.upstream is not None else None
    if tls is not None and tls.ca_bundle is not None:
        bundle = tls.ca_bundle
        _mount(pod, "upstream-ca", UPSTREAM_CA_FOLDER, bundle.kind, bundle.name, {bundle.key: CA_FILE})
    if service.webhook_secret is not None:
        files = {WEBHOOK_SECRET: WEBHOOK_SECRET}
        _mount(pod, "revocation-webhook", WEBHOOK_FOLDER, SECRET, service.webhook_secret, files)
    if service.workload.tls_secret is not None:
        _mount(pod, "tls", TLS_FOLDER, SECRET, service.workload.tls_secret, {file: file for file in TLS_FILES})
        pod["containers"][0]["env"].append({"name": "PROTECTEDSERVICE_TLS", "value": TLS_FOLDER})
    metadata = _metadata(service, service.child_name)
    replicas: Manifest = {"replicas": service.replicas}
    if service.workload.autoscaling is not None:
        metadata["annotations"], replicas = {ANNOTATION_AUTOSCALED: "true"}, {}
    return _finished(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                **replicas,
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": selector(service)},
                # Never fewer than declared: with one replica, the new pod serves before the old one goes.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {
                    "metadata": {
                        "labels": pod_labels(service),
                        # The server re-reads changed credentials by itself; another client is another pod.
                        "annotations": {**service.pod_annotations, f"{GROUP}/client": digest(client_id)},
                    },
                    "spec": pod,
                },
            },
        }
    )


def horizontal_pod_autoscaler(service: ProtectedService, autoscaling: Autoscaling) -> Manifest:
    """Who says how many pods there are."""
    target = {"type": "Utilization", "averageUtilization": autoscaling.cpu_utilization}
    return _finished(
        {
            "apiVersion": HORIZONTAL_POD_AUTOSCALER.api_version,
            "kind": HORIZONTAL_POD_AUTOSCALER.kind,
            "metadata": _metadata(service, service.child_name),
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.child_name},
                "minReplicas": autoscaling.least,
                "maxReplicas": autoscaling.most,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            },
        }
    )


def pod_disruption_budget(service: ProtectedService, budget: Mapping[str, Any]) -> Manifest:
    """How many pods evictions must leave. A pod that is not ready serves nobody: it may always go."""
    return _finished(
        {
            "apiVersion": POD_DISRUPTION_BUDGET.api_version,
            "kind": POD_DISRUPTION_BUDGET.kind,
            "metadata": _metadata(service, service.child_name),
            "spec": {
                **budget,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": selector(service)},
            },
        }
    )


def network_policy(service: ProtectedService, upstream: Isolated) -> Manifest:
    """The upstream's target ports are for the resource server's pods alone; what reaches its other ports still does."""
    rules: list[Manifest] = [
        {
            "from": [{"podSelector": {"matchLabels": selector(service)}}],
            "ports": [{"protocol": protocol, "port": port} for protocol, port in upstream.ports],
        }
    ]
    if not upstream.governed:
        rules.append({"ports": [port for protocol in PROTOCOLS for port in _open_ports(protocol, upstream)]})
    return _finished(
        {
            "apiVersion": NETWORK_POLICY.api_version,
            "kind": NETWORK_POLICY.kind,
            "metadata": _metadata(service, service.child_name),
            "spec": {
                "podSelector": {"matchLabels": dict(upstream.selector)},
                "policyTypes": ["Ingress"],
                "ingress": rules,
            },
        }
    )


def _open_ports(protocol: str, upstream: Isolated) -> list[Manifest]:
    closed = [port for of, port in upstream.ports if of == protocol]
    if not closed:
        return [{"protocol": protocol}]
    return [
        {"protocol": protocol, "port": first, **({"endPort": last} if last > first else {})}
        for first, last in ranges(closed)
    ]


def template_hash(deployment_manifest: Mapping[str, Any]) -> str:
    """Which proof a pod needs: equal iff policy, client, image and the rest of the pod's template are equal."""
    return digest(deployment_manifest["spec"]["template"])


def _pod_spec(service: ProtectedService, image: str, config_map_name: str) -> Manifest:
    secret = {
        "secretName": service.credentials_secret,
        "defaultMode": 0o440,
        "items": [{"key": key, "path": file} for key, file in service.credentials_keys.items()],
    }
    spec: Manifest = {
        "serviceAccountName": service.workload.service_account or service.child_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UNPRIVILEGED_USER,
            "runAsGroup": UNPRIVILEGED_USER,
            "fsGroup": UNPRIVILEGED_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(service, image)],
        "volumes": [
            {"name": "policy", "configMap": {"name": config_map_name, "defaultMode": 0o444}},
            {"name": "credentials", "secret": secret},
        ],
    }
    spec |= service.workload.scheduling(selector(service))
    if service.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in service.image_pull_secrets]
    return spec


def _mount(pod: Manifest, volume: str, folder: str, kind: Kind, name: str, files: Mapping[str, str]) -> None:
    """Add keys of a Secret or ConfigMap of the pod's namespace as files; kubelet follows its changes."""
    items = [{"key": key, "path": file} for key, file in files.items()]
    if kind is SECRET:
        source: Manifest = {"secret": {"secretName": name, "defaultMode": 0o440, "items": items}}
    else:
        source = {"configMap": {"name": name, "defaultMode": 0o444, "items": items}}
    pod["volumes"].append({"name": volume, **source})
    pod["containers"][0]["volumeMounts"].append({"name": volume, "mountPath": folder, "readOnly": True})


def _container(service: ProtectedService, image: str) -> Manifest:
    probe = {"scheme": "HTTP", "port": "management"}
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "PROTECTEDSERVICE_POLICY", "value": f"{POLICY_FOLDER}/{POLICY_FILE}"},
            {"name": "PROTECTEDSERVICE_CREDENTIALS", "value": CREDENTIALS_FOLDER},
            {"name": "PROTECTEDSERVICE_PORT", "value": str(SERVER_PORT)},
            {"name": "PROTECTEDSERVICE_MANAGEMENT_PORT", "value": str(MANAGEMENT_PORT)},
            {"name": "PROTECTEDSERVICE_LOG_LEVEL", "value": service.log_level},
        ],
        "ports": [
            {"name": "http", "containerPort": SERVER_PORT, "protocol": "TCP"},
            {"name": "management", "containerPort": MANAGEMENT_PORT, "protocol": "TCP"},
        ],
        "resources": json.loads(json.dumps(service.resources)),
        "readinessProbe": {"httpGet": {"path": "/readyz", **probe}, "periodSeconds": 2, "timeoutSeconds": 2},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", **probe},
            "periodSeconds": 10,
            "timeoutSeconds": 3,
            "initialDelaySeconds": 5,
        },
        # Requests still come in until every kube-proxy has heard that the pod goes; then the server drains by itself.
        "lifecycle": {"preStop": {"sleep": {"seconds": LAST_CALLS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "policy", "mountPath": POLICY_FOLDER, "readOnly": True},
            {"name": "credentials", "mountPath": CREDENTIALS_FOLDER, "readOnly": True},
        ],
    }


def _metadata(service: Registrant, name: str, component: str = COMPONENT_SERVER) -> Manifest:
    return {
        "name": name,
        "namespace": service.meta.namespace,
        "labels": labels(service, component),
        "ownerReferences": [controller_reference(service)],
    }


def _finished(manifest: Manifest) -> Manifest:
    annotations = manifest["metadata"].get("annotations", {})
    manifest["metadata"]["annotations"] = {**annotations, ANNOTATION_DESIRED_HASH: digest(manifest)}
    return manifest
