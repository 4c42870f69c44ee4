"""The schemas explain themselves, bound every value, and hold no field that the operator does not read."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from protectedservice_operator import authorization_server, protected_service, resource, service_client

from .schema import CRD_FILES, Schema, definition, is_leaf, nodes, schema, with_defaults

KINDS: Final = tuple(CRD_FILES)

PARSED: Final[dict[str, Any]] = {
    "ProtectedService": protected_service.ProtectedService,
    "ServiceClient": service_client.ServiceClient,
    "AuthorizationServer": authorization_server.AuthorizationServer,
}
METADATA: Final = {"name": "orders", "namespace": "tenant", "uid": "uid-1", "resourceVersion": "7", "generation": 1}
SMALLEST: Final[dict[str, dict[str, Any]]] = {
    "ProtectedService": {"scopes": ["read"], "upstream": {"service": {"name": "orders", "port": 8080}}},
    "ServiceClient": {"services": [{"name": "orders"}]},
    "AuthorizationServer": {
        "issuer": "https://login.example",
        "registration": {"dynamicClientRegistration": {}, "credentialsSecret": {"name": "registration"}},
    },
}
# Every leaf of each spec with a value that is neither its default nor that of SMALLEST.
OTHER_VALUES: Final[dict[str, dict[str, Any]]] = {
    "ProtectedService": {
        "spec.authorizationServerRef.name": "other",
        "spec.authorizationServerRef.namespace": "platform",
        "spec.scopes[]": "write",
        "spec.scopeMatch": "Any",
        "spec.audience": "https://orders.example",
        "spec.resource": "https://orders.example",
        "spec.rules[].paths[]": "/docs/*",
        "spec.rules[].methods[]": "GET",
        "spec.rules[].access": "Public",
        "spec.rules[].scopes[]": "write",
        "spec.rules[].scopeMatch": "Any",
        "spec.demo": True,
        "spec.upstream.service.name": "other",
        "spec.upstream.service.port": 1,
        "spec.upstream.url": "https://reports.example",
        "spec.upstream.timeout": "1s",
        "spec.upstream.forwardToken": True,
        "spec.upstream.isolate": True,
        "spec.upstream.identityHeaders.enabled": False,
        "spec.upstream.identityHeaders.names.clientId": "X-Client",
        "spec.upstream.identityHeaders.names.subject": "X-User",
        "spec.upstream.identityHeaders.names.scope": "X-Scopes",
        "spec.upstream.identityHeaders.names.username": "X-Login",
        "spec.upstream.identityHeaders.names.issuer": "X-From",
        "spec.upstream.tls.caBundle.secret.name": "authorities",
        "spec.upstream.tls.caBundle.secret.key": "root.pem",
        "spec.upstream.tls.caBundle.configMap.name": "authorities",
        "spec.upstream.tls.caBundle.configMap.key": "root.pem",
        "spec.upstream.tls.serverName": "orders.example",
        "spec.validation.maxRevocationDelay": "0s",
        "spec.validation.timeout": "1s",
        "spec.validation.retries": 0,
        "spec.validation.serveStale": "10m",
        "spec.validation.revocationWebhook.secretName": "webhook",
        "spec.client.name": "Orders",
        "spec.client.deletionPolicy": "Retain",
        "spec.client.rotation.interval": "24h",
        "spec.client.credentialsSecret.name": "other",
        "spec.client.credentialsSecret.create": False,
        "spec.client.credentialsSecret.keys.clientId": "ID",
        "spec.client.credentialsSecret.keys.clientSecret": "SECRET",
        "spec.client.credentialsSecret.labels{}": {"team": "a"},
        "spec.client.credentialsSecret.annotations{}": {"team": "a"},
        "spec.workload.replicas": 0,
        "spec.workload.resources.requests.cpu": "1",
        "spec.workload.resources.requests.memory": "1Gi",
        "spec.workload.resources.limits.cpu": "2",
        "spec.workload.resources.limits.memory": "2Gi",
        "spec.service.port": 8443,
        "spec.workload.podLabels{}": {"team": "a"},
        "spec.workload.podAnnotations{}": {"team": "a"},
        "spec.workload.imagePullSecrets[].name": "registry",
        "spec.workload.logLevel": "debug",
        "spec.workload.nodeSelector{}": {"pool": "edge"},
        "spec.workload.tolerations[].key": "edge",
        "spec.workload.tolerations[].operator": "Exists",
        "spec.workload.tolerations[].value": "a",
        "spec.workload.tolerations[].effect": "NoExecute",
        "spec.workload.tolerations[].tolerationSeconds": 60,
        "spec.workload.topologySpreadConstraints[].topologyKey": "topology.kubernetes.io/zone",
        "spec.workload.topologySpreadConstraints[].maxSkew": 1,
        "spec.workload.topologySpreadConstraints[].whenUnsatisfiable": "DoNotSchedule",
        "spec.workload.topologySpreadConstraints[].minDomains": 3,
        "spec.workload.priorityClassName": "high",
        "spec.workload.serviceAccountName": "edge",
        "spec.workload.autoscaling.min": 3,
        "spec.workload.autoscaling.max": 9,
        "spec.workload.autoscaling.targetCPUUtilization": 50,
        "spec.workload.tls.secretName": "certificate",
        "spec.workload.podDisruptionBudget.minAvailable": 1,
        "spec.workload.podDisruptionBudget.maxUnavailable": "50%",
        "spec.service.type": "NodePort",
        "spec.service.annotations{}": {"team": "a"},
        "spec.allowedClients.from": "All",
        "spec.allowedClients.selector.matchLabels{}": {"team": "a"},
        "spec.allowedClients.selector.matchExpressions[].key": "team",
        "spec.allowedClients.selector.matchExpressions[].operator": "Exists",
        "spec.allowedClients.selector.matchExpressions[].values[]": "a",
        "spec.suspend": True,
    },
    "ServiceClient": {
        "spec.authorizationServerRef.name": "other",
        "spec.authorizationServerRef.namespace": "platform",
        "spec.services[].name": "other",
        "spec.services[].namespace": "shop",
        "spec.scopes[]": "write",
        "spec.audience": "https://elsewhere.example",
        "spec.client.name": "Shop",
        "spec.deletionPolicy": "Retain",
        "spec.rotation.interval": "720h",
        "spec.rotation.overlap": "1h",
        "spec.credentialsSecret.name": "other",
        "spec.credentialsSecret.keys.clientId": "ID",
        "spec.credentialsSecret.keys.clientSecret": "SECRET",
        "spec.credentialsSecret.keys.tokenUrl": "TOKEN_URL",
        "spec.credentialsSecret.keys.scope": "SCOPE",
        "spec.credentialsSecret.keys.audience": "AUDIENCE",
        "spec.credentialsSecret.keys.audienceParameter": "PARAMETER",
        "spec.credentialsSecret.keys.clientAuthentication": "METHOD",
        "spec.credentialsSecret.labels{}": {"team": "a"},
        "spec.credentialsSecret.annotations{}": {"team": "a"},
        "spec.suspend": True,
    },
    "AuthorizationServer": {
        "spec.issuer": "https://other.example",
        "spec.endpoints.token": "https://other.example/token",
        "spec.endpoints.introspection": "https://other.example/introspect",
        "spec.endpoints.revocation": "https://other.example/revoke",
        "spec.endpoints.registration": "https://other.example/register",
        "spec.allowInsecureHTTP": True,
        "spec.registration.dynamicClientRegistration.idempotencyKey": "Honoured",
        "spec.registration.dynamicClientRegistration.open": True,
        "spec.registration.dynamicClientRegistration.redirectURI": "https://orders.example/unused",
        "spec.registration.hydra.adminUrl": "https://hydra.example",
        "spec.registration.keycloak.adminUrl": "https://keycloak.example",
        "spec.registration.keycloak.realm": "shop",
        "spec.registration.credentialsSecret.name": "other",
        "spec.token.clientAuthentication": "client_secret_post",
        "spec.introspection.clientAuthentication": "none",
        "spec.allowedNamespaces.from": "All",
        "spec.allowedNamespaces.selector.matchLabels{}": {"team": "a"},
        "spec.allowedNamespaces.selector.matchExpressions[].key": "team",
        "spec.allowedNamespaces.selector.matchExpressions[].operator": "Exists",
        "spec.allowedNamespaces.selector.matchExpressions[].values[]": "a",
        "spec.allowedScopes[].scopes[]": "write",
        "spec.allowedScopes[].namespaces.from": "All",
        "spec.allowedScopes[].namespaces.selector.matchLabels{}": {"team": "a"},
        "spec.allowedScopes[].namespaces.selector.matchExpressions[].key": "team",
        "spec.allowedScopes[].namespaces.selector.matchExpressions[].operator": "Exists",
        "spec.allowedScopes[].namespaces.selector.matchExpressions[].values[]": "a",
        "spec.tls.caBundle.secret.name": "authorities",
        "spec.tls.caBundle.secret.key": "root.pem",
        "spec.tls.caBundle.configMap.name": "authorities",
        "spec.tls.caBundle.configMap.key": "root.pem",
        "spec.limits.requestsPerSecond": 1,
        "spec.limits.burst": 1,
        "spec.limits.concurrency": 1,
    },
}


# Affinity is Kubernetes' own structure, and copied whole: any value will do.
_ANY: Final[dict[str, Any]] = {"integer": 7, "string": "In", "object": {"a": "b"}}


def leaves(kind: str, part: str) -> list[tuple[str, Schema]]:
    return [(path, node) for path, node in nodes(schema(kind)) if path.startswith(part) and is_leaf(node)]


def is_bounded(node: Schema) -> bool:
    if "enum" in node or node.get("type") == "boolean" or node.get("format") == "date-time":
        return True
    if node.get("type") == "integer":
        return "minimum" in node and ("maximum" in node or node.get("format") == "int64")
    return "maxLength" in node


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described_in_a_full_sentence(kind: str) -> None:
    undescribed = [
        path
        for path, node in nodes(schema(kind))
        if path and not re.fullmatch(r".{6,}[.]", node.get("description", ""), re.DOTALL)
    ]

    assert undescribed == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_optional_leaf_of_the_spec_says_its_default(kind: str) -> None:
    silent = []
    for path, node in nodes(schema(kind)):
        for name, child in node.get("properties", {}).items():
            optional = path.startswith("spec") and name not in node.get("required", [])
            if optional and is_leaf(child) and "Default: " not in child["description"]:
                silent.append(f"{path}.{name}")
            if optional and isinstance(child.get("default"), str | int) and not isinstance(child["default"], bool):
                assert f"Default: {child['default']}" in child["description"], f"{path}.{name}"

    assert silent == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_leaf_is_bounded(kind: str) -> None:
    unbounded = [path for path, node in nodes(schema(kind)) if path and is_leaf(node) and not is_bounded(node)]

    assert unbounded == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_leaf_of_the_spec_that_is_text_has_a_pattern_or_an_enumeration(kind: str) -> None:
    loose = [
        path
        for path, node in leaves(kind, "spec")
        if node.get("type", "string") == "string" and not ("pattern" in node or "enum" in node)
    ]

    assert loose == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_list_says_how_it_merges_and_how_long_it_may_be(kind: str) -> None:
    for path, node in nodes(schema(kind)):
        if node.get("type") == "array":
            assert node.get("x-kubernetes-list-type") in {"set", "map", "atomic"}, path
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_has_a_message_that_names_the_field(kind: str) -> None:
    for path, node in nodes(schema(kind)):
        for rule in node.get("x-kubernetes-validations", []):
            named = rule.get("fieldPath", "").strip(".") or path.rsplit(".", 1)[-1] or "metadata.name"

            assert named.rsplit(".", 1)[-1] in rule["message"], (path, rule["message"])


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_are_those_of_metav1(kind: str) -> None:
    conditions = schema(kind)["properties"]["status"]["properties"]["conditions"]

    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert conditions["items"]["required"] == ["type", "status", "lastTransitionTime", "reason", "message"]


def test_names_agree_with_the_operator() -> None:
    for kind in (*resource.OWNERS.values(), resource.AUTHORIZATION_SERVER):
        spec = definition(kind.kind)["spec"]

        assert (spec["group"], spec["names"]["plural"], spec["names"]["kind"]) == (kind.group, kind.plural, kind.kind)
        assert [version["name"] for version in spec["versions"]] == [kind.version]
        assert spec["versions"][0]["subresources"] == {"status": {}}


def test_columns_are_those_of_the_design() -> None:
    columns = {
        kind: [
            (column["name"], column.get("priority", 0))
            for column in definition(kind)["spec"]["versions"][0]["additionalPrinterColumns"]
        ]
        for kind in KINDS
    }

    assert columns == {
        "ProtectedService": [("Ready", 0), ("Reason", 0), ("Client", 0), ("Scopes", 0), ("URL", 1), ("Age", 0)],
        "ServiceClient": [("Ready", 0), ("Reason", 0), ("Client", 0), ("Secret", 0), ("Token URL", 1), ("Age", 0)],
        "AuthorizationServer": [("Ready", 0), ("Reason", 0), ("Issuer", 0), ("Clients", 0), ("Age", 0)],
    }


OTHER_VALUES["ProtectedService"] |= {
    path: _ANY["object"] if path.endswith("{}") else _ANY[node["type"]]
    for path, node in leaves("ProtectedService", "spec.workload.affinity")
}


def parsed(kind: str, spec: dict[str, Any]) -> object:
    body = {"metadata": METADATA, **with_defaults(schema(kind), {"spec": spec})}
    return PARSED[kind].parse(body)


def with_value(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `spec` with `value` at a path such as `spec.scopes[]`."""
    head, _, rest = path.removeprefix("spec.").partition(".")
    name = head.rstrip("[]{}")
    if head.endswith("[]"):
        first: dict[str, Any] = next(iter(spec.get(name, ())), {})
        return {**spec, name: [with_value(first, rest, value) if rest else value]}
    return {**spec, name: with_value(spec.get(name, {}), rest, value) if rest else value}


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_other_values_names_every_leaf_of_the_spec(kind: str) -> None:
    assert sorted(OTHER_VALUES[kind]) == sorted(path for path, _ in leaves(kind, "spec"))


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [pytest.param(kind, path, value, id=path) for kind in KINDS for path, value in OTHER_VALUES[kind].items()],
)
def test_the_operator_reads_every_field_of_the_schema(kind: str, path: str, value: Any) -> None:
    spec = SMALLEST[kind]
    if path == "spec.services[].namespace":  # likewise
        value, path = {"name": "orders", "namespace": value}, "spec.services[]"
    if path == "spec.authorizationServerRef.namespace":  # read only beside a name
        spec = with_value(spec, "spec.authorizationServerRef.name", "other")
    if path.startswith(("spec.registration.hydra.", "spec.registration.keycloak.")):  # read only without another kind
        own = {"adminUrl": "https://admin.example", "realm": "master"}
        spec = {**spec, "registration": {path.split(".")[2]: own}}
    if path.startswith("spec.allowedScopes[]."):  # each entry has both its parts
        spec = {**spec, "allowedScopes": [{"scopes": ["read"], "namespaces": {"from": "Same"}}]}

    if path.startswith("spec.workload.autoscaling.") and not path.endswith(".max"):  # read only beside a most
        spec = with_value(spec, "spec.workload.autoscaling.max", 8)
    if ".tls.caBundle." in path and path.endswith(".key"):  # likewise
        spec = with_value(spec, f"{path.removesuffix('key')}name", "authorities")

    changed = parsed(kind, with_value(spec, path, value))

    assert changed != parsed(kind, spec)
