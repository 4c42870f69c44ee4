"""A caller that chooses every byte it sends, and reads answers strictly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

DEADLINE: Final = 20.0
"""Seconds for one answer on a machine that is busy with other tests; no good run comes near."""

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})( [^\r\n]*)?")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")


class NoAnswer(Exception):
    """The connection ended, or fell silent, before a whole answer had come."""


class BadAnswer(AssertionError):
    """What came is no answer of HTTP/1.1."""


@dataclass(frozen=True)
class Answer:
    """One whole answer."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    interim: tuple[int, ...] = ()
    """Statuses of the 1xx answers that came before it."""
    trailers: tuple[tuple[str, str], ...] = ()
    version: str = "1.1"

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def value(self, name: str) -> str | None:
        values = self.values(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        return "close" in (self.value("connection") or "").lower()

    def json(self) -> Any:
        return json.loads(self.body)


class Conversation:
    """One connection to a front end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send; the other side may have ended the connection already, which the next reading tells."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def send_apart(self, data: bytes) -> None:
        """Send each byte in a packet of its own."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(data)):
            await self.send(data[place : place + 1])
            await asyncio.sleep(0)

    async def answer(self, method: str = "GET", deadline: float = DEADLINE) -> Answer:
        """Read one answer.

        Raises:
            NoAnswer: the connection ended within or before it.
            TimeoutError: nothing more came for `deadline` seconds.
            BadAnswer: it is not HTTP.
        """
        async with asyncio.timeout(deadline):
            try:
                return await self._answer(method)
            except (asyncio.IncompleteReadError, ConnectionError) as ended:
                raise NoAnswer from ended

    async def ended(self, deadline: float = DEADLINE) -> bytes:
        """Wait for the end of the connection: what still came before it. Raises: TimeoutError: it does not end."""
        rest = b""
        async with asyncio.timeout(deadline):
            try:
                while more := await self.reader.read(65536):
                    rest += more
            except ConnectionError:
                pass
        return rest

    async def _answer(self, method: str) -> Answer:
        interim: list[int] = []
        while True:
            version, status, fields = await self._head()
            if status >= 200:
                break
            interim.append(status)
            if status == 101:
                return Answer(status, fields, b"", tuple(interim), version=version)
        named = dict(fields)
        coded = named.get("transfer-encoding")
        if coded is not None and "content-length" in named:
            raise BadAnswer("an answer with two framings")
        body, trailers = b"", tuple[tuple[str, str], ...]()
        if method == "HEAD" or status in (204, 304):
            pass
        elif coded is not None:
            if coded != "chunked":
                raise BadAnswer(f"coding {coded!r}")
            body, trailers = await self._chunks()
        elif "content-length" in named:
            body = await self.reader.readexactly(int(named["content-length"]))
        else:
            body = await self.reader.read()  # up to the end of the connection
        return Answer(status, fields, body, tuple(interim), trailers, version)

    async def _head(self) -> tuple[str, int, tuple[tuple[str, str], ...]]:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        matched = _STATUS_LINE.fullmatch(first)
        if matched is None:
            raise BadAnswer(f"status line {first!r}")
        return first[5:8].decode(), int(matched[1]), _fields(lines)

    async def _chunks(self) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            if await self.reader.readexactly(2) != b"\r\n":
                raise BadAnswer("a chunk without its end")
        lines = []
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            lines.append(line[:-2])
        return body, _fields(lines)


def _fields(lines: Sequence[bytes]) -> tuple[tuple[str, str], ...]:
    fields = []
    for line in lines:
        matched = _FIELD.fullmatch(line)
        if matched is None:
            raise BadAnswer(f"field line {line!r}")
        fields.append((matched[1].decode().lower(), matched[2].decode("latin-1")))
    return tuple(fields)


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[Conversation]:
    """A connection, ended with the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024)
    try:
        yield Conversation(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def head(method: str, target: str, *lines: str, token: str | None = None, host: str | None = "svc") -> bytes:
    """A request's head: its line, Host, these field lines, and Authorization."""
    all_lines = [f"{method} {target} HTTP/1.1"]
    if host is not None:
        all_lines.append(f"Host: {host}")
    all_lines += lines
    if token is not None:
        all_lines.append(f"Authorization: Bearer {token}")
    return ("\r\n".join(all_lines) + "\r\n\r\n").encode("latin-1")


async def ask(port: int, request: bytes, method: str = "GET") -> Answer:
    """One request on a connection of its own, and its answer."""
    async with connection(port) as talk:
        await talk.send(request)
        return await talk.answer(method)
