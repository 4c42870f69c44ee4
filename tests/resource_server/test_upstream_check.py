"""The management port says whether the upstream takes connections, and makes as few of them as it can."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from protectedservice_server.http1.pool import Origin, Pool
from protectedservice_server.http1.server import HttpServer
from protectedservice_server.http1.ticker import Ticker
from protectedservice_server.management import Management
from protectedservice_server.metrics import Metrics
from protectedservice_server.upstream_check import HOLDS, UpstreamCheck

from .wire import ask


class Listener:
    """Somebody who takes connections, and remembers what came on each."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.parted = asyncio.Event()
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received.append(await reader.read())
        self.parted.set()
        writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    listener = Listener()
    server = await asyncio.start_server(listener.take, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


@asynccontextmanager
async def management_port(
    reach: Callable[[], Awaitable[None]] | None, clock: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[int]:
    check = UpstreamCheck(reach, clock=clock) if reach is not None else None
    front = HttpServer(Management(Metrics(), None, check), ticker=Ticker())
    own = socket.create_server(("127.0.0.1", 0))
    await front.start(own)
    try:
        yield own.getsockname()[1]
    finally:
        front.close()
        if check is not None:
            await check.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_upstream_that_takes_connections_is_reached_and_sent_nothing(scheme: str) -> None:
    async with listening() as upstream:
        pool = Pool(Origin.of(f"{scheme}://127.0.0.1:{upstream.port}"), Ticker())
        async with management_port(pool.reach) as port:
            answer = await ask(port, "/upstream")
        async with asyncio.timeout(10):
            await upstream.parted.wait()
        await pool.close()

    assert answer.status == 204
    assert upstream.received == [b""]


async def test_an_upstream_that_nobody_listens_at_is_not_reached() -> None:
    free = socket.create_server(("127.0.0.1", 0))
    number = free.getsockname()[1]
    free.close()
    pool = Pool(Origin.of(f"http://127.0.0.1:{number}"), Ticker())
    async with management_port(pool.reach) as port:
        assert (await ask(port, "/upstream")).status == 502


async def test_an_address_that_may_not_be_connected_to_is_not_reached() -> None:
    async with listening() as upstream:
        pool = Pool(Origin.of(f"http://127.0.0.1:{upstream.port}"), Ticker(), refused=lambda address: "is loopback")
        async with management_port(pool.reach) as port:
            answer = await ask(port, "/upstream")

    assert answer.status == 502
    assert upstream.received == []


async def test_many_who_ask_make_one_connection_a_second() -> None:
    times, now = 0, 0.0

    async def reach() -> None:
        nonlocal times
        times += 1

    async with management_port(reach, lambda: now) as port:
        first = await asyncio.gather(*(ask(port, "/upstream") for _ in range(20)))
        tries = times
        now += HOLDS
        again = await ask(port, "/upstream")

    assert {answer.status for answer in first} == {204}
    assert (tries, times, again.status) == (1, 2, 204)


async def test_where_there_is_no_upstream_there_is_no_such_path() -> None:
    async with management_port(None) as port:
        assert (await ask(port, "/upstream")).status == 404
