"""The policy file: what it means, and every way to get it wrong."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from protectedservice_server.faults import PolicyError
from protectedservice_server.policy import (
    CHECK_PATH,
    Access,
    Claim,
    Requirement,
    Rule,
    Rules,
    ScopeMatch,
    Upstream,
    Validation,
)
from protectedservice_server.policy_file import parse

SMALLEST: dict[str, Any] = {
    "scopes": ["read"],
    "demo": True,
    "authorizationServers": [{"endpoints": {"introspection": "https://as.example/introspect"}}],
}
FULL = """
scopes: [read, "urn:write"]
scopeMatch: Any
audience: https://orders.example
rules:
- {paths: [/docs/*, /], methods: [GET], access: Public}
- {paths: [/orders/*], scopes: [write, admin], scopeMatch: Any}
upstream:
  url: https://orders.tenant.svc:8080
  timeout: 1m30s
  forwardToken: true
  identityHeaders: {enabled: false, names: {username: X-User, subject: X-Sub}}
  tls: {caFile: /etc/ca/up.crt, serverName: orders.example}
validation:
  maxRevocationDelay: 0s
  timeout: 500ms
  retries: 0
  serveStale: 10m
  revocationWebhook: {secretFile: /etc/secret}
authorizationServers:
- issuer: http://as.svc
  allowInsecureHTTP: true
  endpoints: {introspection: "http://as.svc/introspect", token: "http://as.svc/token", jwks: "http://as.svc/jwks"}
  introspection: {clientAuthentication: client_secret_basic}
"""


def test_the_smallest_policy_has_the_documented_defaults() -> None:
    policy = parse(yaml.safe_dump(SMALLEST))

    assert policy.requirement == Requirement(("read",), ScopeMatch.ALL, None)
    assert policy.validation == Validation(5.0, 2.0, 1)
    assert (policy.demo, policy.upstream) == (True, None)
    assert policy.authorization_server.issuer is None


def test_every_field_is_read() -> None:
    policy = parse(FULL)

    assert policy.requirement == Requirement(("read", "urn:write"), ScopeMatch.ANY, "https://orders.example")
    assert policy.rules.rules == (
        Rule(("/docs/*", "/"), Access.PUBLIC, frozenset({"GET"})),
        Rule(("/orders/*",), Requirement(("write", "admin"), ScopeMatch.ANY, "https://orders.example")),
    )
    assert policy.scopes() == ("read", "urn:write", "write", "admin")
    assert policy.upstream == Upstream(
        "https://orders.tenant.svc:8080",
        timeout=90.0,
        forward_token=True,
        tell_identity=False,
        identity_headers={
            Claim.CLIENT_ID: "X-Auth-Client-Id",
            Claim.SUBJECT: "X-Sub",
            Claim.SCOPE: "X-Auth-Scope",
            Claim.USERNAME: "X-User",
        },
        ca_file="/etc/ca/up.crt",
        server_name="orders.example",
    )
    assert policy.validation == Validation(0.0, 0.5, 0, 600.0, "/etc/secret")
    assert policy.authorization_server.issuer == "http://as.svc"
    assert policy.authorization_server.introspection_endpoint == "http://as.svc/introspect"


def test_json_is_read_as_the_operator_writes_it() -> None:
    assert parse(json.dumps(SMALLEST, indent=2)) == parse(yaml.safe_dump(SMALLEST))


_AS = "authorizationServers[0]"


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (["scopes"], None, "scopes: must be a list, not nothing"),
        (["scopes"], "read", "scopes: must be a list, not a string"),
        (["scopes"], [], "scopes: must have 1..32 items, has 0"),
        (["scopes"], [f"s{i}" for i in range(33)], "scopes: must have 1..32 items, has 33"),
        (["scopes"], ["read", "a b"], "scopes[1]: must be a scope-token"),
        (["scopes"], ['a"b'], "scopes[0]: must be a scope-token"),
        (["scopes"], ["a" * 129], "scopes[0]: must be a scope-token"),
        (["scopes"], [True], "scopes[0]: must be a string, not true or false"),
        (["scopes"], ["a", "a"], "scopes[1]: repeats 'a'"),
        (["scopeMatch"], "all", "scopeMatch: must be All or Any"),
        (["audience"], "orders", "audience: must be an absolute URI"),
        (["audience"], None, "audience: must be a string, not nothing"),
        (["resource"], "http://orders", "resource: must be an https URL"),
        (["resource"], "https://orders?", "resource: must be an https URL"),
        (["resource"], "https://orders/#", "resource: must be an https URL"),
        (["resource"], "https://user:hunter2@orders", "resource: must hold no user name"),
        (["resource"], "https://orders/a%20b", "resource: cannot have its metadata asked for: the path is percent"),
        (["resource"], "https://orders/a/../b", "resource: cannot have its metadata asked for: the path holds a dot"),
        (["resource"], "orders", "resource: must be a URL"),
        (["resource"], None, "resource: must be a string, not nothing"),
        (["demo"], False, "demo: must be true where it is given"),
        (["demo"], "yes", "demo: must be true or false, not a string"),
        (["rules"], [], "rules: must have 1..64 items, has 0"),
        (["rules"], [{"paths": ["/"], "access": "Deny"}] * 65, "rules: must have 1..64 items, has 65"),
        (["rules"], [{"access": "Deny"}], "rules[0].paths: is required"),
        (["rules"], [{"paths": [], "access": "Deny"}], "rules[0].paths: must have 1..16 items"),
        (["rules"], [{"paths": ["/a", "/a"], "access": "Deny"}], "rules[0].paths[1]: repeats '/a'"),
        (["rules"], [{"paths": ["/a"]}], "rules[0].access: exactly one of access and scopes"),
        (["rules"], [{"paths": ["/a"], "access": "Deny", "scopes": ["b"]}], "rules[0].access: exactly one of"),
        (["rules"], [{"paths": ["/a"], "access": "public"}], "rules[0].access: must be Public or Deny"),
        (["rules"], [{"paths": ["/a"], "access": "Deny", "scopeMatch": "Any"}], "rules[0].scopeMatch: must be left"),
        (["rules"], [{"paths": ["/a"], "scopes": []}], "rules[0].scopes: must have 1..32 items"),
        (["rules"], [{"paths": ["/a"], "scopes": ["b"], "audience": "x:y"}], "rules[0].audience: unknown key"),
        (["rules"], [{"paths": ["/a"], "access": "Deny", "methods": []}], "rules[0].methods: must have 1..16 items"),
        (["rules"], [{"paths": ["/a"], "access": "Deny", "methods": ["get"]}], "rules[0].methods[0]: must be a method"),
        *(
            (["rules"], [{"paths": [path], "access": "Deny"}], "rules[0].paths[0]: must be")
            for path in (
                *("a", "*", "a/*", "//", "//*", "/a//b", "/a/*/b", "/a*", "/a/**", "/*/", "/a?b", "/a#b", "/a%20b"),
                *("/a\\b", "/a;b", "/./a", "/a/..", "/../*", "/a\x00", "/a\x7f", "/a\n", "/" + "a" * 256, "/a//*"),
            )
        ),
        (["Scopes"], ["x"], "Scopes: unknown key"),
        (["upstream"], {"url": "http://x"}, "upstream: exactly one of demo and upstream"),
        (["validation"], {"maxRevocationDelay": 5}, "validation.maxRevocationDelay: must be a duration"),
        (["validation"], {"maxRevocationDelay": "5"}, "validation.maxRevocationDelay: must be a duration"),
        (["validation"], {"maxRevocationDelay": "-1s"}, "validation.maxRevocationDelay: must be a duration"),
        (["validation"], {"maxRevocationDelay": "61m"}, "validation.maxRevocationDelay: must be from 0s to 3600s"),
        (["validation"], {"timeout": "0s"}, "validation.timeout: must be from 0.001s to 60s"),
        (["validation"], {"retries": True}, "validation.retries: must be a whole number from 0 to 5"),
        (["validation"], {"retries": 6}, "validation.retries: must be a whole number from 0 to 5"),
        (["validation"], {"serveStale": 60}, "validation.serveStale: must be a duration"),
        (["validation"], {"serveStale": "61m"}, "validation.serveStale: must be from 0s to 3600s"),
        (["validation"], {"revocationWebhook": {}}, "validation.revocationWebhook.secretFile: is required"),
        (["validation"], {"revocationWebhook": {"secret": "hunter2"}}, "validation.revocationWebhook.secret: unknown"),
        (["validation"], [], "validation: must be a mapping, not a list"),
        (["authorizationServers"], [], "authorizationServers: must have 1 items, has 0"),
        (["authorizationServers", 0, "issuer"], "https://as?x", f"{_AS}.issuer: must have no query"),
        (["authorizationServers", 0, "issuer"], "http://as", f"{_AS}.issuer: is plain http"),
        (["authorizationServers", 0, "tls"], {}, f"{_AS}.tls.caFile: is required"),
        (["authorizationServers", 0, "tls"], {"verify": False}, f"{_AS}.tls.verify: unknown key"),
        (["authorizationServers", 0, "endpoints"], {}, f"{_AS}.endpoints.introspection: is required"),
        (
            ["authorizationServers", 0, "endpoints", "introspection"],
            "http://as/introspect",
            f"{_AS}.endpoints.introspection: is plain http",
        ),
        (
            ["authorizationServers", 0, "endpoints", "introspection"],
            "https://user:hunter2@as/introspect",
            f"{_AS}.endpoints.introspection: must hold no user name",
        ),
        (
            ["authorizationServers", 0, "endpoints", "introspection"],
            "ftp://as",
            f"{_AS}.endpoints.introspection: must be a URL",
        ),
        (["authorizationServers", 0, "endpoints", "jwks"], "x", f"{_AS}.endpoints.jwks: must be a URL"),
        (["authorizationServers", 0, "endpoints", "userinfo"], "https://as", f"{_AS}.endpoints.userinfo: unknown key"),
        (
            ["authorizationServers", 0, "introspection"],
            {"clientAuthentication": "private_key_jwt"},
            f"{_AS}.introspection.clientAuthentication: must be client_secret_basic or client_secret_post or none",
        ),
    ],
)
def test_a_bad_value_is_a_fault_that_names_its_field(path: list[str | int], value: Any, fault: str) -> None:
    document = copy.deepcopy(SMALLEST)
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(PolicyError) as caught:
        parse(json.dumps(document))

    assert any(found.startswith(fault) for found in caught.value.faults), caught.value.faults
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("upstream", "fault"),
    [
        ({}, "upstream.url: is required"),
        ({"url": "orders:8080"}, "upstream.url: must be a URL"),
        ({"url": "http://orders:99999"}, "upstream.url: must be a URL"),
        ({"url": "http://orders:"}, "upstream.url: must be a URL"),
        ({"url": "http://or ders"}, "upstream.url: must be a URL"),
        ({"url": "http://orders/base"}, "upstream.url: must end after the host and port"),
        ({"url": "http://127.0.0.1:8080"}, "upstream.url: is this machine itself"),
        ({"url": "http://[::1]:8080"}, "upstream.url: is this machine itself"),
        ({"url": "http://[::ffff:127.0.0.1]"}, "upstream.url: is this machine itself"),
        ({"url": "http://0.0.0.0"}, "upstream.url: is this machine itself"),
        ({"url": "http://LocalHost."}, "upstream.url: is this machine itself"),
        ({"url": "http://a.localhost"}, "upstream.url: is this machine itself"),
        ({"url": "http://169.254.169.254"}, "upstream.url: is a link-local address"),
        ({"url": "http://169.254.169.254", "allowLoopback": True}, "upstream.url: is a link-local address"),
        ({"url": "http://[fe80::1]"}, "upstream.url: is a link-local address"),
        ({"url": "http://orders", "timeout": "2h"}, "upstream.timeout: must be from"),
        ({"url": "http://orders", "forwardToken": "yes"}, "upstream.forwardToken: must be true or false"),
        ({"url": "http://orders", "tls": {}}, "upstream.tls: must be left out where the url is plain http"),
        ({"url": "https://orders", "tls": {"verify": False}}, "upstream.tls.verify: unknown key"),
        ({"url": "https://orders", "tls": {"serverName": "a b"}}, "upstream.tls.serverName: must be a DNS name"),
        ({"url": "https://orders", "tls": {"serverName": "a" * 254}}, "upstream.tls.serverName: must be a DNS name"),
        ({"url": "http://orders", "identityHeaders": {"enabled": 1}}, "upstream.identityHeaders.enabled: must be true"),
        *(
            (
                {"url": "http://orders", "identityHeaders": {"names": {"subject": name}}},
                f"upstream.identityHeaders.names.subject: {fault}",
            )
            for name, fault in {
                "Auth-Subject": "must be X-",
                "x-subject": "must be X-",
                "X-": "must be X-",
                "X-Auth_Subject": "must be X-",
                "X-" + "a" * 61: "must be X-",
                "X-Forwarded-User": "must be X-",
                "X-forwarded-for": "must be X-",
                "X-Real-Ip": "must be X-",
                "X-HTTP-Method-Override": "must be X-",
                "X-Original-URL": "must be X-",
                "X-AUTH-CLIENT-ID": "is the header of clientId already",
            }.items()
        ),
        (
            {"url": "http://orders", "identityHeaders": {"names": {"email": "X-Email"}}},
            "upstream.identityHeaders.names.email: unknown key",
        ),
    ],
)
def test_a_bad_upstream_is_a_fault(upstream: dict[str, Any], fault: str) -> None:
    document = {**SMALLEST, "upstream": upstream}
    del document["demo"]

    with pytest.raises(PolicyError) as caught:
        parse(json.dumps(document))

    assert [found for found in caught.value.faults if found.startswith(fault)], caught.value.faults


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1", "https://orders/"])
def test_this_machine_is_an_upstream_where_that_is_allowed(url: str) -> None:
    document = {**SMALLEST, "upstream": {"url": url, "allowLoopback": True}}
    del document["demo"]

    upstream = parse(json.dumps(document)).upstream

    assert upstream is not None
    assert upstream.allow_loopback


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        parse("{scopes: [1, 'a b'], scopeMatch: x, validation: {retries: no}, colour: red}")

    fields = [fault.split(":")[0] for fault in caught.value.faults]

    assert sorted(fields) == sorted(
        ["scopes[0]", "scopes[1]", "scopeMatch", "upstream", "validation.retries", "authorizationServers", "colour"]
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file must hold a mapping"),
        ("- a", "the file must hold a mapping"),
        ("{scopes: [", "line 1, column 11: not YAML"),
        ("scopes: [a]\nscopes: [b]", "line 2, column 1: not YAML: key 'scopes' is repeated"),
        ("validation: {retries: 1, retries: 2}", "line 1, column 26: not YAML: key 'retries' is repeated"),
        ("1: x", "line 1, column 1: not YAML: a key is not a string"),
        ("scopes: !!python/object:os.system {}", "line 1, column 9: not YAML"),
        ("a: \x00", "not YAML"),
        ("retries: !!int ''", "line 1, column 10: not YAML: a value is not of its YAML type"),
        ("demo: !!bool maybe", "line 1, column 7: not YAML: a value is not of its YAML type"),
        ("timeout: !!timestamp soon", "line 1, column 10: not YAML: a value is not of its YAML type"),
        ("timeout: 2026-99-99", "line 1, column 10: not YAML: a value is not of its YAML type"),
        ("scopes: !!map [[read]]", "line 1, column 9: not YAML: expected a mapping"),
        ("[" * 2000, "not YAML"),
    ],
)
def test_what_is_no_yaml_mapping_is_one_fault(text: str, fault: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(text)

    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(fault)


def test_demonstration_leaves_all_but_the_protected_paths_open() -> None:
    policy = parse(json.dumps(SMALLEST))

    assert policy.requirement_for("GET", "/protected") is policy.requirement
    assert policy.requirement_for("GET", CHECK_PATH) is policy.requirement
    assert policy.requirement_for("GET", "/public") is Access.PUBLIC


@pytest.mark.parametrize("path", ["/", "/public", "/health", "/protected", CHECK_PATH])
def test_in_front_of_an_upstream_nothing_is_open_without_a_rule(path: str) -> None:
    policy = replace(parse(FULL), rules=Rules())

    assert policy.requirement_for("OPTIONS", path) is policy.requirement


def test_an_embedded_policy_has_neither_demo_nor_upstream() -> None:
    document = copy.deepcopy(SMALLEST)
    with pytest.raises(PolicyError, match="demo: unknown key"):
        parse(json.dumps(document), embedded=True)
    del document["demo"]

    assert not parse(json.dumps(document), embedded=True).demo


def test_an_embedded_policy_has_no_webhook_because_there_is_no_management_port() -> None:
    document = {key: value for key, value in SMALLEST.items() if key != "demo"}
    document["validation"] = {"revocationWebhook": {"secretFile": "/etc/secret"}}

    with pytest.raises(PolicyError, match=r"validation\.revocationWebhook: unknown key"):
        parse(json.dumps(document), embedded=True)
