"""Callers who hold places and ask for nothing take the service from nobody."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ..support.introspection_server import IntrospectionServer
from .background import Background
from .conversation import ask, connection, head
from .fronts import Front, own
from .test_patience import resident

IDLE = 10_000
SLOW = 200
STRANGERS = 3_000
BEHIND = 200_000
"""Bytes that each sends behind its head."""
MOST_GROWTH = 120 * 1024 * 1024
"""Bytes: the 32 MiB that are kept, 8 KiB and the objects for each (docs/threats.md)."""
HEAD_DEADLINE = 20.0
"""Seconds that the server leaves a head (http1/limits.py)."""


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the machine gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 1000:
        pytest.skip(f"this machine gives {hard} open files, the test needs {IDLE + 1000}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def own_front(front: Front) -> Front:
    """Only our own front answers for how it gives places away."""
    if front.name != "own":
        pytest.skip("the embedding application's own server decides who gets a place")
    return front


@contextmanager
def held(port: int, number: int, first: bytes) -> Iterator[list[socket.socket]]:
    """So many connections, each with these first bytes of a head."""
    with ExitStack() as closing:
        places = []
        for _ in range(number):
            place = closing.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            with contextlib.suppress(ConnectionError):  # given away already
                place.sendall(first)
            places.append(place)
        yield places


def ending(place: socket.socket) -> bytes:
    """What comes before the end of the connection."""
    place.settimeout(3 * HEAD_DEADLINE)
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := place.recv(4096):
            received += piece
    return received


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("first", [b"", b"GET / HT"], ids=["nothing", "half a line"])
async def test_ten_thousand_idle_connections_keep_nobody_out(own_front: Front, first: bytes) -> None:
    with held(own_front.port, IDLE, first):
        for _ in range(20):
            assert (await own_front.good())[1].status == 200
    assert (await own_front.good())[1].status == 200


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
async def test_what_strangers_send_fills_no_memory_while_their_tokens_are_asked_about(
    background: Background, tmp_path: Path
) -> None:
    server = IntrospectionServer()
    background.run(server.__aenter__())
    try:
        patient = {"maxRevocationDelay": "0s", "timeout": "60s", "retries": 0}
        with own(background, server, tmp_path, validation=patient) as front, ExitStack() as closing:
            assert (await front.good())[1].status == 200
            server.open.clear()
            before, most = resident(front), 0
            strangers = []
            for number in range(STRANGERS):
                stranger = closing.enter_context(socket.create_connection(("127.0.0.1", front.port), timeout=20))
                stranger.setblocking(False)
                request = head("POST", "/a", f"Content-Length: {BEHIND}", token=f"stranger-{number}")
                stranger.send(request + b"x" * BEHIND)
                strangers.append(stranger)
                if number % 100 == 0:
                    assert (await ask(front.port, head("GET", "/a"))).status == 401
                    most = max(most, resident(front) - before)
            refused = sum(answered(stranger).startswith(b"HTTP/1.1 503 ") for stranger in strangers)
            async with connection(front.port) as talk:
                await talk.send(head("POST", "/a", "Content-Length: 1000", token=front.token()) + b"x" * 1000)
                assert (await ask(front.port, head("GET", "/a"))).status == 401
                background.call(server.open.set)
                assert (await talk.answer()).status == 200

            assert 0 < refused < STRANGERS
            assert most < MOST_GROWTH
    finally:
        background.run(server.__aexit__(None, None, None))


def answered(place: socket.socket) -> bytes:
    """What has come so far."""
    with contextlib.suppress(BlockingIOError, ConnectionError):
        return place.recv(4096)
    return b""


@pytest.mark.slow
async def test_heads_that_never_end_are_given_up_and_others_are_served_meanwhile(own_front: Front) -> None:
    with held(own_front.port, SLOW, b"GET /a HTTP/1.1\r\nHost: a\r\nX: ") as places:
        assert (await own_front.good())[1].status == 200
        ends = [await asyncio.to_thread(ending, place) for place in places]
    assert all(not end or end.startswith(b"HTTP/1.1 408 ") for end in ends)


async def test_a_request_after_a_long_silence_is_still_answered(front: Front) -> None:
    async with connection(front.port) as talk:
        await talk.send(head("GET", "/silence", token=front.token()))
        assert (await talk.answer()).status == 200
        await talk.send(head("GET", "/silence", token=front.token()))
        assert (await talk.answer()).status == 200
