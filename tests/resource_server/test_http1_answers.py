"""The short way for answers: it reads what the long way reads, and takes nothing that is not the usual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protectedservice_server.bearer import Header
from protectedservice_server.http1.answers import LARGEST, WholeAnswers
from protectedservice_server.http1.client import Call, ClientConnection, Failure, Head, Owner

USUAL = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


def test_a_usual_answer_is_read() -> None:
    answer = WholeAnswers().read(USUAL)

    assert answer is not None
    assert (answer.status, answer.body, answer.layout.dated) == (200, b"hello", True)
    assert answer.passed_on(b"HTTP/1.1 200 OK\r\n", b"") == USUAL
    assert answer.passed_on(b"", b"x: y\r\n").endswith(b"\r\nContent-Length: 5\r\nx: y\r\n\r\nhello")


def test_a_connection_that_stays_is_not_told_to_the_caller() -> None:
    answer = WholeAnswers().read(USUAL.replace(b"Date: now", b"Connection: keep-alive\r\nKeep-Alive: timeout=5"))

    assert answer is not None
    assert answer.passed_on(b"", b"") == b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


def test_an_answer_may_be_empty() -> None:
    answer = WholeAnswers().read(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    assert answer is not None
    assert (answer.status, answer.body, answer.layout.dated) == (503, b"", False)


UNUSUAL = {
    "a part of a head": USUAL[:30],
    "a part of a body": USUAL[:-1],
    "more than a body": USUAL + b"!",
    "two answers": USUAL + USUAL,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "two lengths": USUAL.replace(b"Date: now", b"Content-Length: 5"),
    "a length in other digits": USUAL.replace(b"Length: 5", b"Length: 05"),
    "a length and chunks": USUAL.replace(b"Date: now", b"Transfer-Encoding: chunked"),
    "a header twice": USUAL.replace(b"Date: now", b"Set-Cookie: a\r\nSet-Cookie: b"),
    "a folded line": USUAL.replace(b"now", b"now\r\n folded"),
    "a connection that ends": USUAL.replace(b"Date: now", b"Connection: close"),
    "a header for this hop only": USUAL.replace(b"Date: now", b"Connection: x-inner\r\nX-Inner: y"),
    "HTTP/1.0": USUAL.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "an interim answer": b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n",
    "a switch": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "205 with a length": b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n",
    "a status beyond all": b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
    "an empty line behind it, as long as missing spaces": b"HTTP/1.1 200 OK\r\nA:1\r\nContent-Length:5\r\n\r\n"
    b"hello\r\n",
    "a header twice, as long as missing spaces": b"HTTP/1.1 200 OK\r\nA: 1\r\nA: 2\r\n"
    + b"".join(b"X-%d:y\r\n" % number for number in range(6))
    + b"Content-Length: 5\r\n\r\nhello",
    "no space behind the status, as long as one more elsewhere": b"HTTP/1.1 200\r\nA:  1\r\nContent-Length: 0\r\n\r\n",
    "a connection that stays, without a space": b"HTTP/1.1 200 OK\r\nA:  1\r\nConnection:keep-alive\r\n"
    b"Content-Length: 5\r\n\r\nhello",
    "a connection to a proxy that ends": USUAL.replace(b"Date: now", b"Proxy-Connection: close"),
    "many headers": USUAL.replace(b"Date: now", b"\r\n".join(b"X-%d: y" % number for number in range(120))),
    "a large one": USUAL.replace(b"now", b"n" * LARGEST),
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_unusual_is_not_taken_and_later_ones_are_read_afresh(data: bytes) -> None:
    answers = WholeAnswers()
    answers.read(USUAL)

    assert answers.read(data) is None

    later = [answer for answer in (answers.read(USUAL) for _ in range(40)) if answer is not None]
    assert later
    assert {(answer.body, len(answer.values)) for answer in later} == {(b"hello", 3)}


class Wire:
    def __init__(self) -> None:
        self.over = False

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return self.over

    def close(self) -> None:
        self.over = True

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Heard(Call):
    """Remembers what it is told, body pieces joined."""

    head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"

    def __init__(self) -> None:
        self.events: list[object] = []

    def sent(self) -> None:
        assert self.connection is not None
        self.connection.request_sent = True

    def answered(self, head: Head) -> None:
        self.events.append((head.status, head.headers, head.length, head.dated))

    def interim(self, head: Head) -> None:
        self.events.append((head.status, head.headers))

    def body(self, data: bytes) -> None:
        if data:
            self.events.append(data)

    def finished(self, trailers: Sequence[Header]) -> None:
        self.events.append("finished")

    def failed(self, failure: Failure) -> None:
        self.events.append(failure)


class Nothing(WholeAnswers):
    """Takes no answer the short way."""

    def read(self, data: bytes) -> None:
        return None


class Pool(Owner):
    def __init__(self, answers: WholeAnswers) -> None:
        self.answers = answers
        self.freed = 0

    def free(self, connection: ClientConnection) -> None:
        self.freed += 1

    def lost(self, connection: ClientConnection) -> None:
        pass

    def again(self, call: Call) -> None:
        raise AssertionError


def told(data: bytes, answers: WholeAnswers) -> object:
    pool, wire, call = Pool(answers), Wire(), Heard()
    connection = ClientConnection(pool)
    connection.connection_made(cast(Any, wire))
    connection.begin(call, 0.0)
    connection.data_received(data)
    return call.events, pool.freed, wire.over


LINES = [
    b"Content-Length: 0\r\n",
    b"Content-Length: 2\r\n",
    b"content-length: 2\r\n",
    b"Date: x\r\n",
    b"X: y\r\n",
    b"X:\r\n",
    b"a:\r\nb:\r\n",
    b"c:\r\nd:\r\ne:\r\nf:\r\ng:\r\n",
    b"Connection:keep-alive\r\n",
    b"Proxy-Connection: close\r\n",
    b"Z:  y\r\n",
]
LINES += [
    b"Connection: keep-alive\r\n",
    b"Connection: close\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Trailer: x\r\n",
    b"X: y \r\n",
]
answers_ = st.builds(
    lambda line, headers, body: line + b"".join(headers) + b"\r\n" + body,
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 \r\n",
            b"HTTP/1.1 200\r\n",
            b"HTTP/1.0 200 OK\r\n",
            b"HTTP/1.1 204 No\r\n",
            b"HTTP/1.1 103 E\r\n",
        ]
    ),
    st.lists(st.sampled_from(LINES), max_size=5),
    st.sampled_from([b"", b"ab", b"ab\r\n", b"abc", b"2\r\nab\r\n0\r\n\r\n", USUAL]),
)


@settings(max_examples=400)
@given(answers_)
def test_the_short_way_and_the_long_way_tell_the_same(data: bytes) -> None:
    assert told(data, WholeAnswers()) == told(data, Nothing())


@pytest.mark.parametrize("line", [b"Connection: keep-alive", b"connection: Keep-Alive"])
def test_the_line_that_does_not_pass_is_cut_and_nothing_that_looks_like_it(line: bytes) -> None:
    data = USUAL.replace(b"Date: now", b"X-" + line + b"\r\n" + line + b"\r\nY: " + line)

    answer = WholeAnswers().read(data)

    assert answer is not None
    passed = answer.passed_on(b"HTTP/1.1 200 OK\r\n", b"")
    assert passed == data.replace(b"\r\n" + line + b"\r\n", b"\r\n", 1)
    assert passed.count(line) == 2


def test_a_name_may_hold_any_sign_that_names_may() -> None:
    data = USUAL.replace(b"Date: now", b"X-%b%%: %b %%\r\nKeep-Alive: %b")

    answer = WholeAnswers().read(data)

    assert answer is not None
    assert answer.passed_on(b"HTTP/1.1 200 OK\r\n", b"") == data.replace(b"Keep-Alive: %b\r\n", b"")
