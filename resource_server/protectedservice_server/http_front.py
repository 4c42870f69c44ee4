"""uvicorn, with bounds on what a request's head may cost, and an end to heads that never end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
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

RESERVED_FILES: Final = 128
"""File descriptors for everything that is no caller: introspection, health checks, the policy and the credentials."""

IDLE_SECONDS: Final = 75
"""How long an idle connection is kept. Above the 60 s of most load balancers, so that they close first."""


STALL_SECONDS: Final = 60.0
"""How long a caller may leave what was sent to him unread, before the connection is dropped with what is in it."""


class _TooLarge(Exception):
    """Ends the parsing; httptools reports it as a HttpParserCallbackError."""


class _Refused(Exception):
    """Ends the parsing of a request whose end two readers could see in two places."""


class BoundedProtocol(HttpToolsProtocol):
    """Answers 431 to large heads, 400 to malformed ones, as JSON; closes connections that take too long to ask."""

    _in_head = True
    _in_body = False  # or in what follows it: trailers
    _head_bytes = 0
    _unheard_bytes = 0  # since the last piece of a body: chunk sizes, extensions, trailers
    _stall: asyncio.TimerHandle | None = None
    _too_large = False
    _asked = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._flows()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        was_in_head = self._in_head
        if was_in_head:
            self._head_bytes += len(data)
        if self._in_body:
            self._unheard_bytes += len(data)
        super().data_received(data)
        if self._in_body and self._unheard_bytes > LARGEST_HEAD:
            # The parser keeps a trailer in memory until it ends. Nobody needs one of this size.
            self.transport.close()
        # Any byte ends uvicorn's own watch over an idle connection; where no answer is under way, ours begins.
        if self._deadline is None and not self.transport.is_closing() and not self._answering():
            self._await_head()
        if was_in_head and self._in_head and self._head_bytes > LARGEST_HEAD and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._in_body = True, False
        if self._deadline is None:
            self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # a trailer: nothing of the request's meaning may come from there (RFC 9110 section 6.5.1)
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
        self._check_framing()
        self._in_body, self._unheard_bytes = True, 0
        super().on_headers_complete()
        self._asked = True

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        super().on_body(body)

    def _check_framing(self) -> None:
        """Refuse what the parser lets through and an upstream might read otherwise.

        An offered upgrade ends the parser's work at the head, so that a body would be taken for absent; Java's HTTP
        client offers h2c with bodies, unless it is told to use HTTP/1.1. Any coding but `chunked` alone would be
        forwarded without its label.
        """
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        lengths = [value.strip() for name, value in self.headers if name == b"content-length"]
        if any(coding != b"chunked" for coding in codings) or len(codings) > 1:
            raise _Refused
        if self.parser.should_upgrade() and (codings or any(length != b"0" for length in lengths)):
            raise _Refused

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # What follows is the head of the next request; the idle timeout watches until it begins.
        self._in_head, self._in_body = True, False
        self._head_bytes = 0

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._flows()
        super().resume_writing()

    def _flows(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _answering(self) -> bool:
        return self._asked and not self.cycle.response_complete

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
        if self._answering():
            self._await_head()  # the next request is slow, but the one before it is still being answered
        elif not self.transport.is_closing():
            self.transport.close()


def most_connections() -> int:
    """How many connections can be served: MOST_CONNECTIONS, or fewer where file descriptors are short.

    Raises the soft limit of open files to the hard one first.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, (hard - RESERVED_FILES) // 2))


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
            limit_concurrency=most_connections(),
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=drain,
        )
    )
