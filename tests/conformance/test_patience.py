"""Callers and upstreams who stop in the middle cost a bounded time and bounded memory, and keep nobody else waiting."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from .conversation import connection, head
from .fronts import Front

BODY_DEADLINE = 60.0
STALL_DEADLINE = 60.0
"""Seconds (http1/limits.py)."""
UPSTREAM_TIMEOUT = 30.0
"""Seconds (policy.Upstream)."""
LATE = 15.0
"""Seconds that a busy machine may add."""

MOST_GROWTH = 32 * 1024 * 1024
"""Bytes; what is offered is eight times as much."""


def resident(front: Front) -> int:
    """Bytes of memory that the front's process holds."""
    pages = int(Path(f"/proc/{front.process.pid}/statm").read_text().split()[1])
    return pages * 4096


def is_held(front: Front, caller: socket.socket) -> bool:
    """Whether the front still has its end of this caller's connection: the kernel's table names who has a socket."""
    ends = (front.port, caller.getsockname()[1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{front.process.pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if tuple(int(place.rpartition(":")[2], 16) for place in words[1:3]) == ends:
                return words[9] != "0"  # the inode; none: closed, and what is unsent is the kernel's
    return False


async def test_an_answer_that_nobody_reads_is_not_held_in_memory(front: Front) -> None:
    await front.good()
    before = resident(front)
    async with connection(front.port) as talk:
        await talk.send(head("GET", "/big", token=front.token()))
        for _ in range(100):
            assert (await front.good())[1].status == 200
            assert resident(front) - before < MOST_GROWTH


@pytest.mark.slow
async def test_a_body_that_stops_coming_is_408(front: Front) -> None:
    async with connection(front.port) as talk:
        await talk.send(head("POST", "/stops", "Content-Length: 10", token=front.token()) + b"half")
        assert (await front.good())[1].status == 200
        assert (await talk.answer(deadline=BODY_DEADLINE + LATE)).status == 408


@pytest.mark.slow
async def test_a_caller_who_reads_nothing_of_its_answer_is_dropped(front: Front) -> None:
    with socket.create_connection(("127.0.0.1", front.port), timeout=LATE) as caller:
        caller.sendall(head("GET", "/big", token=front.token()))
        async with asyncio.timeout(LATE):
            while not is_held(front, caller):
                await front.good()
        async with asyncio.timeout(STALL_DEADLINE + LATE):
            while is_held(front, caller):
                await front.good()


@pytest.mark.slow
async def test_an_upstream_that_never_answers_is_504(front: Front) -> None:
    async with connection(front.port) as talk:
        await talk.send(head("GET", "/silent", token=front.token()))
        assert (await front.good())[1].status == 200
        assert (await talk.answer(deadline=UPSTREAM_TIMEOUT + LATE)).status == 504
