"""Whoever begins handshakes of TLS and ends none takes places, for a short time, and keeps nobody out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import Any

import pytest

from protectedservice_server.bearer import Answer
from protectedservice_server.http1 import server as http_server
from protectedservice_server.http1.limits import Limits
from protectedservice_server.http1.server import HttpServer
from protectedservice_server.http1.ticker import Ticker

from ..support.certificates import Authority
from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer
from .running import Running, behind, service, until
from .wire import Reply, head, reply

Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]

OURS = Authority("Ours")
TRUST = ssl.create_default_context(cadata=OURS.pem)
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # how a ClientHello begins


async def half_open(running: Running, first: bytes = HELLO) -> Caller:
    """A connection whose handshake goes no further than `first`, and that has its place."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(first)
    return reader, writer


async def ended(caller: Caller) -> bool:
    """Wait for the end of the connection; whether nothing but an alert came before it."""
    reader, writer = caller
    try:
        async with asyncio.timeout(10):
            received = await reader.read()
    except ConnectionError:
        received = b""
    writer.close()
    return received[:1] in (b"", b"\x15")


async def finished(running: Running) -> Caller:
    return await asyncio.open_connection("127.0.0.1", running.port, ssl=TRUST)


async def asked(caller: Caller, target: str, token: str) -> Reply:
    reader, writer = caller
    writer.write(head("GET", target, token=token))
    answer = await asyncio.wait_for(reply(reader), 10)
    writer.close()
    return answer


@pytest.mark.parametrize("first", [b"", HELLO], ids=["nothing", "half a hello"])
async def test_half_open_handshakes_take_all_places_and_the_oldest_is_given_to_who_asks(
    server: IntrospectionServer, upstream: EchoUpstream, first: bytes
) -> None:
    limits = Limits(connections=3)
    async with service(server, limits=limits, tls=OURS.server(), **behind(upstream.url)) as proxy:
        half = [await half_open(proxy, first) for _ in range(3)]
        await until(lambda: proxy.front.open == 3)
        caller = await finished(proxy)
        most = proxy.front.open
        answer = await asked(caller, "/a", server.issue())

        assert (answer.status, most) == (200, 3)
        assert await ended(half[0])
        for _, writer in half[1:]:
            writer.close()
        await until(lambda: proxy.front.open == 0)


async def test_where_requests_under_way_have_all_places_a_handshake_is_refused_at_once(
    server: IntrospectionServer, upstream: EchoUpstream
) -> None:
    limits = Limits(connections=2)
    async with service(server, limits=limits, tls=OURS.server(), **behind(upstream.url)) as proxy:
        callers = [await finished(proxy) for _ in range(2)]
        waiting = [asyncio.create_task(asked(caller, "/wait", server.issue())) for caller in callers]
        await until(lambda: proxy.front.busy == 2)
        await upstream.arrived.wait()

        assert await ended(await half_open(proxy))
        assert proxy.front.open == 2
        upstream.go.set()
        assert [(await task).status for task in waiting] == [200, 200]
        await until(lambda: proxy.front.open == 0)
        assert (await asked(await finished(proxy), "/a", server.issue())).status == 200


async def test_no_more_than_so_many_handshakes_are_under_way_at_a_time(
    server: IntrospectionServer, upstream: EchoUpstream
) -> None:
    limits = Limits(handshakes=2)
    async with service(server, limits=limits, tls=OURS.server(), **behind(upstream.url)) as proxy:
        half = [await half_open(proxy) for _ in range(3)]

        assert await ended(half[0])
        assert proxy.front.open == 2
        assert (await asked(await finished(proxy), "/a", server.issue())).status == 200
        for _, writer in half[1:]:
            writer.close()


@pytest.mark.parametrize(("grace", "loses"), [(0.0, "handshake"), (1000.0, "idle")])
async def test_an_idle_connection_gives_its_place_before_a_young_handshake_and_after_an_old_one(
    server: IntrospectionServer, upstream: EchoUpstream, monkeypatch: pytest.MonkeyPatch, grace: float, loses: str
) -> None:
    monkeypatch.setattr(http_server, "GRACE", grace)
    limits = Limits(connections=2)
    async with service(server, limits=limits, tls=OURS.server(), **behind(upstream.url)) as proxy:
        idle, half = await finished(proxy), await half_open(proxy)
        await until(lambda: proxy.front.open == 2)
        answer = await asked(await finished(proxy), "/a", server.issue())
        loser, other = (half, idle) if loses == "handshake" else (idle, half)

        assert answer.status == 200
        assert await ended(loser)
        assert not other[0].at_eof()
        other[1].close()


@pytest.mark.parametrize("first", [b"", HELLO], ids=["nothing", "half a hello"])
async def test_a_handshake_that_does_not_end_in_time_loses_its_place(
    server: IntrospectionServer, upstream: EchoUpstream, first: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(handshake_seconds=0.2)
    async with service(server, limits=limits, tls=OURS.server(), **behind(upstream.url)) as proxy:
        half = await half_open(proxy, first)

        assert await ended(half)
        await until(lambda: proxy.front.open == 0)
        assert (await asked(await finished(proxy), "/a", server.issue())).status == 200
    assert caplog.records == []


@pytest.mark.parametrize("how", ["no TLS", "leaves", "another authority"])
async def test_a_handshake_that_fails_takes_no_place_and_no_line_of_the_log(
    server: IntrospectionServer, upstream: EchoUpstream, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(server, tls=OURS.server(), **behind(upstream.url)) as proxy:
        if how == "another authority":
            stranger = ssl.create_default_context(cadata=Authority("Other").pem)
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection("127.0.0.1", proxy.port, ssl=stranger)
        else:
            half = await half_open(proxy, head("GET", "/a") if how == "no TLS" else HELLO)
            await until(lambda: proxy.front.open == 1 or half[0].at_eof())
            if how == "no TLS":
                assert await ended(half)
            else:
                half[1].transport.abort()
        await until(lambda: proxy.front.open == 0)
    assert caplog.records == []


async def test_a_handshake_that_began_before_the_drain_is_served_and_then_its_connection_ends(
    server: IntrospectionServer, upstream: EchoUpstream
) -> None:
    async with service(server, tls=OURS.server(), **behind(upstream.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await until(lambda: proxy.front.open == 1)
        draining = asyncio.create_task(proxy.front.drain(20))
        await until(lambda: proxy.front.draining)
        with pytest.raises(OSError):  # noqa: PT011 refused or reset, as the machine likes
            await finished(proxy)
        await writer.start_tls(TRUST, server_hostname="127.0.0.1")
        writer.write(head("GET", "/a", token=server.issue()))
        answer = await asyncio.wait_for(reply(reader), 10)
        writer.close()
        await asyncio.wait_for(draining, 10)

    assert (answer.status, answer.value("connection")) == (200, "close")


async def test_half_open_handshakes_do_not_outlive_the_server(
    server: IntrospectionServer, upstream: EchoUpstream
) -> None:
    async with service(server, tls=OURS.server(), **behind(upstream.url)) as proxy:
        half = await half_open(proxy)
        await until(lambda: proxy.front.open == 1)
        proxy.front.close()

        assert proxy.front.open == 0
        assert await ended(half)


class Exhausted(socket.socket):
    """A listening socket of a process that has no file descriptor left, for some attempts."""

    attempts = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.attempts += 1
        if self.attempts <= 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_where_no_file_descriptor_is_left_it_accepts_again_at_the_next_sweep() -> None:
    listening = Exhausted(fileno=socket.create_server(("127.0.0.1", 0)).detach())
    front = HttpServer(lambda exchange: Answer(200, (), b"fine"), ticker=Ticker(), tls=OURS.server())
    await front.start(listening)
    with contextlib.closing(front):
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1], ssl=TRUST)
        writer.write(head("GET", "/a"))
        answer = await asyncio.wait_for(reply(reader), 10)
        writer.close()
        await until(lambda: front.open == 0)

    assert answer.body == b"fine"
    assert listening.attempts == 3
