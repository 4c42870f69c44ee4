"""What is kept of requests that nobody has let in is bounded for all callers together, and counted to the byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable

import pytest

from protectedservice_server.http1.backlog import Backlog
from protectedservice_server.http1.limits import Limits

from ..support.certificates import Authority
from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer
from .running import Running, behind, service, until
from .test_http1_server import FINE, Front, Taker
from .wire import head, reply

MOST, SHARE = 30_000, 4_000
LARGE, SMALL = b"x" * 20_000, b"x" * 1_000
LIMITS = Limits(backlog_bytes=MOST, backlog_share=SHARE)

Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def server() -> AsyncIterator[IntrospectionServer]:
    async with IntrospectionServer() as running:
        running.open.clear()
        yield running


@pytest.fixture
async def proxy(server: IntrospectionServer) -> AsyncIterator[Running]:
    async with EchoUpstream() as upstream, service(server, limits=LIMITS, **behind(upstream.url)) as running:
        yield running


def with_body(body: bytes, token: str) -> bytes:
    return head("POST", "/a", [("Content-Length", str(len(body)))], token=token) + body


def with_a_large_head(token: str, target: str = "/a") -> bytes:
    return head("GET", target, [(name, "x" * 7_000) for name in ("One", "Two", "Three")], token=token)


def with_a_request_behind(token: str) -> bytes:
    return head("GET", "/a", token=token) + with_body(LARGE, token)


def half_a_head(token: str) -> bytes:
    return with_a_large_head(token)[:-4]


async def send(proxy: Running, data: bytes) -> Caller:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(data)
    return reader, writer


def kept(proxy: Running) -> int:
    return proxy.front.backlog.bytes


WAYS = pytest.mark.parametrize(
    "request_of",
    [lambda token: with_body(LARGE, token), with_a_large_head, with_a_request_behind, half_a_head],
    ids=["a body", "a large head", "a request behind it", "half a head"],
)


@WAYS
async def test_beyond_the_bound_a_caller_who_showed_no_good_token_gets_503_and_nobody_else(
    server: IntrospectionServer, proxy: Running, request_of: Callable[[str], bytes]
) -> None:
    first = await send(proxy, request_of("stranger-1"))
    await until(lambda: kept(proxy) >= len(LARGE))
    by_first = kept(proxy)
    second = await send(proxy, request_of("stranger-2"))
    refused = await asyncio.wait_for(reply(second[0]), 10)
    rest = await second[0].read()
    small = await send(proxy, with_body(SMALL, server.issue()))
    await until(lambda: kept(proxy) > by_first)
    most = kept(proxy)
    server.open.set()
    served = await asyncio.wait_for(reply(small[0]), 10)
    for _, writer in (first, second, small):
        writer.close()
    await until(lambda: proxy.front.open == 0)

    assert by_first <= MOST
    assert (refused.status, refused.value("retry-after"), refused.value("connection")) == (503, "1", "close")
    assert refused.json()["error"] == "overloaded"
    assert rest == b""
    assert most <= by_first + SHARE
    assert (served.status, served.body.endswith(SMALL)) == (200, True)
    assert kept(proxy) == 0


@WAYS
@pytest.mark.parametrize("end", ["answered", "left", "cut"])
async def test_what_was_counted_is_counted_no_more_when_the_request_has_come_to_an_end(
    server: IntrospectionServer, proxy: Running, request_of: Callable[[str], bytes], end: str
) -> None:
    token = server.issue()
    reader, writer = await send(proxy, request_of(token))
    await until(lambda: kept(proxy) >= len(LARGE))
    if end == "left":
        writer.transport.abort()
    elif end == "cut":
        proxy.front.close()
    else:
        server.open.set()
        if request_of is half_a_head:
            writer.write(b"\r\n\r\n")
        assert (await asyncio.wait_for(reply(reader), 10)).status == 200
    await until(lambda: kept(proxy) == 0)
    writer.close()


async def test_a_request_that_was_let_in_is_not_counted_however_long_its_answer_takes(
    server: IntrospectionServer,
) -> None:
    server.open.set()
    async with EchoUpstream() as upstream, service(server, limits=LIMITS, **behind(upstream.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(with_a_large_head(server.issue(), "/wait"))
        await upstream.arrived.wait()
        meanwhile = kept(proxy)
        upstream.go.set()
        answer = await reply(reader)
        writer.close()

    assert (meanwhile, answer.status) == (0, 200)


def test_nor_is_what_passes_through_a_tunnel() -> None:
    front, taker = Front(LIMITS), Taker()
    front.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    front.exchanges[0].watch(taker)
    front.exchanges[0].switch([(b"upgrade", b"x")])
    front.exchanges[0].pause_body()
    front.receive(b"x" * 100_000)
    meanwhile, cut = front.backlog.bytes, front.wire.aborted
    front.exchanges[0].resume_body()

    assert (meanwhile, cut) == (0, False)
    assert taker.told == [("tunnel", b"x" * 100_000)]


async def test_what_tls_has_taken_in_below_a_paused_connection_is_counted_too(server: IntrospectionServer) -> None:
    authority = Authority()
    context = ssl.create_default_context(cadata=authority.pem)
    limits = Limits(backlog_bytes=70_000, backlog_share=SHARE)
    async with service(server, limits=limits, tls=authority.server()) as demo:
        callers = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", demo.port, ssl=context)
            callers.append((reader, writer))
            before = kept(demo)
            writer.write(head("POST", "/protected", [("Content-Length", "90000")], token="stranger"))
            await until(lambda before=before: kept(demo) > before)  # type: ignore[misc]
            writer.write(b"x" * 40_000)
            if not before:
                await until(lambda: kept(demo) > 32_000)
        refused = await asyncio.wait_for(reply(callers[1][0]), 10)
        by_first = kept(demo)
        for _, writer in callers:
            writer.transport.abort()
        await until(lambda: demo.front.open == 0)

    assert refused.status == 503
    assert by_first > 32_000
    assert kept(demo) == 0


def test_the_body_of_an_admitted_request_is_not_counted_while_the_upstream_is_slow() -> None:
    front, taker = Front(LIMITS), Taker()
    front.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    front.exchanges[0].watch(taker)
    front.exchanges[0].accept_body()
    front.exchanges[0].pause_body()
    front.receive(b"x" * 100_000)
    meanwhile = front.backlog.bytes
    front.exchanges[0].resume_body()

    assert (meanwhile, front.wire.written) == (0, b"")
    assert taker.told == [b"x" * 100_000, "ended"]


def test_a_caller_who_reads_no_answers_keeps_no_more_than_others_may() -> None:
    front = Front(LIMITS)
    front.connection.pause_writing()
    front.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2_000)

    assert front.wire.aborted  # another answer would only be kept, too
    assert front.wire.written == b""
    assert front.overloads == 1


def test_what_strangers_leave_unread_is_kept_and_counts() -> None:
    front = Front(LIMITS)
    front.wire.unsent = 10_000
    front.connection.pause_writing()
    unread = front.backlog.bytes
    front.wire.unsent = 4_000
    front.advance(1)
    less = front.backlog.bytes
    front.connection.resume_writing()

    assert (unread, less, front.backlog.bytes) == (10_000, 4_000, 0)
    front.wire.unsent = MOST + 1
    front.connection.pause_writing()
    assert front.wire.aborted


def test_a_last_answer_that_is_left_unread_counts_until_it_is_read() -> None:
    front = Front(LIMITS)
    front.receive(b"no request\r\n\r\n")
    front.wire.unsent = 10_000
    front.connection.pause_writing()
    lingering = front.backlog.bytes
    front.connection.connection_lost(None)

    assert (lingering, front.backlog.bytes) == (10_000, 0)


def test_who_has_been_let_in_may_read_as_slowly_as_it_likes() -> None:
    front = Front(LIMITS)
    front.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    front.exchanges[0].watch(Taker())
    front.wire.unsent = 2 * MOST
    front.connection.pause_writing()

    assert front.backlog.bytes == 0
    assert not front.wire.aborted


def test_an_answer_that_has_begun_is_cut_and_not_mixed_with_a_503() -> None:
    front, taker = Front(LIMITS), Taker()
    front.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    front.exchanges[0].watch(taker)
    front.exchanges[0].write(front.exchanges[0].start(200, [(b"content-length", b"4")], 4, dated=True))
    front.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2_000)

    assert front.wire.aborted
    assert b"503" not in front.wire.written


def test_who_waits_for_a_full_account_to_empty_is_served_then() -> None:
    backlog = Backlog(100, 10)
    others = [backlog.changes(0, 60), backlog.changes(0, 60), backlog.changes(0, 10), backlog.changes(0, 40)]
    full = backlog.bytes
    backlog.changes(60, 0)

    assert others == [True, False, True, False]
    assert full == 70
    assert backlog.changes(0, 60)


def test_lines_beyond_the_most_are_refused_before_the_head_is_complete() -> None:
    front = Front(Limits(headers=100))
    front.receive(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"aa:bb\r\n" * 99)
    before = front.wire.written
    front.receive(b"aa:bb\r\naa")

    assert before == b""
    assert front.wire.written.startswith(b"HTTP/1.1 431 ")


def test_an_exchange_that_is_answered_at_once_is_never_counted() -> None:
    front = Front(LIMITS)
    front.connection._handler = lambda exchange: FINE
    front.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2_000)

    assert front.wire.written.count(b"fine") == 2_000
    assert front.backlog.bytes == 0
