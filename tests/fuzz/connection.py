"""A caller's connection: the same requests however the bytes are cut, and none that a strict reader does not see."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from protectedservice_server.bearer import Header, error
from protectedservice_server.http1.connection import ServerConnection
from protectedservice_server.http1.exchange import Exchange
from protectedservice_server.http1.server import HttpServer
from protectedservice_server.http1.ticker import Ticker

from ..conformance import smuggling
from . import reference


class Manner(IntEnum):
    """How the handler goes about a request."""

    AT_ONCE = 0  # answers as it sees the head, and wants no body
    AT_THE_END = 1  # takes the body, and answers behind it
    LATER = 2  # answers when nothing more comes in


_CONVERSATIONS: Final = (
    b"GET /a HTTP/1.1\r\n%(host)s\r\nPOST /b HTTP/1.1\r\n%(host)sContent-Length: 3\r\n\r\nabc"
    b"GET /c HTTP/1.1\r\n%(host)s\r\n",
    b"POST /a HTTP/1.1\r\n%(host)sTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    b"GET /b HTTP/1.1\r\n%(host)s\r\n",
    b"POST /a HTTP/1.1\r\n%(host)sConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab"
    b"GET /b HTTP/1.1\r\n%(host)s\r\n",
    b"\r\n\r\nGET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
    b"PUT /a HTTP/1.1\r\n%(host)sExpect: 100-continue\r\nContent-Length: 1\r\n\r\nxGET /b HTTP/1.1\r\n%(host)s\r\n",
)
SEEDS: Final = tuple(
    bytes([manner]) + smuggling.fill(data, b"Host: svc\r\n")
    for data in (*_CONVERSATIONS, *(case.data for case in smuggling.CORPUS))
    for manner in Manner
)
WORDS: Final = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"0", b"1", b"a", b"-", b"+", b";a=b",
    b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"HTTP/2.0", b"CONNECT svc:80 HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"Host: svc\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n", b"5\r\nhello\r\n", b"Connection: close\r\n", b"keep-alive", b"Connection: upgrade\r\n",
    b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n",
)  # fmt: skip


@dataclass
class Seen:
    """A request as the handler saw it; it receives its body."""

    exchange: Exchange
    body: bytes = b""
    complete: bool = False
    gone: bool = False
    answers: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more may be told of it."""
        return self.complete or self.gone

    def request_data(self, data: bytes) -> None:
        assert not self.over, "a body goes on behind its end"
        self.body += data

    def request_ended(self, trailers: Sequence[Header]) -> None:
        assert not self.over, "a request ended twice"
        self.complete = True
        if self.answers:
            self.exchange.answer(error(404, "not_found", "Nothing here"))

    def request_stalled(self) -> None:
        raise AssertionError("no time has passed")

    def caller_left(self) -> None:
        assert not self.gone, "the caller left twice"
        self.gone = True

    def caller_full(self) -> None:
        raise AssertionError("the caller reads everything")

    caller_drained = caller_full

    def caller_sent(self, data: bytes) -> None:
        raise AssertionError("nobody switched protocols")

    @property
    def head(self) -> tuple[bytes, bytes, tuple[Header, ...]]:
        """As `reference` has it."""
        headers = tuple((name, value.strip(b" \t")) for name, value in self.exchange.headers)
        return self.exchange.method.encode("ascii"), self.exchange.target, headers


@dataclass
class Wire(asyncio.Transport):
    """A transport without a network: it obeys `pause_reading`, and remembers what was written."""

    coming: list[bytes]
    written: bytes = b""
    paused: bool = False
    closing: bool = False
    ended: bool = False
    written_late: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        # Noted, not raised: the server would take it for a bug of its handler.
        self.written_late = self.written_late or self.closing or self.ended
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close


@dataclass
class Reading:
    """What became of the bytes, cut in one way."""

    manner: Manner
    seen: list[Seen] = field(default_factory=list)
    over: bool = False
    """Whether the server ended the connection."""
    statuses: tuple[bytes, ...] = ()

    def handle(self, exchange: Exchange) -> None:
        seen = Seen(exchange)
        self.seen.append(seen)
        if self.manner is Manner.AT_ONCE:
            exchange.answer(error(404, "not_found", "Nothing here"))
        elif self.manner is Manner.AT_THE_END:
            seen.answers = True
            exchange.watch(seen)
            exchange.accept_body()
        else:
            exchange.watch(seen)

    def run(self, pieces: list[bytes]) -> None:
        """Feed `pieces`, until nothing moves any more."""
        server = HttpServer(self.handle, ticker=Ticker())
        connection, wire = ServerConnection(server), Wire(list(pieces))
        connection.connection_made(wire)
        answered = 0
        while True:
            while wire.coming and not (wire.paused or wire.closing):
                connection.data_received(wire.coming.pop(0))
            if self.manner is not Manner.LATER or wire.closing or answered == len(self.seen):
                break
            late = self.seen[answered]
            if not late.over:
                late.exchange.accept_body()
                while wire.coming and not (wire.paused or wire.closing):
                    connection.data_received(wire.coming.pop(0))
            if not late.over:
                break  # the rest of its body never comes
            late.exchange.answer(error(404, "not_found", "Nothing here"))
            answered += 1
        self.over = wire.closing or wire.ended
        assert self.over or not wire.coming, "what was sent is not taken, and the connection goes on"
        self.statuses = tuple(line[9:12] for line in wire.written.split(b"\r\n") if line.startswith(b"HTTP/1.1 "))
        assert not wire.written_late, "written behind the end"
        assert b"500" not in self.statuses, "the server failed"
        connection.connection_lost(None)
        assert server.open == 0
        assert server.backlog.bytes == 0, "something is counted for a connection that has ended"


def check(data: bytes) -> None:
    """The first byte says how the handler goes about requests, the others are what a caller sends."""
    if not data:
        return
    manner, data = Manner(data[0] % 3), data[1:]
    expected = reference.read(data)
    whole = _read(manner, [data])
    _check_against(whole, expected)
    for pieces in _cuts(data):
        other = _read(manner, pieces)
        _check_against(other, expected)
        _check_same(whole, other)


def _read(manner: Manner, pieces: list[bytes]) -> Reading:
    reading = Reading(manner)
    reading.run([piece for piece in pieces if piece])
    return reading


def _cuts(data: bytes) -> list[list[bytes]]:
    """Some ways to cut `data`; always the same for the same data."""
    chance = random.Random(zlib.crc32(data))  # noqa: S311 no secret
    places = sorted({chance.randrange(len(data) + 1) for _ in range(chance.choice((1, 2, 8)))})
    cuts = [[data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]]
    if len(data) <= 512:
        cuts.append([bytes([byte]) for byte in data])
    return cuts


def _check_against(reading: Reading, expected: list[reference.Request]) -> None:
    assert len(reading.seen) <= len(expected), "a request that no strict reader sees"
    for seen, request in zip(reading.seen, expected, strict=False):
        assert seen.head == (request.method, request.target, request.headers), "a head was read otherwise"
        if reading.manner is Manner.AT_ONCE:
            continue
        assert request.body.startswith(seen.body), "a body was read otherwise"
        assert not seen.complete or (request.complete and seen.body == request.body), "a body ended elsewhere"
    if not reading.over:  # what is refused is told; what is not refused is not lost
        assert len(reading.seen) == len(expected), "a request was passed over in silence"
        if reading.manner is not Manner.AT_ONCE:
            assert [seen.complete for seen in reading.seen] == [request.complete for request in expected]
        assert not any(request.last and request.complete for request in expected), (
            "the connection goes on behind its last request"
        )


def _check_same(one: Reading, other: Reading) -> None:
    assert [seen.head for seen in one.seen] == [seen.head for seen in other.seen], "how bytes are cut changes requests"
    assert [(seen.complete, seen.body if seen.complete else b"") for seen in one.seen] == [
        (seen.complete, seen.body if seen.complete else b"") for seen in other.seen
    ], "how bytes are cut changes bodies"
    assert (one.over, one.statuses) == (other.over, other.statuses), "how bytes are cut changes answers"
