"""The short way: whatever it takes is read as the long way reads it, and it takes nothing that is not the usual."""

from __future__ import annotations

import tracemalloc
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protectedservice_server.bearer import Answer
from protectedservice_server.http1 import heads
from protectedservice_server.http1.connection import ServerConnection
from protectedservice_server.http1.exchange import Exchange
from protectedservice_server.http1.heads import LONGEST, NO_LAYOUT, Layout, WholeHeads, layout_of
from protectedservice_server.http1.server import HttpServer
from protectedservice_server.http1.ticker import Ticker

USUAL = b"GET /orders?x=1 HTTP/1.1\r\nHost: orders\r\nAuthorization: Bearer abc\r\nAccept: */*\r\n\r\n"


class Caller:
    """A connection as far as it matters here."""

    def __init__(self) -> None:
        self.layout = NO_LAYOUT


def read(heads: WholeHeads, data: bytes, caller: Caller | None = None) -> Exchange | None:
    return heads.read(cast(ServerConnection, caller or Caller()), data)


def test_a_usual_head_is_read() -> None:
    exchange = read(WholeHeads(), USUAL)

    assert exchange is not None
    assert (exchange.method, exchange.target, exchange.host) == ("GET", b"/orders?x=1", b"orders")
    assert exchange.authorization == (b"Bearer abc",)
    assert exchange.headers == [(b"host", b"orders"), (b"authorization", b"Bearer abc"), (b"accept", b"*/*")]
    assert (exchange.received, exchange.length, exchange.keep_alive, exchange.hops) == (True, 0, True, frozenset())


@pytest.mark.parametrize("value", [b"keep-alive", b"Keep-Alive"])
def test_a_connection_that_is_asked_to_stay_stays(value: bytes) -> None:
    exchange = read(WholeHeads(), USUAL.replace(b"Accept: */*", b"Connection: " + value))

    assert exchange is not None
    assert exchange.keep_alive
    assert exchange.hops == {b"keep-alive"}


UNUSUAL = {
    "a part of a head": USUAL[:-1],
    "two requests": USUAL + USUAL,
    "a request and a part of another": USUAL + b"GET / HTTP/1.1\r\nHost: orders\r\n",
    "a request and the head of one with a body": USUAL
    + b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 4\r\n\r\n",
    "bytes before it": b"\r\n" + USUAL,
    "a body that ends like a head": b"GET / HTTP/1.1\r\nHost: orders\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
    "a body to come": USUAL.replace(b"Accept: */*", b"Content-Length: 4"),
    "no body, said aloud": USUAL.replace(b"Accept: */*", b"Content-Length: 0"),
    "chunks to come": USUAL.replace(b"Accept: */*", b"Transfer-Encoding: chunked"),
    "an offer": USUAL.replace(b"Accept: */*", b"Connection: upgrade\r\nUpgrade: websocket"),
    "an offer that Connection does not name": USUAL.replace(b"Accept: */*", b"Upgrade: websocket"),
    "an expectation": USUAL.replace(b"Accept: */*", b"Expect: 100-continue"),
    "a connection to be closed": USUAL.replace(b"Accept: */*", b"Connection: close"),
    "a header for this hop only": USUAL.replace(b"Accept: */*", b"Connection: accept"),
    "two hosts": USUAL.replace(b"Accept: */*", b"Host: orders"),
    "two hosts in other letters": USUAL.replace(b"Accept: */*", b"HOST: others"),
    "no host": USUAL.replace(b"Host", b"Hose"),
    "a host with a path": USUAL.replace(b"orders\r\n", b"orders/x\r\n", 1),
    "two tokens": USUAL.replace(b"Accept: */*", b"Authorization: Bearer def"),
    "two tokens in other letters": USUAL.replace(b"Accept: */*", b"authorization: Bearer def"),
    "another header twice": USUAL.replace(b"Accept: */*", b"Accept: a\r\nAccept: b"),
    "a folded line": USUAL.replace(b"*/*", b"*/*\r\n folded"),
    "no space behind a colon": USUAL.replace(b"Accept: ", b"Accept:"),
    "a bare line feed": USUAL.replace(b"*/*\r\n", b"*/*\n"),
    "a bare carriage return": USUAL.replace(b"*/*", b"*/*\rX: y"),
    "HTTP/1.0": USUAL.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/1.2": USUAL.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "RTSP": USUAL.replace(b"HTTP/1.1", b"RTSP/1.0"),
    "two spaces in the line": USUAL.replace(b"GET ", b"GET  "),
    "another method": USUAL.replace(b"GET", b"GETS"),
    "a method with a body as a rule": USUAL.replace(b"GET", b"POST"),
    "two hosts, as long as nine missing spaces": USUAL.replace(
        b"Accept: */*", b"Host: b\r\n" + b"\r\n".join(b"X-%d:y" % number for number in range(9))
    ),
    "two tokens, as long as missing spaces": USUAL.replace(
        b"Accept: */*",
        b"Authorization: Bearer def\r\n" + b"\r\n".join(b"X-%d:y" % number for number in range(27)),
    ),
    "an empty line behind it, as long as missing spaces": USUAL.replace(b"Accept: */*", b"X:y\r\nZ:y") + b"\r\n",
    "a connection to a proxy to be closed": USUAL.replace(b"Accept: */*", b"Proxy-Connection: close"),
    "a long one": USUAL.replace(b"*/*", b"a" * LONGEST),
    "many headers": USUAL.replace(b"Accept: */*", b"\r\n".join(b"X-%d: y" % number for number in range(60))),
    "nothing": b"",
    "an empty line": b"\r\n\r\n",
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_unusual_is_not_taken_and_what_comes_next_is_read_afresh(data: bytes) -> None:
    whole, caller = WholeHeads(), Caller()
    read(whole, USUAL, caller)

    assert read(whole, data, caller) is None

    exchange = read(whole, USUAL, caller)
    assert exchange is not None
    assert exchange.authorization == (b"Bearer abc",)
    assert len(exchange.headers) == 3


def test_a_name_may_hold_any_sign_that_names_may() -> None:
    exchange = read(WholeHeads(), USUAL.replace(b"Accept: */*", b"X-%b%%-'*: %b %%"))

    assert exchange is not None
    assert exchange.headers[-1] == (b"x-%b%%-'*", b"%b %%")


def test_nothing_is_left_of_a_head_whose_reading_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = WholeHeads()

    def fail(names: tuple[bytes, ...]) -> Layout:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(heads, "layout_of", fail)
        with pytest.raises(MemoryError):
            read(whole, USUAL.replace(b"Accept", b"Never-Seen-Before"))
    later = [read(whole, USUAL.replace(b"abc", b"def")) for _ in range(2)]

    assert [exchange and exchange.authorization for exchange in later] == [None, (b"Bearer def",)]


def test_heads_of_many_names_take_little_memory() -> None:
    """What callers can have kept for the names they make up is bounded, in bytes as well as in number."""
    whole = WholeHeads()
    tracemalloc.start()
    try:
        for number in range(600):
            names = b"".join(b"%x-%x: \r\n" % (number, at) for at in range(700))
            assert read(whole, b"GET / HTTP/1.1\r\nHost: a\r\n" + names + b"\r\n") is None
            for filling in (33, 140):
                names = b"".join(b"%03x-%02x%b: \r\n" % (number, at, b"n" * filling) for at in range(49))
                assert read(whole, b"GET / HTTP/1.1\r\nHost: a\r\n" + names + b"\r\n") is not None
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 1024 * 1024 < held < 4 * 1024 * 1024


def test_a_long_head_of_short_names_has_the_same_layout_each_time() -> None:
    """Else what is worked out for a layout would be worked out anew, and kept, for each such request."""
    assert layout_of((b"Host", b"Cookie")) is layout_of((b"Host", b"Cookie"))
    for unusual in (tuple(b"x-%d-%b" % (at, b"n" * 100) for at in range(40)), tuple(b"x%d" % at for at in range(51))):
        assert layout_of(unusual) is not layout_of(unusual)
        assert not layout_of(unusual).lasting


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.sent = b""
        self.over = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.over

    def close(self) -> None:
        self.over = True

    abort = write_eof = close

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Nothing(WholeHeads):
    """Takes no head the short way."""

    def read(self, connection: ServerConnection, data: bytes) -> None:
        return None


def told(data: bytes, whole: WholeHeads) -> tuple[list[tuple[object, ...]], bytes]:
    """What a handler sees of a connection that brings `data`, and what is answered."""
    seen: list[tuple[object, ...]] = []

    def handle(exchange: Exchange) -> Answer:
        seen.append(
            (
                *(exchange.method, exchange.target, exchange.headers, tuple(exchange.authorization)),
                *(exchange.host.strip(), exchange.length, exchange.http10, exchange.keep_alive, exchange.hops),
            )
        )
        return Answer(200, (), b"")

    server = HttpServer(handle, ticker=Ticker())
    server.heads = whole
    connection, wire = ServerConnection(server), Wire()
    connection.connection_made(cast(Any, wire))
    if data:
        connection.data_received(data)
    return seen, wire.sent


WORDS = [
    b"GET",
    b"HEAD",
    b"DELETE",
    b"POST",
    b" ",
    b"/",
    b"/a?b",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"\r\n",
    b"\n",
    b": ",
]
LINES = [b"Host: a\r\n", b"host: b\r\n", b"Authorization: Bearer x\r\n", b"Connection: keep-alive\r\n", b"X:\r\n"]
LINES += [b"X: y \r\n", b"Connection: close\r\n", b"Content-Length: 0\r\n", b"Content-Length: 2\r\n"]
LINES += [b"Transfer-Encoding: chunked\r\n", b"Upgrade: websocket\r\n", b"\r\n"]
LINES += [b"Proxy-Connection: close\r\n", b"a:\r\nb:\r\n", b"c:\r\nd:\r\ne:\r\nf:\r\ng:\r\n", b"Z:  y\r\n"]
pieces = st.sampled_from(WORDS + LINES)
heads_ = st.builds(
    lambda method, line, headers: method + b" /a" + line + b"".join(headers) + b"\r\n",
    st.sampled_from([b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST"]),
    st.sampled_from([b" HTTP/1.1\r\n", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"]),
    st.lists(st.sampled_from(LINES), max_size=5),
)


@settings(max_examples=400)
@given(st.one_of(heads_, st.lists(heads_, max_size=3).map(b"".join), st.lists(pieces, max_size=8).map(b"".join)))
def test_the_short_way_and_the_long_way_see_the_same(data: bytes) -> None:
    assert told(data, WholeHeads()) == told(data, Nothing())


@settings(max_examples=400)
@given(st.lists(heads_, min_size=2, max_size=4))
def test_what_a_caller_sent_before_changes_nothing_about_what_is_read(sent: list[bytes]) -> None:
    whole, caller = WholeHeads(), Caller()

    def seen(exchange: Exchange | None) -> object:
        return exchange and (exchange.method, exchange.headers, exchange.authorization, exchange.host, exchange.hops)

    assert [seen(read(whole, data, caller)) for data in sent] == [seen(read(WholeHeads(), data)) for data in sent]


def test_a_handler_that_has_answered_and_returns_an_answer_too_is_heard_once() -> None:
    def handle(exchange: Exchange) -> Answer:
        exchange.answer(Answer(200, (), b"first"))
        return Answer(200, (), b"second")

    server = HttpServer(handle, ticker=Ticker())
    connection, wire = ServerConnection(server), Wire()
    connection.connection_made(cast(Any, wire))
    connection.data_received(USUAL)

    assert wire.sent.endswith(b"first")
    assert not connection.busy
