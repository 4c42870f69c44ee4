"""What the schema lets through, the operator can write as a policy and the resource server can read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from protectedservice_operator import manifests
from protectedservice_operator.authorization_server import Endpoints
from protectedservice_operator.protected_service import ProtectedService
from protectedservice_server import policy, policy_file

from .manifests import shipped
from .schema import nodes, schema, with_defaults

SERVER = manifests.Server(
    endpoints=Endpoints(issuer="https://login.example", introspection="https://login.example/introspect"),
    allow_insecure_http=False,
)
METADATA = {"name": "orders", "namespace": "tenant", "uid": "uid-1", "resourceVersion": "7", "generation": 1}
UPSTREAM = {"service": {"name": "orders", "port": 8080}}


def node(path: str) -> dict[str, Any]:
    """The schema at a path such as `spec.rules[].paths[]`."""
    return dict(nodes(schema("ProtectedService")))[path]


def passes(path: str, value: str) -> bool:
    """Whether text passes the schema there: its pattern and those of its CEL rules that are one negated match."""
    place = node(path)
    refused = [re.search(r"matches\('(.*)'\)", rule["rule"]) for rule in place.get("x-kubernetes-validations", [])]
    assert re.search(place["pattern"], value) is None or len(value) <= place["maxLength"]
    patterns = [found[1].replace("\\\\", "\\") for found in refused if found is not None]
    return re.search(place["pattern"], value) is not None and not any(re.search(text, value) for text in patterns)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1.2.3", "0.0.0.0", "169.254.169.254", "224.0.0.1", "239.255.255.255"),  # noqa: S104 (nothing is bound)
        *("localhost", "LOCALHOST", "a.localhost", "a.LocalHost.", "localhost."),
    ],
)
@pytest.mark.parametrize("rest", ["", ":80", "/", ":8080/"])
def test_an_upstream_that_the_resource_server_would_not_start_with_is_refused_when_it_is_applied(
    host: str, rest: str
) -> None:
    assert policy.refused_host(host, allow_loopback=False) is not None
    assert not passes("spec.upstream.url", f"http://{host}{rest}")


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "localhost.example", "a-localhost", "1270.example", "230.example", "b.c.", "128.0.0.1"]
)
def test_an_upstream_elsewhere_is_accepted_by_both(host: str) -> None:
    assert policy.refused_host(host, allow_loopback=False) is None
    assert passes("spec.upstream.url", f"https://{host}:8443")


@pytest.mark.parametrize("port", ["1", "9", "10", "80", "8080", "59999", "60000", "64999", "65499", "65529", "65535"])
def test_every_port_that_there_is_passes(port: str) -> None:
    assert passes("spec.upstream.url", f"http://a:{port}")
    assert passes("spec.resource", f"https://a:{port}/x")


@pytest.mark.parametrize("port", ["0", "00", "080", "65536", "65540", "65600", "66000", "70000", "99999", "100000", ""])
def test_no_other_port_passes(port: str) -> None:
    assert not passes("spec.upstream.url", f"http://a:{port}")
    assert not passes("spec.resource", f"https://a:{port}/x")


@pytest.mark.parametrize(
    "path",
    [
        *("", "a", "*", "//", "//*", "/a//b", "/a/*/b", "/a*", "/a/**", "/*/", "/a?b", "/a#b", "/a%20b", "/a//*"),
        *("/a\\b", "/a;b", "/a\x00", "/a\x7f", "/a\n"),
    ],
)
def test_a_path_that_no_rule_may_have_is_refused_by_both(path: str) -> None:
    assert not policy_file.RULE_PATH.fullmatch(path)
    assert re.search(node("spec.rules[].paths[]")["pattern"] + r"\Z", path) is None


def policy_of(spec: dict[str, Any]) -> policy.Policy:
    body = with_defaults(schema("ProtectedService"), {"metadata": METADATA, "spec": spec})
    text = manifests.config_map(ProtectedService.parse(body), SERVER)["data"][manifests.POLICY_FILE]
    return policy_file.parse(text)


@pytest.mark.parametrize(
    "document", [pytest.param(document, id=file.stem) for file, document in shipped("ProtectedService")]
)
def test_the_policy_of_every_example_can_be_read(document: dict[str, Any]) -> None:
    read = policy_of(document["spec"])

    assert read.requirement.scopes == tuple(document["spec"]["scopes"])
    assert read.demo is document["spec"].get("demo", False)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"scopes": [f"{n:0>128}" for n in range(32)], "demo": True}, id="32 scopes of 128 characters"),
        pytest.param({"scopes": ["!#[]~", "https://a.example/read:all"], "demo": True}, id="scopes of odd characters"),
        pytest.param({"scopes": ["a"], "scopeMatch": "Any", "demo": True}, id="any scope"),
        pytest.param({"scopes": ["a"], "demo": True, "audience": "urn:a:b?=c;d"}, id="an audience that is a URN"),
        pytest.param({"scopes": ["a"], "upstream": {**UPSTREAM, "timeout": "100ms"}}, id="the shortest upstream"),
        pytest.param({"scopes": ["a"], "upstream": {**UPSTREAM, "timeout": "1h"}}, id="the longest upstream"),
        pytest.param(
            {"scopes": ["a"], "upstream": {"url": "https://a.example:65535/", "tls": {}}}, id="an https upstream"
        ),
        pytest.param({"scopes": ["a"], "upstream": {"url": "http://10.0.0.1"}}, id="an upstream by address"),
        pytest.param(
            {"scopes": ["a"], "upstream": {**UPSTREAM, "tls": {"serverName": "a.example"}, "forwardToken": True}},
            id="a Service by https",
        ),
        pytest.param(
            {"scopes": ["a"], "upstream": {**UPSTREAM, "identityHeaders": {"names": {"issuer": "X-" + "i" * 60}}}},
            id="the longest name of a header",
        ),
        pytest.param(
            {"scopes": ["a"], "resource": "https://a.example:65535/a/b!$&'()+,=:@-._~/", "demo": True}, id="res"
        ),
        pytest.param(
            {
                "scopes": ["a"],
                "demo": True,
                "rules": [
                    {"paths": [f"/{n}/*" for n in range(16)], "scopes": [f"{n:0>128}" for n in range(32)]},
                    {"paths": ["/", "/*", "/a/", "/" + "a" * 255, "/ä b"], "access": "Deny", "methods": ["M-SEARCH"]},
                    *([{"paths": ["/x"], "access": "Public"}] * 62),
                ],
            },
            id="64 rules",
        ),
        pytest.param({"scopes": ["a"], "demo": True, "validation": {"maxRevocationDelay": "0s"}}, id="no delay"),
        pytest.param({"scopes": ["a"], "demo": True, "validation": {"maxRevocationDelay": "3600s"}}, id="an hour"),
        pytest.param({"scopes": ["a"], "demo": True, "validation": {"serveStale": "1h"}}, id="an hour of an outage"),
        pytest.param(
            {"scopes": ["a"], "demo": True, "validation": {"revocationWebhook": {"secretName": "a"}}}, id="a webhook"
        ),
        pytest.param(
            {"scopes": ["a"], "demo": True, "validation": {"timeout": "100ms", "retries": 0}}, id="the least patience"
        ),
        pytest.param(
            {"scopes": ["a"], "demo": True, "validation": {"timeout": "30s", "retries": 5}}, id="the most patience"
        ),
    ],
)
def test_the_policy_at_the_bounds_of_the_schema_can_be_read(spec: dict[str, Any]) -> None:
    read = policy_of(spec)

    assert read.requirement.scopes == tuple(spec["scopes"])


@pytest.mark.parametrize("method", policy.ClientAuthentication)
def test_the_resource_server_reads_every_client_authentication_that_an_authorization_server_may_ask_for(
    method: policy.ClientAuthentication,
) -> None:
    allowed = schema("AuthorizationServer")["properties"]["spec"]["properties"]["introspection"]["properties"]
    body = with_defaults(schema("ProtectedService"), {"metadata": METADATA, "spec": {"scopes": ["a"], "demo": True}})
    server = replace(SERVER, introspection_authentication=str(method))
    text = manifests.config_map(ProtectedService.parse(body), server)["data"][manifests.POLICY_FILE]

    assert policy_file.parse(text).authorization_server.client_authentication is method
    assert set(allowed["clientAuthentication"]["enum"]) == set(policy.ClientAuthentication)


def test_the_defaults_of_the_schema_are_those_of_the_standalone_server() -> None:
    authorization_servers = [{"endpoints": {"introspection": "https://login.example/introspect"}}]
    by_hand = {
        "scopes": ["a"],
        "upstream": {"url": "http://orders:8080"},
        "authorizationServers": authorization_servers,
    }

    read = policy_of({"scopes": ["a"], "upstream": UPSTREAM})
    standalone = policy_file.parse(json.dumps(by_hand))

    assert read.validation == standalone.validation
    assert read.requirement == standalone.requirement
    assert read.upstream is not None
    assert standalone.upstream is not None
    assert read.upstream.timeout == standalone.upstream.timeout


def test_the_resource_server_reads_the_certificates_where_the_pod_mounts_them() -> None:
    body = with_defaults(schema("ProtectedService"), {"metadata": METADATA, "spec": {"scopes": ["a"], "demo": True}})
    service, server = ProtectedService.parse(body), replace(SERVER, own_authorities=True)
    read = policy_file.parse(manifests.config_map(service, server)["data"][manifests.POLICY_FILE])
    pod = manifests.deployment(service, "image", "policy", "id", own_authorities=True)["spec"]["template"]["spec"]

    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "ca"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "ca"]
    (item,) = volume["configMap"]["items"]
    assert read.authorization_server.ca_file == f"{mount['mountPath']}/{item['path']}"
    assert item["key"] in manifests.ca_config_map(service, "certificates")["data"]
