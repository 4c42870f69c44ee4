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


@pytest.mark.parametrize("manifest", [SERVICE, SERVER], ids=["ProtectedService", "AuthorizationServer"])
def test_the_manifest_that_the_bad_ones_are_made_from_is_accepted(
    kubectl: Kubectl, namespace: str, manifest: Object
) -> None:
    accepted = kubectl.create(manifest, namespace=namespace, dry_run=True)

    assert accepted["kind"] == manifest["kind"]


SERVICE_FAULTS = [
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
    pytest.param({"spec.validation.timeout": "31s"}, "spec.validation.timeout", id="introspection over 30 s"),
    pytest.param({"spec.validation.timeout": "10ms"}, "spec.validation.timeout", id="introspection within 10 ms"),
    pytest.param({"spec.validation.retries": 6}, "spec.validation.retries", id="six retries"),
    pytest.param({"spec.validation.retries": -1}, "spec.validation.retries", id="a negative number of retries"),
    pytest.param({"spec.client.name": "n" * 51}, "spec.client.name", id="a display name of 51 characters"),
    pytest.param({"spec.client.deletionPolicy": "Keep"}, "spec.client.deletionPolicy", id="a policy that is none"),
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
        pytest.param(SERVICE, {"spec.validation.maxRevocationDelay": "0s"}, id="no revocation delay"),
        pytest.param(SERVICE, {"spec.validation.maxRevocationDelay": "3600s"}, id="an hour of delay in seconds"),
        pytest.param(SERVICE, {"spec.upstream.timeout": "1h"}, id="an hour for the upstream"),
        pytest.param(SERVICE, {"spec.client.name": "Bestellungen für Köln"}, id="a display name in German"),
        pytest.param(SERVICE, {"spec.workload.replicas": 0}, id="scaled to zero"),
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
