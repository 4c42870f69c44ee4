"""200 requests at once with one token that nobody has seen: how many introspections, and how long for all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

REQUESTS: Final = 200
LIMIT: Final = 20.0
"""Seconds for one burst."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of one burst."""

    statuses: dict[int, int]
    """How often each status came."""
    milliseconds: float
    """From the first byte sent to the last answer."""


def burst(port: int, path: str, token: str) -> Burst:
    """Open the connections with a refused request each, then ask on all of them at once.

    Raises:
        OSError, TimeoutError, EOFError, ValueError: not everybody was answered.
    """
    return asyncio.run(asyncio.wait_for(_burst(port, path, token), LIMIT))


async def _burst(port: int, path: str, token: str) -> Burst:
    lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(REQUESTS)]
    try:
        await asyncio.gather(*(_ask(*line, path, None) for line in lines))
        began = time.perf_counter()
        statuses = await asyncio.gather(*(_ask(*line, path, token) for line in lines))
        took = (time.perf_counter() - began) * 1e3
    finally:
        for _, writer in lines:
            writer.close()
    return Burst({status: statuses.count(status) for status in set(statuses)}, took)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, token: str | None) -> int:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status, length, chunked = parse_head(head)
    if chunked:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    else:
        await reader.readexactly(length)
    return status


def parse_head(head: str) -> tuple[int, int, bool]:
    """Status, length of the body, and whether it comes in chunks; of a head in lower case. Pure.

    Raises:
        ValueError: it says neither, so the next answer could not be found.
    """
    first, *rest = head.strip().split("\r\n")
    headers = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    chunked = headers.get("transfer-encoding") == "chunked"
    if not chunked and "content-length" not in headers:
        raise ValueError("an answer says not how long it is")
    return int(first.split()[1]), 0 if chunked else int(headers["content-length"]), chunked
