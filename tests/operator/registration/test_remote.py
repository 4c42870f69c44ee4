"""The one door: what counts as an answer, what does not, and how certain it is that nothing happened."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

import httpx
import pytest

from protectedservice_operator import reasons
from protectedservice_operator.errors import ServerUnavailable
from protectedservice_operator.registration.breaker import FAILURES, Breaker
from protectedservice_operator.registration.limits import Limits
from protectedservice_operator.registration.remote import ANSWER_LIMIT, USER_AGENT, Answer, Remote, origin

from ...support.fake_authorization_server import FakeAuthorizationServer, Operation
from .clock import FakeClock
from .told import assert_untold, log_of, told

URL = "https://server.test/oauth/token"
SECRET = "s3cret-value+with/signs"
Handler = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def remote_to(handler: Handler, *, deadline: float = 10.0, breaker: Breaker | None = None, **rest: object) -> Remote:
    transport = httpx.MockTransport(handler)
    return Remote("AuthorizationServer ns/as", transport=transport, deadline=deadline, breaker=breaker, **rest)  # type: ignore[arg-type]  # a builder


def answering(status: int, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> Handler:
    given = {"content-type": "application/json"} | dict(headers or {})

    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=given, stream=httpx.ByteStream(body))

    return handler


async def ask(remote: Remote, *, json_due: bool = True) -> Answer:
    try:
        return await remote.request(
            "token", "POST", URL, form={"token": SECRET}, authorization=f"Bearer {SECRET}", json_due=json_due
        )
    finally:
        await remote.aclose()


def failing_with(error: Exception) -> Handler:
    async def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


REDIRECT = {"location": "https://elsewhere.test/"}
HTML = {"content-type": "text/html"}
UNUSABLE = [
    pytest.param(answering(500), True, id="500"),
    pytest.param(answering(503), True, id="503"),
    pytest.param(answering(408), True, id="408: the server gave up waiting for us"),
    pytest.param(answering(429), False, id="429: refused, nothing done"),
    pytest.param(answering(425), False, id="425: refused, nothing done"),
    pytest.param(answering(302, headers=REDIRECT), True, id="302: it may follow a deed"),
    pytest.param(answering(303, headers=REDIRECT), True, id="303: it may follow a deed"),
    pytest.param(answering(307, headers=REDIRECT), False, id="307: still to be done elsewhere"),
    pytest.param(answering(308, headers=REDIRECT), False, id="308: still to be done elsewhere"),
    pytest.param(answering(200, b"<html>welcome</html>", HTML), True, id="HTML where JSON was due"),
    pytest.param(answering(200, b'{"access_token": "x'), True, id="truncated JSON"),
    pytest.param(answering(200, b""), True, id="empty body"),
    pytest.param(answering(200, b"[]"), True, id="JSON, but no object"),
    pytest.param(answering(200, b"\xff\xfe{}"), True, id="no text at all"),
    pytest.param(answering(200, b"[" * 60_000), True, id="JSON nested to exhaust the stack"),
    pytest.param(answering(200, b'{"a": "' + b"x" * ANSWER_LIMIT + b'"}'), True, id="larger than 64 KiB"),
    pytest.param(answering(400, b"x" * (ANSWER_LIMIT + 1)), True, id="a 400 larger than 64 KiB"),
    pytest.param(answering(200, b"{}", {"content-encoding": "gzip"}), True, id="compressed without being asked"),
    pytest.param(failing_with(httpx.ConnectError("[Errno 111] refused")), False, id="connection refused"),
    pytest.param(failing_with(httpx.ConnectTimeout("")), False, id="no connection in time"),
    pytest.param(failing_with(httpx.PoolTimeout("")), False, id="no place in the pool"),
    pytest.param(failing_with(httpx.ReadError("")), True, id="connection lost while waiting"),
    pytest.param(failing_with(httpx.ReadTimeout("")), True, id="silent too long"),
    pytest.param(failing_with(httpx.WriteError("")), True, id="connection lost while sending"),
    pytest.param(failing_with(httpx.RemoteProtocolError(SECRET)), True, id="no HTTP"),
]


@pytest.mark.parametrize(("handler", "uncertain"), UNUSABLE)
async def test_what_is_no_answer_is_unavailable_and_tells_no_secret(
    handler: Handler, uncertain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    remote = remote_to(handler)
    with pytest.raises(ServerUnavailable) as caught:
        await ask(remote)

    assert caught.value.uncertain is uncertain
    assert caught.value.reason == reasons.UNREACHABLE
    assert caught.value.message.startswith("AuthorizationServer ns/as: token at https://server.test ")
    assert_untold([SECRET], told(caught.value), log_of(caplog), repr(remote))


@pytest.mark.parametrize("handler", [case.values[0] for case in UNUSABLE], ids=[case.id for case in UNUSABLE])
async def test_three_of_these_open_the_breaker_and_the_fourth_is_not_sent(handler: Handler) -> None:
    sent = 0

    async def counting(request: httpx.Request) -> httpx.Response:
        nonlocal sent
        sent += 1
        answer = handler(request)
        return answer if isinstance(answer, httpx.Response) else await answer

    remote = remote_to(counting, breaker=Breaker(clock=FakeClock()))
    for _ in range(FAILURES + 1):
        with pytest.raises(ServerUnavailable) as caught:
            await remote.request("token", "POST", URL)
    await remote.aclose()

    assert sent == FAILURES
    assert caught.value.uncertain is False
    assert caught.value.retry_after is not None


@pytest.mark.parametrize(
    ("handler", "parsed"),
    [
        pytest.param(answering(200, b'{"active": true}'), {"active": True}, id="200"),
        pytest.param(answering(201, b'{"client_id": "c"}'), {"client_id": "c"}, id="201"),
        pytest.param(answering(400, b'{"error": "invalid_scope"}'), {"error": "invalid_scope"}, id="400 with an error"),
        pytest.param(answering(401, b'{"error": "invalid_client"}'), {"error": "invalid_client"}, id="401"),
        pytest.param(answering(403, b""), None, id="403 without a body, as django-oauth-toolkit answers"),
        pytest.param(answering(404, b"<html>", HTML), None, id="404 for people"),
    ],
)
async def test_what_is_an_answer_is_returned_and_never_opens_the_breaker(
    handler: Handler, parsed: dict[str, object] | None
) -> None:
    remote = remote_to(handler)
    for _ in range(FAILURES * 2):
        answer = await remote.request("token", "POST", URL)
        assert answer.json == parsed
    await remote.aclose()

    assert remote.breaker.open is False


async def test_a_body_is_optional_where_none_is_due() -> None:
    answer = await ask(remote_to(answering(204, b"")), json_due=False)

    assert (answer.status, answer.json) == (204, None)


async def test_an_answer_of_exactly_64_kib_passes() -> None:
    body = b'{"a": "' + b"x" * (ANSWER_LIMIT - 9) + b'"}'
    assert len(body) == ANSWER_LIMIT

    assert (await ask(remote_to(answering(200, body)))).status == 200


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"retry-after": "7"}, 7.0, id="seconds"),
        pytest.param(
            {"retry-after": "Thu, 01 Jan 2032 00:01:00 GMT", "date": "Thu, 01 Jan 2032 00:00:00 GMT"},
            60.0,
            id="a date, measured by the answer's own",
        ),
        pytest.param({"retry-after": "Thu, 01 Jan 2032 00:01:00 GMT"}, None, id="a date, compared with nothing"),
        pytest.param(
            {"retry-after": "Thu, 01 Jan 2032 00:00:00 GMT", "date": "Thu, 01 Jan 2032 00:01:00 GMT"},
            None,
            id="a date that is over",
        ),
        pytest.param({"retry-after": "-5"}, None, id="negative"),
        pytest.param({"retry-after": "soon"}, None, id="no number"),
        pytest.param({"retry-after": "9" * 400}, None, id="a number without end"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_passed_on_and_opens_the_breaker_at_once(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    remote = remote_to(answering(status, headers=headers), breaker=Breaker(clock=FakeClock(), jitter=lambda: 0.0))
    with pytest.raises(ServerUnavailable) as caught:
        await ask(remote)

    assert caught.value.retry_after == seconds
    assert remote.breaker.open is (seconds is not None)


async def test_a_server_that_says_nothing_is_given_up_at_the_deadline_and_uncertain() -> None:
    server = FakeAuthorizationServer()
    server.hang_on(Operation.TOKEN)
    remote = Remote("as", transport=server.transport(), deadline=0.02)
    with pytest.raises(ServerUnavailable, match=r"nothing complete within 0\.02 s") as caught:
        await remote.request("token", "POST", f"{server.issuer}/oauth/token")
    await remote.aclose()

    assert caught.value.uncertain is True


async def test_a_server_that_drips_is_given_up_at_the_deadline() -> None:
    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0)

    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Drip())

    with pytest.raises(ServerUnavailable) as caught:
        await ask(remote_to(handler, deadline=0.02))

    assert caught.value.uncertain is True


async def test_a_connection_that_breaks_in_the_middle_of_an_answer_is_uncertain() -> None:
    server = FakeAuthorizationServer()
    server.fail_on(Operation.REGISTER, status=None, after_effect=True)
    async with server.serve() as issuer:
        remote = Remote("as")
        with pytest.raises(ServerUnavailable) as caught:
            await remote.request(
                "register",
                "POST",
                f"{issuer}/oauth/register",
                json={"scope": "read"},
                authorization=f"Bearer {server.initial_access_token}",
            )
        await remote.aclose()

    assert caught.value.uncertain is True
    assert server.created_total == 1


async def test_nobody_listening_is_certain() -> None:
    server = FakeAuthorizationServer()
    async with server.serve() as issuer:
        pass
    remote = Remote("as")
    with pytest.raises(ServerUnavailable, match="no connection") as caught:
        await remote.request("token", "POST", f"{issuer}/oauth/token")
    await remote.aclose()

    assert caught.value.uncertain is False


async def test_a_name_that_does_not_resolve_is_certain() -> None:
    remote = Remote("as")
    with pytest.raises(ServerUnavailable, match="no connection") as caught:
        await remote.request("token", "POST", "http://no-such-host.invalid/oauth/token")
    await remote.aclose()

    assert caught.value.uncertain is False


async def test_an_illegal_header_is_not_quoted_in_the_error() -> None:
    """h11 quotes the whole header that it refuses."""
    server = FakeAuthorizationServer()
    async with server.serve() as issuer:
        remote = Remote("as")
        with pytest.raises(ServerUnavailable) as caught:
            await remote.request("token", "POST", f"{issuer}/oauth/token", authorization=f"Bearer {SECRET}\n")
        await remote.aclose()

    assert_untold([SECRET], told(caught.value))


async def test_requests_say_who_asks_and_what_they_bring() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

    remote = remote_to(handler)
    await remote.request(
        "register", "POST", URL, json={"a": 1}, authorization="Bearer x", headers={"Idempotency-Key": "k"}
    )
    await remote.aclose()

    (request,) = seen
    assert request.headers["user-agent"] == USER_AGENT
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["idempotency-key"] == "k"
    assert request.headers["authorization"] == "Bearer x"
    assert json.loads(request.content) == {"a": 1}


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{silent.getsockname()[1]}")
        server = FakeAuthorizationServer()
        async with server.serve() as issuer:
            remote = Remote("as", deadline=2.0)
            answer = await remote.request("discover", "GET", f"{issuer}{server.metadata_path}")
            await remote.aclose()

    assert answer.status == 200


async def test_figures_are_given_for_what_was_tried_only() -> None:
    figures: list[tuple[str, str]] = []
    server = FakeAuthorizationServer()
    remote = Remote(
        "as",
        transport=server.transport(),
        breaker=Breaker(clock=FakeClock()),
        observe=lambda operation, code, seconds: figures.append((operation, code)),
    )
    url = f"{server.issuer}{server.metadata_path}"
    await remote.request("discover", "GET", url)
    server.fail_on(Operation.METADATA, status=503, times=FAILURES)
    for _ in range(FAILURES + 2):
        with pytest.raises(ServerUnavailable):
            await remote.request("discover", "GET", url)
    await remote.aclose()

    assert figures == [("discover", "200")] + [("discover", "503")] * FAILURES


async def test_a_cancelled_call_leaves_no_trace_in_the_breaker() -> None:
    clock = FakeClock()
    server = FakeAuthorizationServer()
    remote = Remote("as", transport=server.transport(), breaker=Breaker(clock=clock, jitter=lambda: 0.0))
    url = f"{server.issuer}{server.metadata_path}"
    server.down = True
    for _ in range(FAILURES):
        with pytest.raises(ServerUnavailable):
            await remote.request("discover", "GET", url)
    server.heal()
    server.hang_on(Operation.METADATA)
    clock.now += 1.0

    probe = asyncio.create_task(remote.request("discover", "GET", url))
    for _ in range(100):
        await asyncio.sleep(0)
    assert server.count(Operation.METADATA) == 1
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    answer = await remote.request("discover", "GET", url)
    await remote.aclose()

    assert answer.status == 200
    assert remote.breaker.open is False


async def test_no_more_than_ten_requests_are_out_at_once() -> None:
    server = FakeAuthorizationServer()
    server.hang_on(Operation.METADATA, times=None)
    remote = Remote("as", transport=server.transport())
    url = f"{server.issuer}{server.metadata_path}"
    calls = [asyncio.create_task(remote.request("discover", "GET", url)) for _ in range(25)]
    for _ in range(100):
        await asyncio.sleep(0)

    assert server.count(Operation.METADATA) == 10

    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await remote.aclose()


async def test_a_call_that_waited_for_its_turn_is_not_sent_once_the_breaker_is_open() -> None:
    server = FakeAuthorizationServer()
    server.fail_on(Operation.METADATA, status=503, times=None)
    remote = Remote(
        "as", transport=server.transport(), limits=Limits(concurrency=1), breaker=Breaker(clock=FakeClock())
    )
    url = f"{server.issuer}{server.metadata_path}"

    ends = await asyncio.gather(
        *(remote.request("discover", "GET", url) for _ in range(FAILURES + 5)), return_exceptions=True
    )
    await remote.aclose()

    assert server.count(Operation.METADATA) == FAILURES
    assert [end.uncertain for end in ends if isinstance(end, ServerUnavailable)] == [True] * FAILURES + [False] * 5


async def test_while_the_breaker_is_open_nobody_queues_for_a_turn() -> None:
    clock = FakeClock()
    server = FakeAuthorizationServer()
    server.down = True
    limits = Limits(burst=FAILURES, clock=clock, sleep=clock.sleep)
    remote = Remote("as", transport=server.transport(), limits=limits, breaker=Breaker(clock=clock))
    for _ in range(FAILURES + 50):
        with pytest.raises(ServerUnavailable):
            await remote.request("discover", "GET", server.issuer)
    await remote.aclose()

    assert clock.slept == []


async def test_closing_lets_what_is_out_come_home_and_refuses_the_rest() -> None:
    """An edited AuthorizationServer gets a new door while the old one may still be registering a client."""
    server = FakeAuthorizationServer()
    server.hang_on(Operation.METADATA)
    remote = Remote("as", transport=server.transport(), limits=Limits(concurrency=1))
    url = f"{server.issuer}{server.metadata_path}"
    out = asyncio.create_task(remote.request("discover", "GET", url))
    queued = asyncio.create_task(remote.request("discover", "GET", url))
    for _ in range(20):
        await asyncio.sleep(0)
    closing = asyncio.create_task(remote.aclose())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done()
    with pytest.raises(ServerUnavailable) as late:
        await remote.request("discover", "GET", url)

    server.release()
    with pytest.raises(ServerUnavailable) as first:
        await out
    with pytest.raises(ServerUnavailable) as second:
        await queued
    await closing

    assert [error.value.uncertain for error in (late, first, second)] == [False, True, False]
    assert server.count(Operation.METADATA) == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("https://a.test/x?y#z", "https://a.test", id="path, query and fragment do not count"),
        pytest.param("https://a.test:443", "https://a.test", id="the scheme's own port"),
        pytest.param("http://a.test:443", "http://a.test:443", id="another scheme's port"),
        pytest.param("https://A.Test", "https://a.test", id="case of the host"),
        pytest.param("https://user:pass@a.test/", "https://a.test", id="user information"),
        pytest.param("http://[::1]:8000/x", "http://[::1]:8000", id="IPv6"),
    ],
)
def test_origin(url: str, expected: str) -> None:
    assert origin(url) == expected
