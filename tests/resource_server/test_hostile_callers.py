"""Callers who mean harm: what they send reaches nobody else's request, memory or answer."""

from __future__ import annotations

import asyncio
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
@pytest.mark.parametrize("pieces", [1, 7], ids=["at once", "in pieces"])
async def test_a_body_behind_an_offered_upgrade_is_served_and_belongs_to_its_request(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, framing: tuple[str, str], pieces: int
) -> None:
    """Java's HTTP client offers h2c with each request, those with a body included."""
    headers = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAEAAEAA"), framing]
    token = server.issue()
    body = b"hello" if framing[0] == "Content-Length" else b"5\r\nhello\r\n0\r\n\r\n"
    first = head("POST", "/a", headers, token=token) + body
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    for start in range(0, len(first), len(first) // pieces):
        writer.write(first[start : start + len(first) // pieces])
        await asyncio.sleep(0)
    writer.write(head("GET", "/b", token=token))
    answers = [await reply(reader), await reply(reader)]
    writer.close()

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"hello"), (200, b"echo")]
    assert [(seen.target, seen.body) for seen in upstream.seen] == [("/a", b"hello"), ("/b", b"")]
    names = {name.lower() for name, _ in upstream.seen[0].headers}
    assert not names & {"upgrade", "connection", "http2-settings"}


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
    await until(lambda: proxy.front.open == 1)
    for _ in range(10_000):  # 40 MB
        writer.write(b"y" * 4096)
        await asyncio.sleep(0)
        if not proxy.front.open:
            break
    writer.close()

    assert proxy.front.open == 0


@pytest.mark.parametrize("byte", [b"\r\n", b"x"], ids=["an empty line", "a byte of the body"])
async def test_a_byte_after_the_answer_keeps_no_connection_for_ever(
    server: IntrospectionServer, upstream: EchoUpstream, byte: bytes
) -> None:
    limits = Limits(head_seconds=0.2, body_seconds=0.2, idle_seconds=0.2)
    async with service(server, limits=limits, **behind(upstream.url)) as proxy:
        framing = [("Content-Length", "1000")] if byte == b"x" else []
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head("POST", "/a", framing))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(byte)

        await asyncio.wait_for(reader.read(), 5)  # the rest of the answer, and then the end of the connection
        writer.close()


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
