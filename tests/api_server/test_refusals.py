"""Bad manifests are refused when they are applied, by a message that names the field."""

from __future__ import annotations

import copy
from typing import Any, Final

import pytest

from ..support.kubectl import Kubectl, KubectlError, Object

pytestmark = pytest.mark.cluster

SERVICE: Final[Object] = {
    "apiVersion": "protectedservice.dev/v1alpha1",
    "kind": "ProtectedService",
    "metadata": {"name": "orders"},
    "spec": {"scopes": ["read"], "upstream": {"service": {"name": "orders", "port": 8080}}},
}
CALLER: Final[Object] = {
    "apiVersion": "protectedservice.dev/v1alpha1",
    "kind": "ServiceClient",
    "metadata": {"name": "shop"},
    "spec": {"services": [{"name": "orders"}]},
}
SERVER: Final[Object] = {
    "apiVersion": "protectedservice.dev/v1alpha1",
    "kind": "AuthorizationServer",
    "metadata": {"name": "company"},
    "spec": {
        "issuer": "https://login.example",
        "registration": {"dynamicClientRegistration": {}, "credentialsSecret": {"name": "registration"}},
    },
}
ABSENT: Final = object()


def changed(manifest: Object, changes: dict[str, Any]) -> Object:
    """A copy with values at dotted paths replaced, added, or taken away (ABSENT)."""
    copied = copy.deepcopy(manifest)
    for path, value in changes.items():
        *parents, last = path.split(".")
        at = copied
        for name in parents:
            at = at.setdefault(name, {})
        if value is ABSENT:
            del at[last]
        else:
            at[last] = value
    return copied


def message_of_refusal(kubectl: Kubectl, namespace: str, manifest: Object) -> str:
    with pytest.raises(KubectlError) as refusal:
        kubectl.create(manifest, namespace=namespace, dry_run=True)
    return refusal.value.stderr


@pytest.mark.parametrize(
    "manifest", [SERVICE, CALLER, SERVER], ids=["ProtectedService", "ServiceClient", "AuthorizationServer"]
)
def test_the_manifest_that_the_bad_ones_are_made_from_is_accepted(
    kubectl: Kubectl, namespace: str, manifest: Object
) -> None:
    accepted = kubectl.create(manifest, namespace=namespace, dry_run=True)

    assert accepted["kind"] == manifest["kind"]


CALLER_FAULTS = [
    pytest.param({"metadata.name": "Shop"}, "metadata.name", id="the name has a capital"),
    pytest.param({"metadata.name": "a" * 53}, "metadata.name", id="a name of 53 characters"),
    pytest.param({"spec.services": ABSENT}, "spec.services or spec.scopes", id="neither services nor scopes"),
    pytest.param({"spec.services": []}, "spec.services", id="an empty list of services"),
    pytest.param({"spec.services": [{"namespace": "a"}]}, "spec.services[0].name", id="a service without a name"),
    pytest.param({"spec.services": [{"name": "a/b"}]}, "spec.services[0].name", id="a service with a slash"),
    pytest.param({"spec.services": [{"name": f"s{n}"} for n in range(17)]}, "spec.services", id="17 services"),
    pytest.param(
        {"spec.services": [{"name": "a", "namespace": "B"}]}, "spec.services[0].namespace", id="a capital namespace"
    ),
    pytest.param({"spec.scopes": []}, "spec.scopes", id="an empty list of scopes"),
    pytest.param({"spec.scopes": ["read", "read"]}, "spec.scopes[1]", id="a scope twice"),
    pytest.param({"spec.scopes": ["re ad"]}, "spec.scopes[0]", id="a space in a scope"),
    pytest.param({"spec.audience": "orders"}, "spec.audience", id="an audience that is no URI"),
    pytest.param({"spec.deletionPolicy": "Keep"}, "spec.deletionPolicy", id="a policy that is none"),
    pytest.param({"spec.deletionPolicy": "Retain"}, "spec.deletionPolicy", id="a retained client of a service"),
    pytest.param(
        {"spec.services": ABSENT, "spec.scopes": ["a"], "spec.audience": "urn:a:b", "spec.deletionPolicy": "Retain"},
        "spec.deletionPolicy",
        id="a retained client with an audience",
    ),
    pytest.param({"spec.client.name": "a\nb"}, "spec.client.name", id="a line break in the display name"),
    pytest.param(
        {"spec.credentialsSecret.name": "My_Secret"}, "spec.credentialsSecret.name", id="a Secret's name that cannot be"
    ),
    pytest.param(
        {"spec.credentialsSecret.keys.tokenUrl": "a/b"}, "spec.credentialsSecret.keys.tokenUrl", id="a key with a slash"
    ),
    pytest.param(
        {"spec.credentialsSecret.keys": {"scope": "x", "audience": "x"}},
        "spec.credentialsSecret.keys",
        id="a key twice",
    ),
    pytest.param(
        {"spec.credentialsSecret.keys.tokenUrl": "client_secret"},
        "spec.credentialsSecret.keys",
        id="a key that is the default of another",
    ),
    pytest.param(
        {"spec.credentialsSecret.labels": {"protectedservice.dev/name": "other"}},
        "spec.credentialsSecret.labels",
        id="a label of the operator's own",
    ),
    pytest.param({"spec.workload": {"replicas": 1}}, "spec.workload", id="a workload, of which it has none"),
    pytest.param({"spec.rotation.interval": "59m"}, "spec.rotation.interval", id="a rotation within the hour"),
    pytest.param({"spec.rotation.interval": "87601h"}, "spec.rotation.interval", id="a rotation after ten years"),
    pytest.param({"spec.rotation.interval": "30d"}, "spec.rotation.interval", id="a rotation in days"),
    pytest.param({"spec.rotation.overlap": "-1h"}, "spec.rotation.overlap", id="an overlap of less than nothing"),
    pytest.param({"spec.rotation.overlap": "721h"}, "spec.rotation.overlap", id="an overlap of more than 30 days"),
    pytest.param({"spec.rotation.overlap": "2592001s"}, "spec.rotation.overlap", id="an overlap a second too long"),
    pytest.param({"spec.rotation.overlap": "1d"}, "spec.rotation.overlap", id="an overlap in days"),
    pytest.param({"spec.rotation.overlap": "1h30m"}, "spec.rotation.overlap", id="an overlap with two units"),
    pytest.param({"spec.rotation.overlap": 3600}, "spec.rotation.overlap", id="an overlap without a unit"),
    pytest.param(
        {"spec.rotation": {"interval": "2h", "overlap": "120m"}},
        "spec.rotation.overlap",
        id="an overlap that ends when the next rotation is due",
    ),
    pytest.param(
        {"spec.rotation": {"interval": "24h"}},
        "spec.rotation.overlap (24h unless it is given)",
        id="an interval no longer than the overlap that nobody gave",
    ),
]


@pytest.mark.parametrize(("changes", "named"), CALLER_FAULTS)
def test_a_bad_service_client_is_refused_by_the_fields_name(
    kubectl: Kubectl, namespace: str, changes: dict[str, Any], named: str
) -> None:
    message = message_of_refusal(kubectl, namespace, changed(CALLER, changes))

    assert named in message


SERVICE_FAULTS = [
    pytest.param({"spec.allowedClients.from": "Selector"}, "spec.allowedClients.selector", id="callers by no selector"),
    pytest.param(
        {"spec.allowedClients.selector": {"matchLabels": {"a": "b"}}},
        "spec.allowedClients.selector",
        id="a selector of callers that nobody would look at",
    ),
    pytest.param(
        {"spec.allowedClients": {"from": "Selector", "selector": {}}},
        "spec.allowedClients.selector",
        id="an empty selector of callers, which would match everything",
    ),
    pytest.param({"spec.allowedClients.from": "None"}, "spec.allowedClients.from", id="callers from nowhere"),
    pytest.param({"metadata.name": "Orders"}, "metadata.name", id="the name has a capital"),
    pytest.param({"metadata.name": "9orders"}, "metadata.name", id="the name starts with a digit"),
    pytest.param({"metadata.name": "or.ders"}, "metadata.name", id="the name has a dot"),
    pytest.param({"metadata.name": "a" * 53}, "metadata.name", id="the name leaves no room for a suffix"),
    pytest.param({"spec": ABSENT}, "spec", id="there is no spec"),
    pytest.param({"spec.scopes": ABSENT}, "spec.scopes", id="no scopes"),
    pytest.param({"spec.scopes": []}, "spec.scopes", id="an empty list of scopes"),
    pytest.param({"spec.scopes": [f"s{n}" for n in range(33)]}, "spec.scopes", id="33 scopes"),
    pytest.param({"spec.scopes": ["read", "read"]}, "spec.scopes[1]", id="a scope twice"),
    pytest.param({"spec.scopes": ["re ad"]}, "spec.scopes[0]", id="a space in a scope"),
    pytest.param({"spec.scopes": ["read", 'q"']}, "spec.scopes[1]", id="a quote in a scope"),
    pytest.param({"spec.scopes": ["ré"]}, "spec.scopes[0]", id="a scope outside ASCII"),
    pytest.param({"spec.scopes": [""]}, "spec.scopes[0]", id="an empty scope"),
    pytest.param({"spec.scopes": ["s" * 129]}, "spec.scopes[0]", id="a scope of 129 characters"),
    pytest.param({"spec.scopes": "read"}, "spec.scopes", id="scopes as one text"),
    pytest.param(
        {"spec.client.credentialsSecret": {"create": False, "labels": {"team": "a"}}},
        "credentialsSecret.create",
        id="labels of a Secret that somebody else writes",
    ),
    pytest.param(
        {"spec.client": {"credentialsSecret": {"create": False}, "rotation": {"interval": "24h"}}},
        "spec.client.rotation",
        id="a rotation of credentials that somebody else brings",
    ),
    pytest.param(
        {"spec.client.credentialsSecret": {"create": "false"}},
        "spec.client.credentialsSecret.create",
        id="create as a text",
    ),
    pytest.param({"spec.scopeMatch": "all"}, "spec.scopeMatch", id="scopeMatch in small letters"),
    pytest.param({"spec.audience": "orders"}, "spec.audience", id="an audience that is no URI"),
    pytest.param({"spec.audience": "https://orders.example/#a"}, "spec.audience", id="an audience with a fragment"),
    pytest.param({"spec.audience": "https://orders example"}, "spec.audience", id="a space in the audience"),
    pytest.param({"spec.demo": True}, "exactly one of upstream and demo", id="both demo and upstream"),
    pytest.param({"spec.upstream": ABSENT}, "exactly one of upstream and demo", id="neither demo nor upstream"),
    pytest.param(
        {"spec.upstream": ABSENT, "spec.demo": False}, "exactly one of upstream and demo", id="demo false, no upstream"
    ),
    pytest.param({"spec.upstream": {}}, "spec.upstream.service", id="an upstream without a service"),
    pytest.param({"spec.upstream.url": "http://a.example"}, "spec.upstream.service", id="a service and a url"),
    *(
        pytest.param(
            {"spec.upstream.service": ABSENT, "spec.upstream.url": url}, "spec.upstream.url", id=f"upstream {url}"
        )
        for url in (
            *("ftp://a", "a:80", "http://", "http://a b", "http://a/path", "http://a?q", "http://u:p@a", "http://a:0"),
            *("http://a:65536", "http://[::1]:80", "http://[fe80::1]", "HTTP://a"),
            *("http://127.0.0.1:80", "http://127.1/", "https://0.0.0.0", "http://0", "http://169.254.169.254"),
            *("http://localhost", "http://LOCALHOST:80", "http://a.localhost./", "https://224.0.0.1"),
        )
    ),
    pytest.param(
        {"spec.upstream.service": ABSENT, "spec.upstream.url": "http://a", "spec.upstream.tls": {}},
        "spec.upstream.tls",
        id="certificates for plain http",
    ),
    pytest.param({"spec.upstream.tls": {"caBundle": {}}}, "spec.upstream.tls.caBundle", id="a bundle of nothing"),
    pytest.param(
        {"spec.upstream.tls": {"caBundle": {"secret": {"name": "a"}, "configMap": {"name": "a"}}}},
        "spec.upstream.tls.caBundle",
        id="a bundle of two objects",
    ),
    pytest.param(
        {"spec.upstream.tls": {"serverName": "a b"}}, "spec.upstream.tls.serverName", id="no name of a server"
    ),
    pytest.param({"spec.upstream.forwardToken": "yes"}, "spec.upstream.forwardToken", id="a token forwarded by word"),
    *(
        pytest.param(
            {"spec.upstream.identityHeaders": {"names": {"subject": name}}},
            "spec.upstream.identityHeaders.names",
            id=f"identity in {name}",
        )
        for name in (
            *("Subject", "x-subject", "X-", "X-A_B", "X-" + "a" * 61, "X-Forwarded-User", "X-FORWARDED-For"),
            *("X-Real-IP", "X-Http-Method", "X-Original-URL", "X-Auth-Client-Id", "x-auth-scope", "X-AUTH-SCOPE"),
        )
    ),
    pytest.param(
        {"spec.upstream.identityHeaders": {"names": {"username": "X-A", "issuer": "X-a"}}},
        "spec.upstream.identityHeaders.names",
        id="two claims in one header",
    ),
    *(
        pytest.param({"spec.resource": resource}, "spec.resource", id=f"resource {resource}")
        for resource in (
            *("orders", "http://a.example", "https://a.example?q", "https://a.example/#f", "https://a.example/a%20b"),
            *("https://u:p@a.example", "https://a.example//b", "https://a.example/../b", "https://a.example:65536"),
        )
    ),
    pytest.param({"spec.rules": []}, "spec.rules", id="an empty list of rules"),
    pytest.param({"spec.rules": [{"paths": ["/"], "access": "Deny"}] * 65}, "spec.rules", id="65 rules"),
    pytest.param({"spec.rules": [{"access": "Deny"}]}, "spec.rules[0].paths", id="a rule for no path"),
    pytest.param({"spec.rules": [{"paths": ["/a"]}]}, "spec.rules[0].access", id="a rule that asks for nothing"),
    pytest.param(
        {"spec.rules": [{"paths": ["/a"], "access": "Public", "scopes": ["b"]}]},
        "spec.rules[0].access",
        id="a rule that is open and asks for scopes",
    ),
    pytest.param(
        {"spec.rules": [{"paths": ["/a"], "access": "Public", "scopeMatch": "Any"}]},
        "spec.rules[0].scopeMatch",
        id="scopeMatch without scopes",
    ),
    pytest.param({"spec.rules": [{"paths": ["/a"], "access": "public"}]}, "spec.rules[0].access", id="public in small"),
    pytest.param(
        {"spec.rules": [{"paths": ["/a", "/a"], "access": "Deny"}]}, "spec.rules[0].paths[1]", id="a path twice"
    ),
    pytest.param(
        {"spec.rules": [{"paths": ["/a"], "access": "Deny", "methods": ["get"]}]},
        "spec.rules[0].methods[0]",
        id="a method in small letters",
    ),
    pytest.param(
        {"spec.rules": [{"paths": ["/a"], "scopes": ["b c"]}]},
        "spec.rules[0].scopes[0]",
        id="a space in a rule's scope",
    ),
    *(
        pytest.param({"spec.rules": [{"paths": [path], "access": "Deny"}]}, "spec.rules[0].paths", id=f"path {path!r}")
        for path in (
            *(
                "a",
                "*",
                "//",
                "//*",
                "/a//b",
                "/a/*/b",
                "/a*",
                "/*/",
                "/a?b",
                "/a#b",
                "/a%20b",
                "/a\\b",
                "/a;b",
                "/a\n",
            ),
            *("/..", "/a/../b", "/./*", "/" + "a" * 256),
        )
    ),
    pytest.param(
        {"spec.upstream.service.name": "orders-protected"}, "spec.upstream.service.name", id="its own Service upstream"
    ),
    pytest.param({"spec.upstream.service.name": "a.b"}, "spec.upstream.service.name", id="a host as upstream"),
    pytest.param({"spec.upstream.service.port": 0}, "spec.upstream.service.port", id="upstream port 0"),
    pytest.param({"spec.upstream.service.port": 65536}, "spec.upstream.service.port", id="upstream port 65536"),
    pytest.param({"spec.upstream.service.port": "http"}, "spec.upstream.service.port", id="upstream port by name"),
    pytest.param({"spec.upstream.timeout": "0s"}, "spec.upstream.timeout", id="no time for the upstream"),
    pytest.param({"spec.upstream.timeout": "61m"}, "spec.upstream.timeout", id="an upstream timeout over an hour"),
    pytest.param({"spec.upstream.timeout": 30}, "spec.upstream.timeout", id="a timeout without a unit"),
    pytest.param(
        {"spec.validation.maxRevocationDelay": "2h"}, "spec.validation.maxRevocationDelay", id="two hours of delay"
    ),
    pytest.param(
        {"spec.validation.maxRevocationDelay": "1d"}, "spec.validation.maxRevocationDelay", id="a delay in days"
    ),
    pytest.param(
        {"spec.validation.maxRevocationDelay": "-5s"}, "spec.validation.maxRevocationDelay", id="a negative delay"
    ),
    pytest.param({"spec.validation.serveStale": "61m"}, "spec.validation.serveStale", id="stale for over an hour"),
    pytest.param({"spec.validation.serveStale": "1d"}, "spec.validation.serveStale", id="stale for a day"),
    pytest.param(
        {"spec.validation.revocationWebhook": {}},
        "spec.validation.revocationWebhook.secretName",
        id="a webhook without a secret",
    ),
    pytest.param(
        {"spec.validation.revocationWebhook.secretName": "My_Secret"},
        "spec.validation.revocationWebhook.secretName",
        id="a webhook's Secret that cannot be",
    ),
    pytest.param({"spec.validation.timeout": "31s"}, "spec.validation.timeout", id="introspection over 30 s"),
    pytest.param({"spec.validation.timeout": "10ms"}, "spec.validation.timeout", id="introspection within 10 ms"),
    pytest.param({"spec.validation.retries": 6}, "spec.validation.retries", id="six retries"),
    pytest.param({"spec.validation.retries": -1}, "spec.validation.retries", id="a negative number of retries"),
    pytest.param({"spec.client.name": "n" * 51}, "spec.client.name", id="a display name of 51 characters"),
    pytest.param({"spec.client.deletionPolicy": "Keep"}, "spec.client.deletionPolicy", id="a policy that is none"),
    pytest.param(
        {"spec.client.rotation.interval": "59m"}, "spec.client.rotation.interval", id="a rotation within the hour"
    ),
    pytest.param(
        {"spec.client.rotation.interval": "87601h"}, "spec.client.rotation.interval", id="a rotation after ten years"
    ),
    pytest.param({"spec.client.rotation.interval": "30d"}, "spec.client.rotation.interval", id="a rotation in days"),
    pytest.param({"spec.client.rotation": {}}, "spec.client.rotation.interval", id="a rotation without an interval"),
    pytest.param({"spec.client.name": "a\nb"}, "spec.client.name", id="a line break in the display name"),
    pytest.param(
        {"spec.client.credentialsSecret.name": "My_Secret"},
        "spec.client.credentialsSecret.name",
        id="a Secret's name that cannot be",
    ),
    pytest.param(
        {"spec.client.credentialsSecret.keys.clientId": "a/b"},
        "spec.client.credentialsSecret.keys.clientId",
        id="a key with a slash",
    ),
    pytest.param(
        {"spec.client.credentialsSecret.keys": {"clientId": "a", "clientSecret": "a"}},
        "spec.client.credentialsSecret.keys",
        id="one key for both",
    ),
    pytest.param(
        {"spec.client.credentialsSecret.keys": {"clientId": "client_secret", "clientSecret": "x"}},
        "spec.client.credentialsSecret.keys",
        id="the default key of the other",
    ),
    pytest.param(
        {"spec.authorizationServerRef.namespace": "platform"},
        "spec.authorizationServerRef.name",
        id="a reference without a name",
    ),
    pytest.param(
        {"spec.workload.podDisruptionBudget": {}}, "spec.workload.podDisruptionBudget", id="a budget of nothing"
    ),
    pytest.param(
        {"spec.workload.podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}},
        "spec.workload.podDisruptionBudget",
        id="a budget said twice",
    ),
    pytest.param(
        {"spec.workload.podDisruptionBudget": {"minAvailable": "101%"}},
        "spec.workload.podDisruptionBudget.minAvailable",
        id="a budget over everything",
    ),
    pytest.param(
        {"spec.workload.nodeSelector": {"a b": "c"}}, "spec.workload.nodeSelector", id="a node's label with a space"
    ),
    pytest.param(
        {"spec.workload.tolerations": [{"operator": "Equal"}]},
        "spec.workload.tolerations[0].operator",
        id="no taint's key",
    ),
    pytest.param(
        {"spec.workload.tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        "spec.workload.tolerations[0].value",
        id="a taint's value for Exists",
    ),
    pytest.param(
        {"spec.workload.tolerations": [{"key": "a", "tolerationSeconds": 5}]},
        "spec.workload.tolerations[0].tolerationSeconds",
        id="seconds without NoExecute",
    ),
    pytest.param(
        {"spec.workload.affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}},
        "nodeSelectorTerms",
        id="affinity without terms",
    ),
    pytest.param(
        {"spec.workload.topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1}]},
        "spec.workload.topologySpreadConstraints[0].whenUnsatisfiable",
        id="a constraint without a consequence",
    ),
    pytest.param(
        {
            "spec.workload.topologySpreadConstraints": [
                {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}
            ]
        },
        "spec.workload.topologySpreadConstraints[0].minDomains",
        id="domains for what is only wished for",
    ),
    pytest.param({"spec.workload.autoscaling": {"min": 2}}, "spec.workload.autoscaling.max", id="no most of pods"),
    pytest.param(
        {"spec.workload.autoscaling": {"max": 1}}, "spec.workload.autoscaling.max", id="a most below the least"
    ),
    pytest.param({"spec.workload.autoscaling": {"max": 51}}, "spec.workload.autoscaling.max", id="51 pods at most"),
    pytest.param(
        {"spec.workload.autoscaling": {"min": 0, "max": 2}}, "spec.workload.autoscaling.min", id="no pod at least"
    ),
    pytest.param({"spec.workload.tls": {}}, "spec.workload.tls.secretName", id="TLS without a certificate"),
    pytest.param(
        {"spec.workload.priorityClassName": "High"}, "spec.workload.priorityClassName", id="a class in capitals"
    ),
    pytest.param(
        {"spec.workload.serviceAccountName": "a b"}, "spec.workload.serviceAccountName", id="no account's name"
    ),
    pytest.param({"spec.workload.replicas": 51}, "spec.workload.replicas", id="51 replicas"),
    pytest.param({"spec.workload.replicas": -1}, "spec.workload.replicas", id="a negative number of replicas"),
    pytest.param(
        {"spec.workload.resources.requests.memory": "512Mi"},
        "spec.workload.resources.limits.memory",
        id="more memory requested than the limit",
    ),
    pytest.param(
        {"spec.workload.resources.limits.cpu": "5m"},
        "spec.workload.resources.limits.cpu",
        id="a CPU limit below the request",
    ),
    pytest.param(
        {"spec.workload.resources.requests.cpu": "much"},
        "spec.workload.resources.requests.cpu",
        id="CPU that is no quantity",
    ),
    pytest.param(
        {"spec.workload.resources.requests.cpu": -1}, "spec.workload.resources.requests.cpu", id="negative CPU"
    ),
    *(
        pytest.param({path: {key: "a"}}, path, id=f"{path} with the key {key}")
        for path in (
            "spec.workload.podLabels",
            "spec.workload.podAnnotations",
            "spec.service.annotations",
            "spec.client.credentialsSecret.labels",
            "spec.client.credentialsSecret.annotations",
        )
        for key in ("protectedservice.dev/name", "app.kubernetes.io/name", "no key", "/a", "a/b/c")
    ),
    pytest.param({"spec.workload.podLabels": {"team": "a b"}}, "spec.workload.podLabels", id="a label with a space"),
    pytest.param(
        {"spec.workload.podLabels": {f"k{n}": "" for n in range(17)}}, "spec.workload.podLabels", id="17 labels"
    ),
    pytest.param({"spec.workload.imagePullSecrets": ["a"]}, "imagePullSecrets", id="a pull secret by mere name"),
    pytest.param(
        {"spec.workload.imagePullSecrets": [{"name": "a"}, {"name": "a"}]}, "imagePullSecrets", id="a pull secret twice"
    ),
    pytest.param({"spec.workload.logLevel": "trace"}, "spec.workload.logLevel", id="a log level that is none"),
    pytest.param({"spec.service.port": 65536}, "spec.service.port", id="port 65536"),
    pytest.param({"spec.service.type": "ExternalName"}, "spec.service.type", id="a Service without pods"),
    pytest.param({"spec.suspend": "yes"}, "spec.suspend", id="suspended by a word"),
    pytest.param({"spec.mode": "ForwardAuth"}, "spec.mode", id="a field that does not work yet"),
]


@pytest.mark.parametrize(("changes", "named"), SERVICE_FAULTS)
def test_a_bad_protected_service_is_refused_by_the_fields_name(
    kubectl: Kubectl, namespace: str, changes: dict[str, Any], named: str
) -> None:
    message = message_of_refusal(kubectl, namespace, changed(SERVICE, changes))

    assert named in message


SERVER_FAULTS = [
    pytest.param(
        {"spec.registration": {"none": {}, "hydra": {"adminUrl": "https://hydra.example"}}},
        "exactly one of dynamicClientRegistration, hydra, keycloak, none",
        id="nobody registers, and Hydra does",
    ),
    pytest.param(
        {"spec.registration": {"none": {}, "credentialsSecret": {"name": "registration"}}},
        "spec.registration.credentialsSecret",
        id="a credential to register nobody with",
    ),
    pytest.param({"metadata.name": "login.company"}, "metadata.name", id="the name has a dot"),
    pytest.param({"spec.issuer": ABSENT}, "spec.issuer", id="nothing to discover from"),
    pytest.param(
        {
            "spec.issuer": ABSENT,
            "spec.endpoints": {"token": "https://a.example/t", "introspection": "https://a.example/i"},
        },
        "spec.issuer",
        id="no issuer and no registration endpoint",
    ),
    pytest.param({"spec.issuer": "http://login.example"}, "spec.issuer", id="a plain http issuer"),
    pytest.param({"spec.issuer": "login.example"}, "spec.issuer", id="an issuer without a scheme"),
    pytest.param({"spec.issuer": "https://"}, "spec.issuer", id="an issuer without a host"),
    pytest.param({"spec.issuer": "https://login.example:0"}, "spec.issuer", id="an issuer at port 0"),
    pytest.param({"spec.issuer": "https://login.example?a=b"}, "spec.issuer", id="an issuer with a query"),
    pytest.param({"spec.issuer": "https://login.example/#a"}, "spec.issuer", id="an issuer with a fragment"),
    pytest.param({"spec.issuer": "https://me:pw@login.example"}, "spec.issuer", id="an issuer with a password"),
    pytest.param({"spec.endpoints.token": "http://a.example/t"}, "spec.endpoints.token", id="a plain http token URL"),
    pytest.param(
        {"spec.endpoints.introspection": "http://a.example/i"},
        "spec.endpoints.introspection",
        id="a plain http introspection URL",
    ),
    pytest.param(
        {"spec.endpoints.revocation": "http://a.example/r"},
        "spec.endpoints.revocation",
        id="a plain http revocation URL",
    ),
    pytest.param(
        {"spec.endpoints.registration": "http://a.example/r"},
        "spec.endpoints.registration",
        id="a plain http registration URL",
    ),
    pytest.param({"spec.endpoints.token": "/oauth/token"}, "spec.endpoints.token", id="a relative endpoint"),
    pytest.param({"spec.endpoints.userinfo": "https://a.example/u"}, "spec.endpoints.userinfo", id="unknown endpoint"),
    pytest.param({"spec.registration": ABSENT}, "spec.registration", id="no way to register"),
    pytest.param(
        {"spec.registration.dynamicClientRegistration": ABSENT},
        "spec.registration needs exactly one of",
        id="no kind of registration",
    ),
    pytest.param(
        {"spec.registration.hydra": {"adminUrl": "https://hydra.example"}},
        "spec.registration needs exactly one of",
        id="two kinds of registration",
    ),
    pytest.param(
        {"spec.registration": {"hydra": {"adminUrl": "http://hydra.example"}}},
        "spec.registration.hydra.adminUrl",
        id="an admin API over plain http",
    ),
    pytest.param(
        {"spec.registration": {"keycloak": {"adminUrl": "https://keycloak.example"}}},
        "spec.registration.keycloak.realm",
        id="Keycloak without a realm",
    ),
    pytest.param(
        {"spec.registration": {"keycloak": {"adminUrl": "https://keycloak.example", "realm": "shop"}}},
        "spec.registration.credentialsSecret",
        id="Keycloak without a credential",
    ),
    pytest.param(
        {"spec.registration.dynamicClientRegistration.redirectURI": "nowhere"},
        "spec.registration.dynamicClientRegistration.redirectURI",
        id="a redirect URI that is none",
    ),
    pytest.param(
        {"spec.token": {"clientAuthentication": "none"}},
        "spec.token.clientAuthentication",
        id="a token endpoint that asks nobody",
    ),
    pytest.param(
        {"spec.introspection": {"clientAuthentication": "private_key_jwt"}},
        "spec.introspection.clientAuthentication",
        id="an authentication that nobody has built",
    ),
    pytest.param(
        {"spec.registration.dynamicClientRegistration.idempotencyKey": "Yes"},
        "spec.registration.dynamicClientRegistration.idempotencyKey",
        id="an idempotency that is neither honoured nor ignored",
    ),
    pytest.param(
        {"spec.registration.credentialsSecret": ABSENT},
        "spec.registration.credentialsSecret",
        id="no credential to register with",
    ),
    pytest.param({"spec.allowedNamespaces.from": "None"}, "spec.allowedNamespaces.from", id="allowed from nowhere"),
    pytest.param(
        {"spec.allowedNamespaces.from": "Selector"},
        "spec.allowedNamespaces.selector",
        id="from Selector without a selector",
    ),
    pytest.param(
        {"spec.allowedNamespaces.selector": {"matchLabels": {"a": "b"}}},
        "spec.allowedNamespaces.selector",
        id="a selector that nobody would look at",
    ),
    pytest.param(
        {"spec.allowedNamespaces": {"from": "Selector", "selector": {}}},
        "spec.allowedNamespaces.selector",
        id="an empty selector, which would match everything",
    ),
    pytest.param(
        {
            "spec.allowedNamespaces": {
                "from": "Selector",
                "selector": {"matchExpressions": [{"key": "team", "operator": "In"}]},
            }
        },
        "spec.allowedNamespaces.selector.matchExpressions[0].values",
        id="operator In without values",
    ),
    pytest.param(
        {
            "spec.allowedNamespaces": {
                "from": "Selector",
                "selector": {"matchExpressions": [{"key": "team", "operator": "Exists", "values": ["a"]}]},
            }
        },
        "spec.allowedNamespaces.selector.matchExpressions[0].values",
        id="operator Exists with values",
    ),
    pytest.param(
        {"spec.allowedScopes": [{"scopes": ["read"]}]}, "spec.allowedScopes[0].namespaces", id="scopes granted to whom?"
    ),
    pytest.param(
        {"spec.allowedScopes": [{"scopes": [], "namespaces": {"from": "All"}}]},
        "spec.allowedScopes[0].scopes",
        id="a grant of no scope",
    ),
    pytest.param(
        {"spec.allowedScopes": [{"scopes": ["re ad"], "namespaces": {"from": "All"}}]},
        "spec.allowedScopes[0].scopes[0]",
        id="a space in a granted scope",
    ),
    pytest.param(
        {"spec.allowedScopes": [{"scopes": ["read"], "namespaces": {}}]},
        "spec.allowedScopes[0].namespaces.from",
        id="scopes granted from nowhere",
    ),
    pytest.param(
        {"spec.allowedScopes": [{"scopes": ["read"], "namespaces": {"from": "Selector"}}]},
        "spec.allowedScopes[0].namespaces.selector",
        id="scopes granted from Selector without a selector",
    ),
    pytest.param(
        {"spec.allowedScopes": [{"scopes": ["read"], "namespaces": {"from": "Selector", "selector": {}}}]},
        "spec.allowedScopes[0].namespaces.selector",
        id="scopes granted by an empty selector",
    ),
    pytest.param({"spec.tls": {}}, "spec.tls.caBundle", id="TLS of nothing"),
    pytest.param({"spec.tls.caBundle": {}}, "exactly one of secret and configMap", id="certificates from nowhere"),
    pytest.param(
        {"spec.tls.caBundle": {"secret": {"name": "a"}, "configMap": {"name": "b"}}},
        "exactly one of secret and configMap",
        id="certificates from two places",
    ),
    pytest.param({"spec.tls.insecureSkipVerify": True}, "spec.tls", id="verification skipped"),
    pytest.param(
        {"spec.tls.caBundle.secret": {"name": "a", "key": "../ca"}}, "spec.tls.caBundle.secret.key", id="a path as key"
    ),
    pytest.param(
        {"spec.limits.requestsPerSecond": 0}, "spec.limits.requestsPerSecond", id="a server that is never asked"
    ),
    pytest.param({"spec.limits.burst": 0}, "spec.limits.burst", id="no burst at all"),
    pytest.param({"spec.limits.concurrency": 101}, "spec.limits.concurrency", id="101 requests at a time"),
]


@pytest.mark.parametrize(("changes", "named"), SERVER_FAULTS)
def test_a_bad_authorization_server_is_refused_by_the_fields_name(
    kubectl: Kubectl, namespace: str, changes: dict[str, Any], named: str
) -> None:
    message = message_of_refusal(kubectl, namespace, changed(SERVER, changes))

    assert named in message


@pytest.mark.parametrize(
    ("manifest", "changes"),
    [
        pytest.param(SERVICE, {"metadata.name": "a" * 52}, id="the longest name"),
        pytest.param(SERVICE, {"spec.scopes": [f"{n:0>128}" for n in range(32)]}, id="32 scopes of 128 characters"),
        pytest.param(SERVICE, {"spec.scopes": ["https://a.example/read:all", "!~"]}, id="scopes like URLs"),
        pytest.param(SERVICE, {"spec.audience": "urn:example:orders"}, id="an audience that is a URN"),
        pytest.param(SERVICE, {"spec.client.rotation.interval": "60m"}, id="a rotation every 60 minutes"),
        pytest.param(CALLER, {"spec.rotation": {"interval": "25h"}}, id="a caller's rotation just over the overlap"),
        pytest.param(CALLER, {"spec.rotation": {"interval": "60m", "overlap": "0s"}}, id="a caller without an overlap"),
        pytest.param(CALLER, {"spec.rotation": {"overlap": "2592000s"}}, id="30 days of overlap in seconds"),
        pytest.param(SERVICE, {"spec.validation.maxRevocationDelay": "0s"}, id="no revocation delay"),
        pytest.param(SERVICE, {"spec.validation.maxRevocationDelay": "3600s"}, id="an hour of delay in seconds"),
        pytest.param(SERVICE, {"spec.upstream.timeout": "1h"}, id="an hour for the upstream"),
        pytest.param(
            SERVICE,
            {"spec.validation.serveStale": "1h", "spec.validation.revocationWebhook.secretName": "a.b"},
            id="an hour of an outage, and a webhook",
        ),
        *(
            pytest.param(SERVICE, {"spec.upstream.service": ABSENT, "spec.upstream.url": url}, id=f"upstream {url}")
            for url in ("http://10.0.0.1:65535", "https://a.example./", "http://localhost.example", "http://a_b")
        ),
        pytest.param(
            SERVICE,
            {
                "spec.upstream.tls": {"caBundle": {"secret": {"name": "a"}}, "serverName": "A.example"},
                "spec.upstream.forwardToken": True,
                "spec.upstream.identityHeaders": {
                    "enabled": False,
                    "names": {"username": "X-User", "issuer": "X-" + "i" * 60, "scope": "X-Forward"},
                },
            },
            id="everything about an upstream",
        ),
        pytest.param(SERVICE, {"spec.resource": "https://a.example:8443/a/b/"}, id="a resource with a path"),
        pytest.param(
            SERVICE,
            {
                "spec.rules": [
                    {"paths": [f"/{'p' * 250}{n}/*" for n in range(16)], "scopes": [f"{n:0>128}" for n in range(32)]}
                ]
                * 64
            },
            id="64 rules as long as may be",
        ),
        pytest.param(
            SERVICE,
            {
                "spec.rules": [
                    {"paths": ["/", "/*", "/a/", "/ä b/*"], "methods": ["GET", "M-SEARCH"], "access": "Public"}
                ]
            },
            id="paths of every shape",
        ),
        pytest.param(SERVICE, {"spec.client.name": "Bestellungen für Köln"}, id="a display name in German"),
        pytest.param(SERVICE, {"spec.workload.replicas": 0}, id="scaled to zero"),
        pytest.param(
            SERVICE,
            {
                "spec.workload.nodeSelector": {"example.com/pool": ""},
                "spec.workload.tolerations": [
                    {"operator": "Exists"},
                    {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 0},
                ],
                "spec.workload.affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}
                            ]
                        }
                    },
                    "podAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {
                                "topologyKey": "zone",
                                "namespaces": ["a"],
                                "namespaceSelector": {"matchLabels": {"a": "b"}},
                            }
                        ]
                    },
                },
                "spec.workload.topologySpreadConstraints": [
                    {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2},
                    {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"},
                ],
                "spec.workload.podDisruptionBudget": {"maxUnavailable": "100%"},
                "spec.workload.autoscaling": {"min": 50, "max": 50, "targetCPUUtilization": 10000},
            },
            id="pods that stand where they are told",
        ),
        pytest.param(
            SERVICE,
            {"spec.workload.podLabels": {"team": "", "example.com/a.b_c-d": "A.b", "xprotectedservice.dev/a": "b"}},
            id="labels of every shape",
        ),
        pytest.param(
            SERVICE,
            {"spec.service.annotations": {f"example.com/{n}": "ü\n" * 2048 for n in range(16)}},
            id="16 annotations of 4096 characters",
        ),
        pytest.param(
            SERVICE,
            {"spec.workload.resources": {"requests": {"cpu": 1, "memory": "1.5Gi"}, "limits": {"memory": "2G"}}},
            id="quantities as numbers and with decimals",
        ),
        pytest.param(SERVER, {"spec.issuer": "https://[2001:db8::1]:8443"}, id="an issuer at an IPv6 address"),
        pytest.param(
            SERVER,
            {"spec.issuer": "http://a.svc:8080/realms/x", "spec.allowInsecureHTTP": True},
            id="plain http when it is allowed",
        ),
        pytest.param(
            SERVER,
            {
                "spec.issuer": ABSENT,
                "spec.endpoints": {
                    "token": "https://a.example/t",
                    "introspection": "https://a.example/i?tenant=x",
                    "registration": "https://a.example/r",
                },
            },
            id="endpoints instead of an issuer",
        ),
        pytest.param(
            SERVER,
            {
                "spec.issuer": ABSENT,
                "spec.endpoints": {"token": "https://a.example/t", "introspection": "https://a.example/i"},
                "spec.registration": {"hydra": {"adminUrl": "https://admin.example/base"}},
                "spec.introspection": {"clientAuthentication": "none"},
            },
            id="Hydra without a credential and without an issuer",
        ),
        pytest.param(
            SERVER,
            {
                "spec.registration": {
                    "dynamicClientRegistration": {"open": True, "redirectURI": "https://unused.example/callback"}
                },
                "spec.token": {"clientAuthentication": "client_secret_post"},
            },
            id="a server that registers whoever asks",
        ),
    ],
)
def test_what_lies_just_inside_the_bounds_is_accepted(
    kubectl: Kubectl, namespace: str, manifest: Object, changes: dict[str, Any]
) -> None:
    accepted = kubectl.create(changed(manifest, changes), namespace=namespace, dry_run=True)

    assert accepted["metadata"]["name"]
