"""The contract of the service port, over real connections, against an authorization server with a memory."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator

import pytest

from protectedservice_server.breaker import FAILURES_TO_OPEN
from protectedservice_server.credentials import Credentials
from protectedservice_server.http1.limits import Limits
from protectedservice_server.policy import CHECK_PATH

from ..support.introspection_server import Answer, IntrospectionServer, plain
from .running import Running, service, until
from .wire import Header, ask, head, raw, reply

TOKENLESS = 'Bearer realm="protectedservice", scope="read"'


@pytest.fixture
async def demo(server: IntrospectionServer) -> AsyncIterator[Running]:
    async with service(server) as running:
        yield running


async def test_the_demonstration_from_401_to_200_to_401(server: IntrospectionServer) -> None:
    async with service(server, validation={"maxRevocationDelay": "0s"}) as demo:
        token = server.issue(sub="alice", exp=4_000_000_000)
        without = await ask(demo.port, "/protected")
        good = await ask(demo.port, "/protected", token=token)
        server.revoke(token)
        revoked = await ask(demo.port, "/protected", token=token)

    assert (without.status, without.value("www-authenticate")) == (401, TOKENLESS)
    assert good.status == 200
    assert good.json() == {
        "ok": True,
        "protected": True,
        "required_scope": "read",
        "client_id": "caller",
        "sub": "alice",
        "scope": "read",
        "exp": 4_000_000_000,
    }
    assert revoked.status == 401
    assert 'error="invalid_token"' in (revoked.value("www-authenticate") or "")


async def test_demonstration_routes(server: IntrospectionServer, demo: Running) -> None:
    answers = {path: await ask(demo.port, path) for path in ("/public", "/health", "/ready", "/", "/nope", "/public/")}
    posted = await ask(demo.port, "/public", method="POST", body=b"x")

    assert {path: answer.status for path, answer in answers.items()} == {
        "/public": 200,
        "/health": 200,
        "/ready": 200,
        "/": 404,
        "/nope": 404,
        "/public/": 404,
    }
    assert answers["/public"].json() == {"ok": True, "protected": False}
    assert (posted.status, posted.value("allow")) == (405, "GET, HEAD")
    assert server.asked == []


async def test_all_refusals_of_the_contract_with_their_challenges_and_counts(server: IntrospectionServer) -> None:
    good = server.issue(aud=["https://orders.example"], iss="http://as.test")
    cases: dict[str, tuple[str, int, str | None, str]] = {
        "inactive": ("unknown-token", 401, "invalid_token", "inactive"),
        "expired": (server.issue(exp=1), 401, "invalid_token", "expired"),
        "not yet valid": (server.issue(nbf=4_000_000_000), 401, "invalid_token", "not_yet_valid"),
        "issuer": (server.issue(iss="http://other"), 401, "invalid_token", "issuer"),
        "no audience": (server.issue(), 401, "invalid_token", "audience"),
        "audience": (server.issue(aud="https://bills.example"), 401, "invalid_token", "audience"),
        "scope": (server.issue("write", aud="https://orders.example"), 403, "insufficient_scope", "scope"),
        "good": (good, 200, None, "ok"),
    }
    async with service(server, audience="https://orders.example") as demo:
        for name, (token, status, code, reason) in cases.items():
            before = demo.metric("protectedservice_requests_total", reason=reason)
            answer = await ask(demo.port, "/protected", token=token)

            assert answer.status == status, name
            assert demo.metric("protectedservice_requests_total", reason=reason) == before + 1, name
            if code is not None:
                challenge = answer.value("www-authenticate") or ""
                assert answer.json()["error"] == code, name
                assert f'error="{code}", error_description="' in challenge, name
                assert challenge.endswith('scope="read"'), name
                assert answer.value("cache-control") == "no-store"
                assert answer.value("content-type") == "application/json"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", "Basic YTpi")], 401),
        ([("Authorization", "Bearer")], 400),
        ([("Authorization", "Bearer a b")], 400),
        ([("Authorization", "Bearer " + "a" * 16_385)], 400),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer a")], 400),
        ([("authorization", "Bearer a"), ("AUTHORIZATION", "Basic YTpi")], 400),
    ],
)
async def test_what_is_no_bearer_token_is_never_asked_about(
    server: IntrospectionServer, demo: Running, headers: list[Header], status: int
) -> None:
    answer = await ask(demo.port, "/protected", headers=headers)

    assert answer.status == status
    assert answer.value("www-authenticate") is not None
    assert server.asked == []


@pytest.mark.parametrize("written", ["Bearer {}", "Bearer  {}", "Bearer {} ", "bearer {}", "BEARER   {}  "])
async def test_however_a_token_is_written_it_is_one_token(server: IntrospectionServer, written: str) -> None:
    token = server.issue()
    headers = [("Authorization", written.format(token))]
    async with service(server, validation={"maxRevocationDelay": "60s"}) as running:
        await ask(running.port, "/protected", token=token)
        remembered = await ask(running.port, "/protected", headers=headers)
        asked = len(server.asked)
        running.forget(token)
        server.revoke(token)
        told = await ask(running.port, "/protected", headers=headers)

    assert (remembered.status, asked, told.status) == (200, 1, 401)
    assert server.asked == [token, token]


@pytest.mark.parametrize(
    "target",
    ["/protected%2fx", "/x/../protected", "/%2e%2e/protected", "/protected%00", "/a%5cb", "/a%252e", "//./b"],
)
async def test_a_path_with_two_readings_is_refused_before_anything_else(
    server: IntrospectionServer, demo: Running, target: str
) -> None:
    answer = await ask(demo.port, target, token=server.issue())

    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
    assert server.asked == []


async def test_an_absolute_target_is_matched_by_its_path(demo: Running) -> None:
    assert (await ask(demo.port, "http://elsewhere/protected")).status == 401


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"GET /public HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"GET /public HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, id="two Hosts"),
        pytest.param(b"GET /public HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, id="no authority"),
        pytest.param(b"GET /public HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, id="user information in Host"),
        pytest.param(b"GET /public HTTP/1.0\r\n\r\n", 200, id="HTTP/1.0 needs none"),
        pytest.param(b"GET /public HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, id="IPv6"),
        pytest.param(b"GET /p\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="path not ASCII"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="asterisk"),
        pytest.param(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="CONNECT"),
        pytest.param(b"nonsense\r\n\r\n", 400, id="no HTTP"),
        pytest.param(b"GET /public HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400, id="a space in a name"),
        pytest.param(
            b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            id="two framings",
        ),
        pytest.param(
            b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            400,
            id="two lengths",
        ),
        pytest.param(
            b"GET /public HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x: y\r\n" for _ in range(Limits().headers)) + b"\r\n",
            431,
            id="too many headers",
        ),
        pytest.param(
            b"GET /public HTTP/1.1\r\nHost: a\r\nx: " + b"y" * Limits().head_bytes + b"\r\n\r\n", 431, id="too large"
        ),
        pytest.param(
            b"GET /public HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 4 * Limits().head_bytes, 431, id="a line without end"
        ),
    ],
)
async def test_what_is_no_good_http_is_refused(demo: Running, request_bytes: bytes, status: int) -> None:
    answer = await raw(demo.port, request_bytes)

    assert answer.status == status
    assert answer.complete
    if status >= 400:
        assert set(answer.json()) == {"error", "error_description"}


async def test_head_has_the_headers_of_get_and_no_body(server: IntrospectionServer, demo: Running) -> None:
    token = server.issue()
    reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
    writer.write(head("HEAD", "/protected") + head("HEAD", "/protected", token=token) + head("GET", "/public"))
    refused, good, after = [await reply(reader, method) for method in ("HEAD", "HEAD", "GET")]
    writer.close()

    assert (refused.status, refused.value("www-authenticate")) == (401, TOKENLESS)
    assert int(refused.value("content-length") or 0) > 0
    assert good.status == 200
    assert after.json()["ok"] is True


async def test_the_check_path_answers_for_the_default_requirement(server: IntrospectionServer, demo: Running) -> None:
    without = await ask(demo.port, CHECK_PATH)
    lacking = await ask(demo.port, CHECK_PATH, token=server.issue("write"))
    good = await ask(demo.port, CHECK_PATH, token=server.issue())
    posted = await ask(demo.port, CHECK_PATH, method="POST", token=server.issue(), body=b"x")

    assert (without.status, without.value("www-authenticate")) == (401, TOKENLESS)
    assert lacking.status == 403
    assert (good.status, good.body) == (204, b"")
    assert posted.status == 405


@pytest.mark.parametrize(
    "answer",
    [
        plain(500, "{}"),
        plain(429, "{}"),
        plain(200, "<html>"),
        plain(200, '{"active": tr'),
        plain(200, "{}"),
        plain(200, '{"active": "yes"}'),
        plain(200, b"{" + b" " * 70_000 + b"}"),
    ],
    ids=["500", "429", "html", "cut", "no active", "active no boolean", "over 64 KiB"],
)
async def test_an_outage_is_503_and_never_an_answer_about_the_token(
    server: IntrospectionServer, demo: Running, answer: Answer
) -> None:
    token = server.issue()
    server.scripted.append(answer)
    during = await ask(demo.port, "/protected", token=token)
    after = await ask(demo.port, "/protected", token=token)

    assert during.status == 503
    assert int(during.value("retry-after") or 0) >= 1
    assert during.value("www-authenticate") is None
    assert during.json()["error"] == "temporarily_unavailable"
    assert demo.metric("protectedservice_requests_total", reason="as_unavailable") == 1
    assert after.status == 200


async def test_the_server_s_own_retry_after_is_passed_on(server: IntrospectionServer, demo: Running) -> None:
    server.scripted.append(plain(429, "{}", retry_after="17"))

    assert (await ask(demo.port, "/protected", token="t")).value("retry-after") == "17"


async def test_a_slow_authorization_server_is_503_within_the_budget(server: IntrospectionServer) -> None:
    async with service(server, validation={"timeout": "100ms"}) as demo:
        server.open.clear()
        began = time.monotonic()
        answer = await ask(demo.port, "/protected", token=server.issue())
        took = time.monotonic() - began

    assert answer.status == 503
    assert 0.1 <= took < 1.5
    assert demo.metric("protectedservice_introspection_seconds_count", result="timeout") == 1


async def test_remembered_tokens_outlive_an_outage_within_the_bound(server: IntrospectionServer, demo: Running) -> None:
    known, unknown = server.issue(), server.issue()
    await ask(demo.port, "/protected", token=known)
    server.always = plain(503, "{}")

    assert (await ask(demo.port, "/protected", token=known)).status == 200
    assert (await ask(demo.port, "/protected", token=unknown)).status == 503


async def test_the_breaker_spares_the_server_and_tells_when_to_come_back(
    server: IntrospectionServer, demo: Running
) -> None:
    server.always = plain(500, "{}")
    for number in range(FAILURES_TO_OPEN):
        await ask(demo.port, "/protected", token=f"t{number}")
    refused = await ask(demo.port, "/protected", token="one-more")

    assert (refused.status, refused.value("retry-after")) == (503, "1")
    assert len(server.asked) == FAILURES_TO_OPEN
    assert demo.metric("protectedservice_breaker_state") == 2


async def test_junk_that_the_server_refuses_to_look_at_is_401_and_harms_nobody(
    server: IntrospectionServer, demo: Running
) -> None:
    junk = plain(400, '{"error": "unsupported_token_type"}')
    server.scripted.extend([junk] * 2 * FAILURES_TO_OPEN)
    statuses = [
        (await ask(demo.port, "/protected", token=f"eyJ{number}")).status for number in range(2 * FAILURES_TO_OPEN)
    ]

    assert set(statuses) == {401}
    assert (await ask(demo.port, "/protected", token=server.issue())).status == 200
    assert demo.metric("protectedservice_breaker_state") == 0


async def test_refused_credentials_are_503_and_fresh_ones_heal_by_themselves(
    server: IntrospectionServer, demo: Running
) -> None:
    token, server.client_secret = server.issue(), "rotated"
    refused = await ask(demo.port, "/protected", token=token)
    demo.reread.append(Credentials(server.client_id, "rotated"))
    demo.reread.pop(0)
    healed = await ask(demo.port, "/protected", token=token)

    assert (refused.status, healed.status) == (503, 200)
    assert demo.metric("protectedservice_requests_total", reason="as_refused_us") == 1


async def test_200_connections_with_one_unknown_token_are_one_question(
    server: IntrospectionServer, demo: Running
) -> None:
    token = server.issue()
    server.open.clear()
    requests = [asyncio.create_task(ask(demo.port, "/protected", token=token)) for _ in range(200)]
    await until(lambda: demo.metric("protectedservice_requests_in_progress") == 200)
    server.open.set()
    statuses = {(await request).status for request in requests}

    assert statuses == {200}
    assert server.asked == [token]
    assert demo.metric("protectedservice_single_flight_joins_total") == 199


async def test_a_caller_that_goes_away_does_not_spoil_the_answer_for_others(
    server: IntrospectionServer, demo: Running
) -> None:
    token = server.issue()
    server.open.clear()
    _, leaving = await asyncio.open_connection("127.0.0.1", demo.port)
    leaving.write(head("GET", "/protected", token=token))
    await until(lambda: bool(server.asked))
    staying = asyncio.create_task(ask(demo.port, "/protected", token=token))
    await until(lambda: demo.metric("protectedservice_requests_in_progress") == 2)
    leaving.transport.abort()
    server.open.set()

    assert (await staying).status == 200
    assert server.asked == [token]


async def test_any_of_the_scopes_is_enough_where_the_policy_says_so(server: IntrospectionServer) -> None:
    async with service(server, scopes=["read", "write"], scopeMatch="Any") as demo:
        one = await ask(demo.port, "/protected", token=server.issue("write"))
        none = await ask(demo.port, "/protected", token=server.issue("readwrite"))

    assert (one.status, none.status) == (200, 403)
    assert 'scope="read write"' in (none.value("www-authenticate") or "")


async def test_a_refused_request_that_waits_to_send_its_body_ends_the_connection(demo: Running) -> None:
    answer = await ask(
        demo.port, "/protected", method="POST", headers=[("Expect", "100-continue"), ("Content-Length", "5")]
    )

    assert (answer.status, answer.value("connection")) == (401, "close")


async def test_metrics_tell_of_cache_and_introspection_and_hold_no_token(
    server: IntrospectionServer, demo: Running
) -> None:
    token = server.issue()
    for _ in range(3):
        await ask(demo.port, "/protected", token=token)
    await ask(demo.port, "/protected", token="unknown-token")

    assert demo.metric("protectedservice_cache_lookups_total", result="hit") == 2
    assert demo.metric("protectedservice_cache_lookups_total", result="miss") == 2
    assert demo.metric("protectedservice_cache_entries", table="active") == 1
    assert demo.metric("protectedservice_cache_entries", table="inactive") == 1
    assert demo.metric("protectedservice_introspection_seconds_count", result="active") == 1
    assert demo.metric("protectedservice_introspection_seconds_count", result="inactive") == 1
    exposition = demo.metrics.exposition().decode()
    assert not [secret for secret in (token, "unknown-token", server.client_secret) if secret in exposition]


async def test_no_log_line_holds_a_token_or_a_secret_whatever_goes_wrong(
    server: IntrospectionServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = [server.issue(), server.issue("write"), "unknown-token-in-this-test"]
    body_of_server = "body-of-the-authorization-server"
    async with service(server, validation={"maxRevocationDelay": "0s"}) as demo:
        for answer in (None, plain(500, body_of_server), plain(401, body_of_server), plain(200, body_of_server)):
            server.always = answer
            for token in tokens:
                await ask(demo.port, f"/protected?access_token={token}", token=token)
                await ask(demo.port, "/protected", headers=[("Authorization", f"Bearer {token} {token}")])
                await raw(demo.port, f"GET / HTTP/1.1\r\nBad Header {token}: x\r\n\r\n".encode())

    logged = "\n".join(json.dumps(record.__dict__, default=repr) for record in caplog.records)
    assert "does not answer as it should" in logged
    forbidden = [*tokens, server.client_secret, body_of_server]
    assert not [secret for secret in forbidden if secret in logged]
