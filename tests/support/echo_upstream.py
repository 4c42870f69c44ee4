"""An upstream that remembers what it was sent, byte by byte, and misbehaves on request."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web


@dataclass(frozen=True)
class Seen:
    """One request as the upstream got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class EchoUpstream:
    """Use as an asynchronous context manager. The path chooses the behaviour; anything else is echoed as text."""

    seen: list[Seen] = field(default_factory=list)
    chunks: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    """What `/upload` has received so far, chunk by chunk."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """`/wait` answers, and `/stream` sends its second part, once it is set."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """A request has reached `/wait` or `/stream`."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The caller of `/stream`, `/wait` or `/socket` went away before the end."""
    port: int = 0
    tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True, auto_decompress=False
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go.set()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        try:
            if path == "/upload":
                async for chunk in request.content.iter_any():
                    self.chunks.put_nowait(chunk)
                return web.Response(text="uploaded")
            if path == "/wait":
                self.arrived.set()
                await self.go.wait()
                return web.Response(text="waited")
            if path == "/stream":
                return await self._stream(request)
            if path == "/socket":
                return await self._socket(request)
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return await self._echo(request, path)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"first")
        self.arrived.set()
        await self.go.wait()
        await response.write(b"second")
        return response

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self._note(request, b"")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(str(message.data))
        self.left.set()
        return socket

    def _note(self, request: web.Request, body: bytes) -> None:
        headers = [(name.decode(), value.decode("utf-8", "surrogateescape")) for name, value in request.raw_headers]
        self.seen.append(Seen(request.method, request.raw_path, headers, body))

    async def _echo(self, request: web.Request, path: str) -> web.StreamResponse:
        body = await request.read()
        self._note(request, body)
        if path == "/break":  # promises more than it sends
            response = web.StreamResponse(headers={"content-length": "100"})
            await response.prepare(request)
            await response.write(b"only this")
            assert request.transport is not None
            request.transport.close()
            return response
        if path == "/hop":
            return web.Response(
                text="hop",
                headers={"connection": "x-private, close", "x-private": "1", "keep-alive": "timeout=5", "x-kept": "1"},
            )
        if path == "/gzip":
            return web.Response(body=b"\x1f\x8bnot really", headers={"content-encoding": "gzip"})
        if path == "/redirect":
            return web.Response(status=302, headers={"location": "/elsewhere", "set-cookie": "a=b"})
        if path == "/unchanged":
            return web.Response(status=304, headers={"etag": '"x"'})
        if path == "/big":
            return web.Response(body=b"x" * 1_000_000)
        if path == "/long-header":
            return web.Response(text="long", headers={"x-long": "y" * 20_000})
        return web.Response(body=body or b"echo", headers={"x-upstream": "echo"})
