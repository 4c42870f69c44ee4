"""HTTP/1.1 by hand: tests that are about bytes must choose every one of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Header = tuple[str, str]


@dataclass(frozen=True)
class Reply:
    """One answer, as far as it came."""

    status: int
    headers: list[Header]
    body: bytes
    complete: bool
    """Whether the body ended as its framing promised."""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def value(self, name: str) -> str | None:
        values = self.values(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


async def raw(port: int, data: bytes, *, method: str = "GET") -> Reply:
    """Send `data` and read one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await reply(reader, method)
    finally:
        writer.close()


def head(
    method: str, target: str, headers: Sequence[Header] = (), *, token: str | None = None, host: str = "svc"
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def ask(
    port: int,
    target: str,
    *,
    method: str = "GET",
    token: str | None = None,
    headers: Sequence[Header] = (),
    body: bytes | None = None,
) -> Reply:
    """One request on a connection of its own."""
    framing = [("Content-Length", str(len(body)))] if body is not None else []
    return await raw(port, head(method, target, [*headers, *framing], token=token) + (body or b""), method=method)


async def reply(reader: asyncio.StreamReader, method: str = "GET") -> Reply:
    """Read one answer; 1xx before it is skipped."""
    while True:
        status, headers = await _head(reader)
        if status >= 200:
            break
    named = dict(headers)
    if method == "HEAD" or status in (204, 304):
        return Reply(status, headers, b"", True)
    try:
        if named.get("transfer-encoding") == "chunked":
            return Reply(status, headers, *await _chunked(reader))
        length = int(named["content-length"])
        body = await reader.read(length)
        while len(body) < length and (more := await reader.read(length - len(body))):
            body += more
        return Reply(status, headers, body, len(body) == length)
    except ConnectionError:
        return Reply(status, headers, b"", False)


async def _head(reader: asyncio.StreamReader) -> tuple[int, list[Header]]:
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = text.split("\r\n")[:-2]
    pairs = [line.split(":", 1) for line in lines]
    return int(first.split(" ")[1]), [(name.lower(), value.strip()) for name, value in pairs]


async def _chunked(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    body = b""
    try:
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    except asyncio.IncompleteReadError as cut:
        return body + cut.partial, False
    return body, True
