"""Callers who mean harm: what they send reaches nobody else's request, memory or answer."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator

import pytest

from protectedservice_server import http_front

from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer, plain
from .running import Running, behind, service
from .wire import ask, head, raw

BREAKER = 8  # more failures in a row than open the breaker


@pytest.fixture
async def server() -> AsyncIterator[IntrospectionServer]:
    async with IntrospectionServer() as running:
        yield running


@pytest.fixture
async def upstream() -> AsyncIterator[EchoUpstream]:
    async with EchoUpstream() as running:
        yield running


@pytest.fixture
async def proxy(server: IntrospectionServer, upstream: EchoUpstream) -> AsyncIterator[Running]:
    async with service(server, **behind(upstream.url)) as running:
        yield running


@pytest.mark.parametrize(
    "framing", [("Content-Length", "5"), ("Transfer-Encoding", "chunked")], ids=["a length", "chunks"]
)
async def test_an_offered_upgrade_with_a_body_is_refused_before_the_upstream_hears_of_it(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, framing: tuple[str, str]
) -> None:
    headers = [("Connection", "Upgrade"), ("Upgrade", "h2c"), framing]
    answer = await raw(proxy.port, head("POST", "/a", headers, token=server.issue()) + b"hello", method="POST")
    after = await ask(proxy.port, "/b", method="POST", token=server.issue(), body=b"own body")

    assert answer.status == 400
    assert after.status == 200
    assert [(seen.target, seen.body) for seen in upstream.seen] == [("/b", b"own body")]


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
    monkeypatch: pytest.MonkeyPatch, proxy: Running, byte: bytes
) -> None:
    monkeypatch.setattr(http_front, "HEAD_SECONDS", 0.2)
    framing = [("Content-Length", "1000")] if byte == b"x" else []
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(head("POST", "/a", framing))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(byte)

    await asyncio.wait_for(reader.read(), 5)  # the rest of the answer, and then the end of the connection
    writer.close()


async def test_a_caller_who_reads_nothing_is_dropped(
    monkeypatch: pytest.MonkeyPatch, server: IntrospectionServer, proxy: Running
) -> None:
    monkeypatch.setattr(http_front, "STALL_SECONDS", 0.2)
    protocol = http_front.BoundedProtocol
    aborted = asyncio.Event()
    lost = protocol.connection_lost

    def noticed(self: http_front.BoundedProtocol, exc: Exception | None) -> None:
        lost(self, exc)
        aborted.set()

    monkeypatch.setattr(protocol, "connection_lost", noticed)
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    body = b"z" * 200_000
    request = head("POST", "/a", [("Content-Length", str(len(body)))], token=server.issue()) + body
    for _ in range(40):
        writer.write(request)

    await asyncio.wait_for(aborted.wait(), 10)
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

    assert http_front.most_connections() == expected
    assert raised == [(hard, hard)]
