"""uvicorn, with bounds on what a request's head may cost, and an end to heads that never end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .asgi import Application

MOST_HEADERS: Final = 100
LARGEST_HEAD: Final = 64 * 1024
"""Bytes of request line and headers. A token of 16 KiB, cookies and a long path fit."""

HEAD_SECONDS: Final = 20.0
"""From the first byte of a head to its last, and from connecting to that first byte."""


MOST_CONNECTIONS: Final = 4096
"""Open connections or requests; beyond it 503. Each costs a few KiB, and two file descriptors when forwarded."""

IDLE_SECONDS: Final = 75
"""How long an idle connection is kept. Above the 60 s of most load balancers, so that they close first."""


class _TooLarge(Exception):
    """Ends the parsing; httptools reports it as a HttpParserCallbackError."""


class BoundedProtocol(HttpToolsProtocol):
    """Answers 431 to large heads, 400 to malformed ones, as JSON; closes connections that take too long to ask."""

    _in_head = True
    _head_bytes = 0
    _too_large = False
    _asked = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        was_in_head = self._in_head
        if was_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if was_in_head and self._in_head and self._head_bytes > LARGEST_HEAD and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        if self._deadline is None:
            self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MOST_HEADERS:
            self._too_large = True
            raise _TooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_came()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > LARGEST_HEAD:
            self._too_large = True
            raise _TooLarge
        super().on_headers_complete()
        self._asked = True

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # What follows is the head of the next request; the idle timeout watches until it begins.
        self._in_head = True
        self._head_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """Refuse what could not be parsed, and close. After an answer has begun, only close: two answers would mix."""
        cycle = self.cycle
        if not self._asked or cycle.response_complete or not (cycle.response_started or self.pipeline):
            status, code, text = b"400 Bad Request", b"invalid_request", b"The request is not valid HTTP/1.1"
            if self._too_large:
                status, code = b"431 Request Header Fields Too Large", b"header_too_large"
                text = b"The request's headers are too many or too large"
            body = b'{"error": "%b", "error_description": "%b"}' % (code, text)
            self.transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body)
            )
        self.transport.close()

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _head_came(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self._asked and not self.cycle.response_complete:
            self._await_head()  # the next request is slow, but the one before it is still being answered
        elif not self.transport.is_closing():
            self.transport.close()


class HttpServer(uvicorn.Server):
    """A server that leaves signals to us: two of them run in one process, and an ordered end is status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def http_server(application: Application, drain: int) -> HttpServer:
    """A server for `application` that gives requests under way `drain` seconds to finish."""
    return HttpServer(
        uvicorn.Config(
            application,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # what callers say about themselves counts nothing
            server_header=False,
            date_header=False,  # the upstream's own passes
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=drain,
        )
    )
