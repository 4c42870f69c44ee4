"""Callers who mean harm: what they send reaches nobody else's request, memory or answer."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator

import pytest

from protectedservice_server.http1.limits import Limits, most_connections

from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer, plain
from .running import Running, behind, service, until
from .wire import ask, head, raw, reply

BREAKER = 8  # more failures in a row than open the breaker


@pytest.fixture
async def proxy(server: IntrospectionServer, upstream: EchoUpstream) -> AsyncIterator[Running]:
    async with service(server, **behind(upstream.url)) as running:
        yield running


@pytest.mark.parametrize(
    ("framing", "body"),
    [(("Content-Length", "5"), b"hello"), (("Transfer-Encoding", "chunked"), b"5\r\nhello\r\n0\r\n\r\n")],
    ids=["a length", "chunks"],
)
async def test_a_body_behind_an_offer_of_http_2_is_served_as_if_nothing_had_been_offered(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, framing: tuple[str, str], body: bytes
) -> None:
    # Java's HttpClient does so, unless it is told to speak HTTP/1.1 only.
    headers = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAEAAEAA"), framing]
    answer = await raw(proxy.port, head("POST", "/a", headers, token=server.issue()) + body, method="POST")
    after = await ask(proxy.port, "/b", method="POST", token=server.issue(), body=b"own body")

    assert answer.status == after.status == 200
    assert [(seen.target, seen.body) for seen in upstream.seen] == [("/a", b"hello"), ("/b", b"own body")]
    assert not {"upgrade", "http2-settings", "connection"} & {name.lower() for name, _ in upstream.seen[0].headers}


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, chunked", "identity"])
async def test_any_coding_but_chunked_alone_is_refused(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, coding: str
) -> None:
    request = head("POST", "/a", [("Transfer-Encoding", coding)], token=server.issue()) + b"0\r\n\r\n"
    answer = await raw(proxy.port, request, method="POST")

    assert answer.status == 400
    assert upstream.seen == []


async def test_nothing_of_a_request_comes_from_its_trailers(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    token = server.issue()
    chunked = [("Transfer-Encoding", "chunked")]
    trailers = f"0\r\nAuthorization: Bearer {token}\r\nX-Edge-User: admin\r\nCookie: a=b\r\n\r\n".encode()
    without = await raw(proxy.port, head("POST", "/a", chunked) + trailers, method="POST")
    with_token = await raw(proxy.port, head("POST", "/b", chunked, token=token) + trailers, method="POST")

    assert without.status == 401
    assert with_token.status == 200
    (seen,) = upstream.seen
    assert not {"x-edge-user", "cookie"} & {name.lower() for name, _ in seen.headers}


async def test_a_trailer_without_an_end_is_cut_off(proxy: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(head("POST", "/a", [("Transfer-Encoding", "chunked")]) + b"0\r\nX: ")

    async def send_on() -> None:
        for _ in range(10_000):  # 40 MB
            writer.write(b"y" * 4096)
            await writer.drain()
            await asyncio.sleep(0)

    with pytest.raises(ConnectionError):
        await send_on()
    writer.close()


@pytest.mark.parametrize("byte", [b"\r\n", b"x"], ids=["an empty line", "a byte of the body"])
async def test_a_byte_after_the_answer_keeps_no_connection_for_ever(
    server: IntrospectionServer, upstream: EchoUpstream, byte: bytes
) -> None:
    limits = Limits(head_seconds=0.2, body_seconds=0.2, idle_seconds=0.2, linger_seconds=0.2)
    async with service(server, limits=limits, **behind(upstream.url)) as proxy:
        framing = [("Content-Length", "1000")] if byte == b"x" else []
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head("POST", "/a", framing))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(byte)

        await asyncio.wait_for(reader.read(), 5)  # the rest of the answer, and then the end of the connection
        writer.close()


async def test_where_all_places_are_taken_the_oldest_idle_one_is_given_to_who_asks(
    server: IntrospectionServer, upstream: EchoUpstream
) -> None:
    async with service(server, limits=Limits(connections=3), **behind(upstream.url)) as proxy:
        idle = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(3)]
        await until(lambda: proxy.front.open == 3)

        answer = await ask(proxy.port, "/a", token=server.issue())

        assert answer.status == 200
        with contextlib.suppress(ConnectionError):
            assert await idle[0][0].read() == b""  # cut, without a word
        assert proxy.front.open <= 3
        for _, writer in idle:
            writer.close()


async def test_strangers_whose_bodies_nobody_wants_give_their_places_however_they_drip(
    server: IntrospectionServer, upstream: EchoUpstream
) -> None:
    async with service(server, limits=Limits(connections=3), **behind(upstream.url)) as proxy:
        strangers = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(3)]
        for reader, writer in strangers:
            writer.write(head("POST", "/a", [("Content-Length", "65000")]))
            assert (await reply(reader)).status == 401
            writer.write(b"x")

        answer = await ask(proxy.port, "/a", token=server.issue())

        assert answer.status == 200
        for _, writer in strangers:
            writer.close()


async def test_where_all_places_are_taken_by_requests_under_way_the_next_caller_gets_503(
    server: IntrospectionServer, upstream: EchoUpstream
) -> None:
    async with service(server, limits=Limits(connections=1), **behind(upstream.url)) as proxy:
        waiting = asyncio.create_task(ask(proxy.port, "/wait", token=server.issue()))
        await upstream.arrived.wait()

        refused = await ask(proxy.port, "/a", token=server.issue())
        upstream.go.set()

        assert (refused.status, refused.value("retry-after")) == (503, "1")
        assert proxy.metric("protectedservice_overloads_total") == 1
        assert (await waiting).status == 200


async def test_a_caller_who_reads_nothing_is_dropped(server: IntrospectionServer, upstream: EchoUpstream) -> None:
    async with service(server, limits=Limits(stall_seconds=0.2), **behind(upstream.url)) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        body = b"z" * 200_000
        request = head("POST", "/a", [("Content-Length", str(len(body)))], token=server.issue()) + body
        for _ in range(40):
            writer.write(request)
        await until(lambda: proxy.front.open == 1)

        await until(lambda: proxy.front.open == 0)
        writer.close()


async def test_a_compressing_authorization_server_is_asked_for_plain_answers(
    server: IntrospectionServer, proxy: Running
) -> None:
    answer = await ask(proxy.port, "/a", token=server.issue())

    assert answer.status == 200
    assert server.accepted_encodings == ["identity"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(400, b'{"error": "invalid_request"}', id="400 that blames nobody"),
        pytest.param(
            400, b'{"error": "invalid_request", "error_description": "Invalid token provided"}', id="400, provided"
        ),
        pytest.param(
            400,
            b'{"error": "invalid_request", "error_description": "The token parameter is malformed"}',
            id="400, parameter",
        ),
        pytest.param(200, b'{"active": true, "scope": "read", "sub": {"odd": 1}}', id="an odd member"),
    ],
)
async def test_answers_about_one_strangers_token_take_the_service_from_nobody(
    server: IntrospectionServer, proxy: Running, status: int, body: bytes
) -> None:
    for number in range(BREAKER):
        server.scripted.append(plain(status, body))
        refused = await ask(proxy.port, "/a", token=f"junk-{number}")

        assert refused.status in (401, 503)

    assert (await ask(proxy.port, "/a", token=server.issue())).status == 200


async def test_a_length_by_another_spelling_does_not_reach_the_upstream(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    request = head("POST", "/a", [("Content_Length", "3"), ("Content-Length", "5")], token=server.issue()) + b"hello"
    answer = await raw(proxy.port, request, method="POST")

    assert answer.status == 200
    assert "content_length" not in {name.lower() for name, _ in upstream.seen[0].headers}


async def test_other_versions_of_http_are_not_spoken(server: IntrospectionServer, proxy: Running) -> None:
    request = head("GET", "/a", token=server.issue()).replace(b"HTTP/1.1", b"HTTP/2.0")

    assert (await raw(proxy.port, request)).status == 400


@pytest.mark.parametrize(("hard", "expected"), [(1_048_576, 4096), (1024, 448), (100, 1)])
def test_no_more_connections_are_taken_than_there_are_file_descriptors_for(
    monkeypatch: pytest.MonkeyPatch, hard: int, expected: int
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))

    assert most_connections() == expected
    assert raised == [(hard, hard)]
