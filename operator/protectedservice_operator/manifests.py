"""Pure builders of the children of a ProtectedService: one function per kind, a fresh dict each time.

The children's names never change (resource.py); their selectors are two labels of ours and never anybody else's: what
users add to labels and annotations stands beside ours, which win. Every
child carries the controller ownerReference, so that the garbage collector removes it with its service, and the
annotation `protectedservice.dev/desired-hash`, so that an unchanged child costs no call.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .registrant import Registrant
from .resource import (
    ANNOTATION_DESIRED_HASH,
    COMPONENT_CREDENTIALS,
    COMPONENT_SERVER,
    GROUP,
    LABEL_COMPONENT,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_WATCH,
    MANAGED_BY,
    Endpoints,
    ProtectedService,
)

Manifest = dict[str, Any]

SERVER_PORT: Final = 8080
MANAGEMENT_PORT: Final = 9090
POLICY_FOLDER: Final = "/etc/protectedservice/policy"
POLICY_FILE: Final = "policy.yaml"
CA_FOLDER: Final = "/etc/protectedservice/ca"
CA_FILE: Final = "ca.crt"
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
    if service.upstream is None:
        content["demo"] = True
    else:
        upstream = service.upstream
        content["upstream"] = {
            "url": f"http://{upstream.name}.{service.meta.namespace}.svc:{upstream.port}",
            "timeout": service.upstream_timeout,
        }
    content["validation"] = {
        "maxRevocationDelay": service.max_revocation_delay,
        "timeout": service.introspection_timeout,
        "retries": service.introspection_retries,
    }
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
        items = [{"key": CA_FILE, "path": CA_FILE}]
        source = {"name": service.ca_name, "defaultMode": 0o444, "items": items}
        pod["volumes"].append({"name": "ca", "configMap": source})
        pod["containers"][0]["volumeMounts"].append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
    return _finished(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(service, service.child_name),
            "spec": {
                "replicas": service.replicas,
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": selector(service)},
                # Never fewer than declared: with one replica, the new pod serves before the old one goes.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {
                    "metadata": {
                        "labels": {**service.pod_labels, **labels(service)},
                        # The server re-reads changed credentials by itself; another client is another pod.
                        "annotations": {**service.pod_annotations, f"{GROUP}/client": digest(client_id)},
                    },
                    "spec": pod,
                },
            },
        }
    )


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
        "serviceAccountName": service.child_name,
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
    if service.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in service.image_pull_secrets]
    return spec


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
