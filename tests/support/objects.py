"""Builders of the objects that tests are about: `protected_service("orders", scopes=["read"])`.

Defaults come from the CRDs that are shipped, as the API server would fill them in.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import yaml

CRDS = Path(__file__).parents[2] / "crds"
OPERATOR_NAMESPACE = "protectedservice-system"


@functools.cache
def crd_schema(plural: str) -> dict[str, Any]:
    """The OpenAPI schema of a kind as it is shipped."""
    crd = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def defaulted(value: Any, schema: dict[str, Any]) -> Any:
    """`value` with the schema's defaults, as structural defaulting does it."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name, inner in properties.items():
            if name not in value and "default" in inner:
                value[name] = copy.deepcopy(inner["default"])
        for name, item in value.items():
            if name in properties:
                value[name] = defaulted(item, properties[name])
    elif isinstance(value, list) and "items" in schema:
        return [defaulted(item, schema["items"]) for item in value]
    return value


def protected_service(name: str = "orders", namespace: str = "tenant", **spec: Any) -> dict[str, Any]:
    """A ProtectedService in front of Service `<name>`, port 8080, scope `read`, one replica."""
    content: dict[str, Any] = {"scopes": ["read"], "workload": {"replicas": 1}, **spec}
    if "demo" not in content and "upstream" not in content:
        content["upstream"] = {"service": {"name": name, "port": 8080}}
    body = {
        "apiVersion": "protectedservice.dev/v1alpha1",
        "kind": "ProtectedService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": content,
    }
    defaulted(body, crd_schema("protectedservices"))
    return body


def service_client(name: str = "shop", namespace: str = "tenant", **spec: Any) -> dict[str, Any]:
    """A ServiceClient of ProtectedService `orders` in its namespace, unless `services` or `scopes` says otherwise."""
    content: dict[str, Any] = {} if "scopes" in spec else {"services": [{"name": "orders"}]}
    body = {
        "apiVersion": "protectedservice.dev/v1alpha1",
        "kind": "ServiceClient",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**content, **spec},
    }
    defaulted(body, crd_schema("serviceclients"))
    return body


def authorization_server(name: str = "default", **spec: Any) -> dict[str, Any]:
    """The platform team's AuthorizationServer; all namespaces may use it; Idempotency-Key is honoured."""
    content: dict[str, Any] = {
        "issuer": "https://authorization-server.test",
        "registration": {
            "dynamicClientRegistration": {"idempotencyKey": "Honoured"},
            "credentialsSecret": {"name": "authorization-server-registration"},
        },
        "allowedNamespaces": {"from": "All"},
        **spec,
    }
    content = {name: value for name, value in content.items() if value is not None}
    body = {
        "apiVersion": "protectedservice.dev/v1alpha1",
        "kind": "AuthorizationServer",
        "metadata": {"name": name, "namespace": OPERATOR_NAMESPACE},
        "spec": content,
    }
    defaulted(body, crd_schema("authorizationservers"))
    return body
