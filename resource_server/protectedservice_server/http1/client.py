"""One connection to another server: a call out, its answer back, and the next call on the same connection.

Strict as the server's side is: an answer that llhttp does not read, whose framing is doubtful, or that nobody asked for
ends the connection, and is never reused or passed on.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from enum import Enum
from typing import Final, cast

import httptools
import msgspec

from ..bearer import Header
from .answers import WholeAnswer, WholeAnswers
from .messages import hops_of

LARGEST_HEAD: Final = 128 * 1024
"""Bytes of an answer that bring nothing of its body: its head, its trailers, what stands beside the size of a chunk.

Content-Security-Policy alone can have many KiB.
"""

MOST_HEADERS: Final = 500

_SPECIAL: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"date"})


class Failure(Enum):
    """Why a call has no whole answer."""

    CONNECTION = "connection"
    """None could be made, or it ended before the answer did."""
    TLS = "tls"
    """The other side could not prove who it is."""
    SLOW = "timeout"
    PROTOCOL = "protocol"
    """What came was no valid answer."""


class Head(msgspec.Struct, frozen=True, gc=False):
    """The head of an answer. Header names are lower case."""

    status: int
    headers: list[Header]
    length: int | None = 0
    """Of the body; None: unknown before its end."""
    hops: frozenset[bytes] = frozenset()
    """Headers that `Connection` names: meant for this hop only."""
    dated: bool = False


class Call:
    """One question; the connection tells it of the answer. Subclasses say what to do with it.

    `head` is the whole head of the request. A body follows by `connection.write` from `sent` on.
    """

    head: bytes
    patience: float | None = None
    """Where there is no body and nobody needs to hear that the head is `sent`: for how many seconds from then on the
    other side may be silent. None: `sent` is called, and says so."""
    headless = False
    """Whether the answer has no body, whatever its headers say: it answers HEAD (RFC 9112 section 6.3)."""
    repeatable = False
    """Whether it may be sent once more where a kept connection turns out to be dead (RFC 9110 section 9.2.2)."""
    connection: ClientConnection | None = None
    given_up = False

    def sent(self) -> None:
        """The head is on its way."""

    def interim(self, head: Head) -> None:
        """A 1xx answer, except 100 and 101."""

    def answered(self, head: Head) -> None:
        """The answer begins."""

    def switched(self, head: Head) -> None:
        """101: what comes now is `tunnelled`."""

    def body(self, data: bytes) -> None:
        """A piece of the answer's body."""

    def tunnelled(self, data: bytes) -> None:
        """Bytes behind a 101."""

    def flush(self) -> None:
        """All that came at once has been told."""

    def answered_whole(self, answer: WholeAnswer) -> None:
        """The answer, all of it, instead of `answered`, `body`, `flush` and `finished`; the last call."""
        layout = answer.layout
        headers = list(zip(layout.names, answer.values, strict=True))
        self.answered(Head(answer.status, headers, len(answer.body), hops_of(headers), layout.dated))
        self.body(answer.body)
        self.flush()
        self.finished(())

    def finished(self, trailers: Sequence[Header]) -> None:
        """The answer is whole; the last call."""

    def failed(self, failure: Failure) -> None:
        """There will be no (whole) answer; the last call."""

    def pause(self) -> None:
        """The other side does not take the request as fast as it is sent."""

    def resume(self) -> None:
        """It does again."""


class ClientConnection(asyncio.Protocol):
    """`owner` hears of its end, and gets it back after each answer that leaves it fit for another call."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport
        self._call: Call | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reset()
        self.calls = 0
        """How many were sent; of the first nobody can say that the connection was dead before."""
        self.idle_since = 0.0
        self.deadline: float | None = None
        """When, on the ticker's clock, the other side will have been silent for too long."""
        self.request_sent = False
        """Whether the whole request has been written: an answer that ends earlier leaves the connection unfit."""
        self._heard = False
        self._broken = False
        self._told_end = False  # the other side has said that nothing more comes; over TLS, by close_notify
        self._reading = True
        self._paused = False  # the other side has not taken all of a request: the next one must not come behind it
        self.trusted: ssl.SSLContext | None = None
        """By what it was made, where it is TLS."""

    def _reset(self) -> None:
        self._headers: list[Header] = []
        self._head_bytes = 0  # came since the last piece of a body
        self._in_body = False
        self._status = 0
        self._whole = False  # the answer has ended
        self._to_the_end = False  # the answer ends with the connection
        self._tunnel = False
        self._keep = False

    def begin(self, call: Call, now: float) -> bool:
        """Send `call`; False: the connection ends. `now` is the ticker's. None may be under way."""
        transport = self._transport
        if transport.is_closing():
            return False
        self._call, call.connection = call, self
        self.calls += 1
        self._heard = False
        transport.write(call.head)
        if call.patience is not None:
            self.request_sent, self.deadline = True, now + call.patience
        else:
            self.request_sent = False
            call.sent()
        return True

    def write(self, data: bytes) -> None:
        """More of the request, framed already; or of the tunnel."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def read(self, on: bool) -> None:
        """Take what comes, or leave it to the network's back-pressure."""
        if on is self._reading or self._transport.is_closing():
            return
        self._reading = on
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def end(self) -> None:
        """Close it; a call under way is forgotten without a word."""
        call, self._call = self._call, None
        if call is not None:
            call.connection = None
            self._transport.abort()
        else:
            self._transport.close()

    def fail(self, failure: Failure) -> None:
        """End it, and tell the call why."""
        call, self._call = self._call, None
        self._transport.abort()
        if call is not None:
            call.connection = None
            if failure is Failure.CONNECTION and self.calls > 1 and not self._heard and call.repeatable:
                self._owner.again(call)
            else:
                call.failed(failure)

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        if self._call is None:
            return
        if exc is None and (self._tunnel or (self._to_the_end and self._in_body and self._told_end)):
            self._whole, self._keep = True, False
            self._done()
        else:
            self.fail(Failure.CONNECTION)

    def eof_received(self) -> bool:
        # Not called for the end of TCP below TLS, which anybody on the way can make (RFC 9112 section 9.8).
        self._told_end = True
        return False

    def data_received(self, data: bytes) -> None:
        call = self._call
        if call is None:
            self._transport.abort()  # nobody asked
            return
        owner, first = self._owner, self.request_sent and not (self._heard or self._paused or call.headless)
        if first and (answer := owner.answers.read(data)) is not None:
            # Nothing of it is left here.
            self._call = call.connection = self.deadline = None
            if not self._reading:
                self.read(True)
            owner.free(self)
            call.answered_whole(answer)
            return
        self._heard = True
        if self._tunnel:
            call.tunnelled(data)
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._switch(call, data[offer.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._whole:
                self.fail(Failure.PROTOCOL)
                return
            self._broken = True
        if self._head_bytes > LARGEST_HEAD and not self._whole:
            self.fail(Failure.PROTOCOL)
            return
        if self._status == 101:
            self.fail(Failure.PROTOCOL)  # the parser has seen no switch in it
            return
        call.flush()
        if self._whole:
            if call.headless and not data.endswith(b"\r\n\r\n"):
                self._broken = True  # a body where none may be
            self._done()

    def pause_writing(self) -> None:
        self._paused = True
        if self._call is not None:
            self._call.pause()

    def resume_writing(self) -> None:
        self._paused = False
        if self._call is not None:
            self._call.resume()

    # The parser's calls.

    def on_message_begin(self) -> None:
        if self._whole:
            raise ValueError  # a second answer

    def on_chunk_header(self) -> None:
        if self._whole:
            raise ValueError

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        call, headers = self._call, self._headers
        self._headers = []
        if call is None or self._whole or len(headers) > MOST_HEADERS:
            raise ValueError
        if self._head_bytes > LARGEST_HEAD and sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD:
            raise ValueError
        status = self._status = self._parser.get_status_code()
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0") or not 100 <= status <= 599:
            raise ValueError
        if status == 101:
            self._headers = headers  # told once it is clear that the parser has understood them
            return
        if 100 <= status < 200:
            self._in_body = False
            if status != 100:
                call.interim(Head(status, headers, 0, hops_of(headers)))
            return
        special = [header for header in headers if header[0] in _SPECIAL]
        length, chunked, dated = _framing(special)
        hops = hops_of(special)
        self._in_body, self._head_bytes = True, 0
        if call.headless or status in (204, 304):
            self._whole = True
        elif length is None and not chunked:
            self._to_the_end = True
        self._keep = self._parser.should_keep_alive() or (self._whole and version == "1.1" and b"close" not in hops)
        call.answered(Head(status, headers, length, hops, dated))

    def on_body(self, data: bytes) -> None:
        if self._whole:
            raise ValueError  # to HEAD, or behind 204 or 304
        self._head_bytes = 0
        if self._call is not None:
            self._call.body(data)

    def on_message_complete(self) -> None:
        if self._status == 101:
            return
        if 100 <= self._status < 200:
            self._head_bytes = 0
        else:
            self._whole = True

    def _switch(self, call: Call, rest: bytes) -> None:
        self._tunnel = True
        headers, self._headers = self._headers, []
        call.switched(Head(101, headers, 0, hops_of(headers)))
        if rest and self._call is not None:
            call.tunnelled(rest)

    def _done(self) -> None:
        call, self._call = self._call, None
        trailers = self._headers
        fit = self._keep and self.request_sent and not (self._broken or self._paused or self._transport.is_closing())
        self.deadline = None
        if call is None:
            return
        call.connection = None
        if fit:
            if call.headless:
                # The parser still waits for a body that cannot come (RFC 9112 section 6.3).
                self._parser = httptools.HttpResponseParser(self)
            self._reset()
            self.read(True)
            self._owner.free(self)
        else:
            self._transport.abort()
        call.finished(trailers)


class Owner:
    """What a connection needs of its pool."""

    answers: WholeAnswers

    def free(self, connection: ClientConnection) -> None:
        """It can take another call."""
        raise NotImplementedError

    def lost(self, connection: ClientConnection) -> None:
        """It has ended."""
        raise NotImplementedError

    def again(self, call: Call) -> None:
        """Send `call` by a new connection: the kept one was dead."""
        raise NotImplementedError


def _framing(special: Sequence[Header]) -> tuple[int | None, bool, bool]:
    """Length, whether chunks follow, and whether the answer is dated.

    Raises:
        ValueError: the answer could be read in two ways.
    """
    length, chunked, dated = b"", False, False
    for name, value in special:
        if name == b"content-length":
            if length or not value.strip(b" \t").isdigit():
                raise ValueError
            length = value
        elif name == b"transfer-encoding":
            if chunked or value.strip(b" \t").lower() != b"chunked":
                raise ValueError
            chunked = True
        elif name == b"date":
            dated = True
    if chunked and length:
        raise ValueError
    return (int(length) if length else None), chunked, dated
