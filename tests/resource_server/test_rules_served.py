"""What rules mean to callers and to the upstream, through the whole service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from protectedservice_server.policy import CHECK_PATH

from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer
from .running import Running, behind, service
from .wire import Header, ask

RULES: list[dict[str, Any]] = [
    {"paths": ["/docs/*"], "methods": ["GET"], "access": "Public"},
    {"paths": ["/internal/*"], "access": "Deny"},
    {"paths": ["/orders/*"], "methods": ["POST", "DELETE"], "scopes": ["write", "admin"], "scopeMatch": "Any"},
]


@pytest.fixture
async def proxy(server: IntrospectionServer, upstream: EchoUpstream) -> AsyncIterator[Running]:
    async with service(server, **behind(upstream.url), rules=RULES) as running:
        yield running


async def test_a_public_path_is_forwarded_for_anybody_and_says_nothing_about_the_caller(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    claims = [("X-Auth-Subject", "admin"), ("x_auth_client_id", "admin"), ("X-AUTH-SCOPE", "admin")]
    token = server.issue(sub="alice")
    answers = [await ask(proxy.port, "/docs/api", headers=claims), await ask(proxy.port, "/docs/api", token=token)]

    assert [answer.status for answer in answers] == [200, 200]
    assert server.asked == []
    assert not [name for seen in upstream.seen for name, _ in seen.headers if name.lower().startswith("x-auth")]
    assert "admin" not in repr(upstream.seen)
    assert token not in repr(upstream.seen)
    assert proxy.metric("protectedservice_requests_total", reason="open") == 2


async def test_a_denied_path_is_closed_to_everybody_without_a_challenge(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    answers = [
        await ask(proxy.port, "/internal/x", token=token, method=method)
        for token in (None, server.issue("read write admin"))
        for method in ("GET", "OPTIONS")
    ]

    assert {answer.status for answer in answers} == {403}
    assert {answer.value("www-authenticate") for answer in answers} == {None}
    assert answers[0].json()["error"] == "access_denied"
    assert (upstream.seen, server.asked) == ([], [])
    assert proxy.metric("protectedservice_requests_total", reason="denied") == 4


async def test_a_rule_s_scopes_stand_instead_of_the_others_and_in_the_challenge(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    bare = await ask(proxy.port, "/orders/1", method="DELETE")
    reader = await ask(proxy.port, "/orders/1", method="DELETE", token=server.issue("read"))
    writer = await ask(proxy.port, "/orders/1", method="DELETE", token=server.issue("write"))
    otherwise = await ask(proxy.port, "/orders/1", token=server.issue("write"))

    assert [answer.status for answer in (bare, reader, writer, otherwise)] == [401, 403, 200, 403]
    assert 'scope="write admin"' in (bare.value("www-authenticate") or "")
    assert 'error="insufficient_scope"' in (reader.value("www-authenticate") or "")
    assert 'scope="write admin"' in (reader.value("www-authenticate") or "")
    assert 'scope="read"' in (otherwise.value("www-authenticate") or "")
    assert [seen.method for seen in upstream.seen] == ["DELETE"]


async def test_one_token_has_one_verdict_per_rule_out_of_one_remembered_answer(
    server: IntrospectionServer, proxy: Running
) -> None:
    token = server.issue("write")
    statuses = [
        (await ask(proxy.port, "/orders/1", method=method, token=token)).status for method in ("POST", "GET", "POST")
    ]

    assert statuses == [200, 403, 200]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "target",
    ["/docs//x", "//internal/x", "/docs/;/internal", "/docs/x;y", "/docs%3b/x", "/docs/../internal", "/docs/%2e%2e/x"],
)
async def test_a_path_with_two_readings_is_refused(proxy: Running, upstream: EchoUpstream, target: str) -> None:
    assert (await ask(proxy.port, target)).status == 400
    assert upstream.seen == []


async def test_an_encoded_letter_does_not_get_round_a_rule(proxy: Running, upstream: EchoUpstream) -> None:
    assert (await ask(proxy.port, "/%69nternal/x")).status == 403
    assert (await ask(proxy.port, "/docs/%61?%2finternal")).status == 200
    assert [seen.target for seen in upstream.seen] == ["/docs/%61?%2finternal"]


@pytest.mark.parametrize(
    "override",
    [
        ("X-HTTP-Method-Override", "DELETE"),
        ("x_http_method", "DELETE"),
        ("X-Method-Override", "DELETE"),
        ("X-Original-URL", "/internal/x"),
        ("X-Rewrite-Url", "/internal/x"),
    ],
)
async def test_headers_that_rename_method_or_path_behind_the_rules_are_taken_off(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, override: Header
) -> None:
    await ask(proxy.port, "/orders/1", token=server.issue("read"), headers=[override])

    assert override[1] not in repr(upstream.seen[0].headers)


async def test_without_rules_such_headers_are_the_upstream_s_own_affair(
    server: IntrospectionServer, upstream: EchoUpstream
) -> None:
    async with service(server, **behind(upstream.url)) as proxy:
        await ask(proxy.port, "/x", token=server.issue(), headers=[("X-HTTP-Method-Override", "DELETE")])

    assert upstream.seen[0].values("x-http-method-override") == ["DELETE"]


async def test_the_path_of_the_proof_is_protected_by_the_general_scopes_under_any_rule(
    server: IntrospectionServer, upstream: EchoUpstream
) -> None:
    rules = [{"paths": ["/*", CHECK_PATH], "access": "Public"}]
    async with service(server, **behind(upstream.url), rules=rules) as proxy:
        bare = await ask(proxy.port, CHECK_PATH)
        good = await ask(proxy.port, CHECK_PATH, token=server.issue())

    assert (bare.status, good.status) == (401, 204)
    assert upstream.seen == []


async def test_the_demonstration_follows_rules_too(server: IntrospectionServer) -> None:
    rules = [{"paths": ["/public"], "scopes": ["write"]}, {"paths": ["/protected"], "access": "Public"}]
    async with service(server, rules=rules) as running:
        closed = await ask(running.port, "/public")
        opened = await ask(running.port, "/protected")

    assert (closed.status, opened.status) == (401, 200)
    assert opened.json() == {"ok": True, "protected": False}
