"""The front's own bounds: what it waits for and how long, what it holds, how it ends. Time is an argument."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import ssl
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from protectedservice_server.bearer import Answer, Header
from protectedservice_server.certificate import CertificateError, ServiceCertificate
from protectedservice_server.http1.backlog import Backlog
from protectedservice_server.http1.connection import ServerConnection
from protectedservice_server.http1.exchange import Exchange
from protectedservice_server.http1.heads import WholeHeads
from protectedservice_server.http1.limits import Limits
from protectedservice_server.http1.server import HttpServer
from protectedservice_server.http1.ticker import Ticker

from ..support.certificates import Authority
from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer
from .running import behind, service
from .wire import ask, head, reply


class Ticks:
    """A clock in the test's hand."""

    now = 1000.0
    date = b"Thu, 01 Jan 1970 00:00:00 GMT"


class Wire(asyncio.Transport):
    """A transport that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.closed = False
        self.aborted = False
        self.unsent = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.written += b"<EOF>"

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


@dataclass
class Front:
    """A connection without a network, and what reached its handler."""

    limits: Limits
    room: bool = True

    def __post_init__(self) -> None:
        self.ticker = Ticks()
        self.exchanges: list[Exchange] = []
        self.refusals = self.overloads = 0
        self.draining = self.secure = False
        self.handler = self.exchanges.append
        self.wire = Wire()
        self.heads = WholeHeads()
        self.backlog = Backlog(self.limits.backlog_bytes, self.limits.backlog_share)
        self.connection = ServerConnection(self)  # type: ignore[arg-type]
        self.connection.connection_made(self.wire)

    def opened(self, connection: ServerConnection) -> bool:
        return self.room

    def closed(self, connection: ServerConnection) -> None:
        pass

    def refused(self) -> None:
        self.refusals += 1

    def overloaded(self) -> None:
        self.overloads += 1

    def receive(self, data: bytes) -> None:
        self.connection.data_received(data)

    def advance(self, seconds: float) -> None:
        self.ticker.now += seconds
        self.connection.sweep(self.ticker.now)


class Taker:
    """Takes a body and remembers."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def request_data(self, data: bytes) -> None:
        self.told.append(data)

    def request_ended(self, trailers: Sequence[Header]) -> None:
        self.told.append("ended")

    def request_stalled(self) -> None:
        self.told.append("stalled")

    def caller_left(self) -> None:
        self.told.append("left")

    def caller_full(self) -> None:
        self.told.append("full")

    def caller_drained(self) -> None:
        self.told.append("drained")

    def caller_sent(self, data: bytes) -> None:
        self.told.append(("tunnel", data))


GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
FINE = Answer(200, (), b"fine")


def test_a_head_that_does_not_end_in_time_is_408() -> None:
    front = Front(Limits(head_seconds=20))
    front.receive(b"GET / HT")
    front.advance(19)
    front.receive(b"TP/1.1\r\nX: ")  # drip by drip gains nothing
    front.advance(2)

    assert front.wire.written.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close\r\n" in front.wire.written
    assert front.exchanges == []
    assert front.refusals == 1


def test_a_connection_on_which_nothing_is_asked_is_closed_sooner_than_one_that_has_been_used() -> None:
    new, used = Front(Limits(head_seconds=20, idle_seconds=75)), Front(Limits(head_seconds=20, idle_seconds=75))
    used.receive(GET % 1)
    used.exchanges[0].answer(FINE)
    for front in (new, used):
        front.advance(21)
    closed = [new.wire.closed, used.wire.closed]
    used.advance(60)

    assert closed == [True, False]
    assert used.wire.closed


def test_empty_lines_before_a_request_do_not_keep_a_connection() -> None:
    front = Front(Limits(head_seconds=20))
    for _ in range(5):
        front.receive(b"\r\n\r\n")
        front.advance(5)

    assert front.wire.closed


def test_a_body_may_pause_for_so_long_and_no_longer() -> None:
    front, taker = Front(Limits(body_seconds=60)), Taker()
    front.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
    front.exchanges[0].watch(taker)
    front.exchanges[0].accept_body()
    front.advance(59)
    front.receive(b"b")
    front.advance(59)
    front.advance(2)

    assert taker.told == [b"a", b"b", "stalled"]


def test_nobody_hurries_a_caller_whose_body_is_not_taken() -> None:
    front, taker = Front(Limits(body_seconds=60)), Taker()
    front.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
    front.exchanges[0].watch(taker)
    front.exchanges[0].accept_body()
    front.exchanges[0].pause_body()
    front.receive(b"bc")
    front.advance(1000)
    paused = list(taker.told)
    front.exchanges[0].resume_body()

    assert paused == [b"a"]
    assert taker.told == [b"a", b"bc", "ended"]


def test_an_answer_that_nobody_reads_ends_the_connection() -> None:
    front, taker = Front(Limits(stall_seconds=60)), Taker()
    front.receive(GET % 1)
    front.exchanges[0].watch(taker)
    front.connection.pause_writing()
    front.advance(59)
    front.connection.resume_writing()
    front.connection.pause_writing()
    front.advance(59)
    before = front.wire.aborted
    front.advance(2)

    assert (before, front.wire.aborted) == (False, True)
    assert taker.told == ["full", "drained", "full"]


def test_requests_wait_for_the_answer_of_the_one_in_front_and_are_not_even_parsed() -> None:
    front = Front(Limits())
    front.receive(GET % 1 + GET % 2 + b"no HTTP at all\r\n\r\n")
    targets = [exchange.target for exchange in front.exchanges]
    reading = front.wire.reading
    front.exchanges[0].answer(Answer(200, (), b"one"))
    front.exchanges[1].answer(Answer(200, (), b"two"))

    assert (targets, reading) == ([b"/1"], False)
    assert [exchange.target for exchange in front.exchanges] == [b"/1", b"/2"]
    assert re.findall(rb"HTTP/1.1 (\d\d\d)", front.wire.written) == [b"200", b"200", b"400"]
    assert front.wire.written.index(b"one") < front.wire.written.index(b"two")


def test_a_caller_that_leaves_is_told_to_whoever_works_for_it_and_answers_are_dropped() -> None:
    front, taker = Front(Limits()), Taker()
    front.receive(GET % 1)
    front.exchanges[0].watch(taker)
    front.connection.connection_lost(None)
    front.exchanges[0].answer(FINE)

    assert taker.told == ["left"]
    assert front.wire.written == b""


def test_a_body_that_nobody_wants_is_dropped_and_the_connection_kept_up_to_a_bound() -> None:
    small, large = Front(Limits(unwanted_bytes=10)), Front(Limits(unwanted_bytes=10))
    post = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    for front in (small, large):
        front.receive(post)
        front.exchanges[0].answer(FINE)
    small.receive(b"5\r\nhello\r\n0\r\n\r\n" + GET % 2)
    large.receive(b"B\r\nhello world\r\n")
    large.receive(b"0\r\n\r\n" + GET % 2)

    assert [len(front.exchanges) for front in (small, large)] == [2, 1]
    assert large.wire.written.endswith(b"<EOF>")


def test_a_large_body_that_nobody_wants_ends_its_connection_at_once() -> None:
    front = Front(Limits(unwanted_bytes=10))
    front.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
    front.exchanges[0].answer(FINE)

    assert b"connection: close\r\n" in front.wire.written
    assert front.wire.written.endswith(b"<EOF>")


def test_after_a_last_answer_the_caller_gets_a_moment_to_read_it_and_then_the_end() -> None:
    front = Front(Limits(linger_seconds=2))
    front.receive(b"nonsense\r\n\r\n")
    front.receive(b"and more" * 100)
    front.advance(1)
    before = front.wire.closed
    front.advance(2)

    assert front.wire.written.startswith(b"HTTP/1.1 400 ")
    assert (before, front.wire.aborted) == (False, True)


def test_one_connection_too_many_is_told_so() -> None:
    front = Front(Limits(), room=False)
    front.receive(GET % 1)

    assert front.wire.written.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in front.wire.written
    assert b'"error": "overloaded"' in front.wire.written
    assert front.exchanges == []
    assert front.overloads == 1


def test_a_body_that_nobody_wants_has_its_time_in_all_however_it_drips() -> None:
    front = Front(Limits(body_seconds=60))
    front.receive(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    front.exchanges[0].answer(Answer(401, (), b"no"))
    front.advance(50)
    front.receive(b"x")
    before = front.wire.written
    front.advance(15)

    assert not before.endswith(b"<EOF>")
    assert front.wire.written.endswith(b"<EOF>")


def test_a_place_goes_to_a_newcomer_where_nothing_is_lost_by_it() -> None:
    limits = Limits(body_seconds=60, linger_seconds=2)
    idle, answered, working, unsent, unread, lingering = [Front(limits) for _ in range(6)]
    for front in (answered, working):
        front.receive(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    answered.exchanges[0].answer(Answer(401, (), b"no"))
    unsent.wire.unsent = 9_000
    unread.connection.pause_writing()
    lingering.receive(b"no request\r\n\r\n")
    fronts = (idle, answered, working, unsent, unread, lingering)
    at_once = [front.connection.expendable for front in fronts]
    for front in fronts:
        front.ticker.now += 2.5

    assert at_once == [2, 2, 0, 1, 0, 0]
    assert [front.connection.expendable for front in fronts] == [2, 2, 0, 1, 1, 1]


def test_an_answer_that_is_still_being_read_is_the_last_to_go() -> None:
    server = HttpServer(lambda exchange: None, ticker=Ticker(), limits=Limits(connections=2))
    wires = [Wire() for _ in range(4)]
    wires[0].unsent = 9_000
    for wire in wires:
        ServerConnection(server).connection_made(wire)

    assert [wire.aborted for wire in wires] == [False, True, True, False]
    wires[3].unsent = 9_000
    ServerConnection(server).connection_made(Wire())
    assert wires[0].aborted  # rather than the newcomer
    assert server.overloads == 0


def test_no_answer_is_written_behind_a_last_one_though_the_account_is_full() -> None:
    front = Front(Limits(backlog_bytes=20_000, backlog_share=8_192))
    front.receive(b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n")
    exchange = front.exchanges[0]
    exchange.watch(Taker())
    front.receive(b"x" * 9_000)  # pipelined, and counted
    front.backlog.changes(0, 11_000)  # others fill the account
    front.connection._held += b"x"  # as TLS takes in more below, and nobody has looked yet
    exchange.write(exchange.start(200, [], None, dated=True) + b"body")
    exchange.finish()

    assert front.wire.written.endswith(b"body<EOF>")
    assert front.backlog.bytes == 11_000


def test_a_handler_that_fails_is_500_and_the_error_says_nothing_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    front = Front(Limits())

    def failing(exchange: Exchange) -> None:
        raise RuntimeError(exchange.target.decode())

    front.connection._handler = failing
    front.receive(b"GET /secret-in-the-path HTTP/1.1\r\nHost: a\r\n\r\n")

    assert front.wire.written.startswith(b"HTTP/1.1 500 ")
    assert "not foreseen" in caplog.text
    assert "secret-in-the-path" not in "".join(repr(record.__dict__) for record in caplog.records)


def test_http_1_0_is_kept_open_only_when_asked_for() -> None:
    plain, kept = Front(Limits()), Front(Limits())
    plain.receive(b"GET / HTTP/1.0\r\n\r\n")
    kept.receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    for front in (plain, kept):
        front.exchanges[0].answer(FINE)

    assert b"connection: close\r\n" in plain.wire.written
    assert plain.wire.written.endswith(b"<EOF>")
    assert b"connection: keep-alive\r\n" in kept.wire.written
    assert not kept.wire.written.endswith(b"<EOF>")


def test_while_draining_each_answer_is_the_last() -> None:
    front = Front(Limits())
    front.receive(GET % 1)
    front.draining = True
    front.exchanges[0].answer(FINE)

    assert b"connection: close\r\n" in front.wire.written


def test_a_silent_tunnel_ends() -> None:
    front, taker = Front(Limits(tunnel_seconds=100)), Taker()
    front.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x, h2c\r\n\r\n")
    exchange = front.exchanges[0]
    exchange.watch(taker)
    exchange.switch([(b"upgrade", b"x")])
    front.receive(b"one")
    front.advance(99)
    front.receive(b"two")
    front.advance(99)
    before = front.wire.aborted
    front.advance(2)

    assert exchange.upgrade == b"x"
    assert taker.told == [("tunnel", b"one"), ("tunnel", b"two")]
    assert (before, front.wire.aborted) == (False, True)


def certificate(authority: Authority, place: Path, version: int, host: str = "127.0.0.1") -> None:
    """A folder as a mounted Secret is one."""
    place.mkdir(exist_ok=True)
    for name, text in zip(("tls.crt", "tls.key"), authority.issue(host), strict=True):
        (place / name).write_text(text)
        os.utime(place / name, ns=(version, version))


async def test_https_is_served_and_a_changed_certificate_is_shown_to_the_next_caller(
    server: IntrospectionServer, tmp_path: Path
) -> None:
    old, new = Authority("Old"), Authority("New")
    certificate(old, tmp_path, 1)
    held = ServiceCertificate(tmp_path)
    async with EchoUpstream() as upstream, service(server, tls=held.context, **behind(upstream.url)) as proxy:
        token = server.issue()
        first = await https(proxy.port, old, token)
        certificate(new, tmp_path, 2)
        held.sweep(10.0)
        second = await https(proxy.port, new, token)
        with pytest.raises(ssl.SSLError):
            await https(proxy.port, old, token)
        (tmp_path / "tls.key").write_text("spoilt")
        held.sweep(20.0)
        third = await https(proxy.port, new, token)

    assert [first, second, third] == [200, 200, 200]
    assert upstream.seen[0].values("x-forwarded-proto") == ["https"]


async def https(port: int, authority: Authority, token: str) -> int:
    context = ssl.create_default_context(cadata=authority.pem)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(head("GET", "/x", token=token))
    answer = await reply(reader)
    writer.close()
    return answer.status


@pytest.mark.parametrize(("name", "fault"), [("tls.crt", "cannot be read"), ("tls.key", "cannot be read")])
def test_a_folder_without_both_files_is_told(tmp_path: Path, name: str, fault: str) -> None:
    certificate(Authority("Ours"), tmp_path, 1)
    (tmp_path / name).unlink()

    with pytest.raises(CertificateError) as caught:
        ServiceCertificate(tmp_path)

    assert f"{tmp_path / name}: {fault}" in caught.value.faults[0]


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    certificate(Authority("Ours"), tmp_path, 1)
    key = (tmp_path / "tls.key").read_bytes()
    certificate(Authority("Ours"), tmp_path, 1)
    (tmp_path / "tls.key").write_bytes(key)

    with pytest.raises(CertificateError, match="is not its unencrypted key"):
        ServiceCertificate(tmp_path)


async def test_asking_on_a_plain_port_costs_no_task(server: IntrospectionServer) -> None:
    async with service(server) as demo:
        token = server.issue()
        await ask(demo.port, "/protected", token=token)
        before = len(asyncio.all_tasks())
        reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
        writer.write(head("GET", "/protected", token=token) * 100)
        most = before
        for _ in range(100):
            await reply(reader)
            most = max(most, len(asyncio.all_tasks()))
        writer.close()

    assert most == before


def test_what_has_been_answered_leaves_nothing_to_the_garbage_collector() -> None:
    front, taker = Front(Limits()), Taker()
    front.receive(GET % 1)
    front.exchanges[0].watch(taker)
    taker.exchange = front.exchanges[0]  # type: ignore[attr-defined]
    front.exchanges[0].answer(FINE)
    gone = weakref.ref(taker)
    gc.disable()
    try:
        front.exchanges.clear()
        del taker
        assert gone() is None
    finally:
        gc.enable()


class FullWire(Wire):
    """A transport to a caller who reads nothing: from `most` bytes on it asks to be spared, as the real ones do."""

    def __init__(self, most: int = 64 * 1024) -> None:
        super().__init__()
        self.most = most
        self.paused: ServerConnection | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        if self.paused is not None and len(self.written) > self.most:
            connection, self.paused = self.paused, None
            connection.pause_writing()


def test_requests_of_a_caller_who_reads_no_answers_wait_and_the_answers_do_not_pile_up() -> None:
    front, wire = Front(Limits()), FullWire()
    front.wire = wire
    front.connection.connection_made(wire)
    wire.paused = front.connection

    def answering(exchange: Exchange) -> None:
        front.exchanges.append(exchange)
        exchange.answer(FINE)

    front.connection._handler = answering
    front.receive(GET % 1 * 10_000)
    piled_up, taken, reading = len(front.wire.written), len(front.exchanges), front.wire.reading
    front.connection.resume_writing()

    assert piled_up < 66 * 1024
    assert not reading
    assert taken < len(front.exchanges) == 10_000
    assert front.wire.reading


def test_a_request_that_comes_while_the_answer_to_another_is_left_unread_waits_too() -> None:
    front, taker = Front(Limits()), Taker()
    front.receive(GET % 1)
    front.exchanges[0].watch(taker)
    front.connection.pause_writing()
    front.exchanges[0].answer(FINE)
    front.receive(GET % 2)
    front.receive(GET % 3)
    before = len(front.exchanges)
    front.connection.resume_writing()
    front.exchanges[1].answer(FINE)

    assert before == 1
    assert [exchange.target for exchange in front.exchanges] == [b"/1", b"/2", b"/3"]


def test_a_caller_who_reads_a_last_answer_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    left = 50_000
    monkeypatch.setattr(Wire, "get_write_buffer_size", lambda wire: left)
    front = Front(Limits(linger_seconds=2, stall_seconds=60))
    front.receive(b"GET / HTTP/1.0\r\n\r\n")
    front.exchanges[0].answer(FINE)
    for _ in range(10):
        left -= 1000
        front.advance(30)
    while_it_reads = front.wire.aborted
    front.advance(59)
    paused = front.wire.aborted
    front.advance(2)

    assert (while_it_reads, paused, front.wire.aborted) == (False, False, True)


def test_an_answer_that_began_before_the_drain_is_the_last_of_its_connection_too() -> None:
    front, taker = Front(Limits()), Taker()
    front.receive(GET % 1)
    exchange = front.exchanges[0]
    exchange.watch(taker)
    exchange.write(exchange.start(200, [(b"content-length", b"0")], 0, dated=True))
    front.draining = True
    exchange.finish()

    assert front.wire.written.endswith(b"<EOF>")


def test_a_tunnel_in_which_only_the_upstream_speaks_is_not_silent() -> None:
    front, taker = Front(Limits(tunnel_seconds=100)), Taker()
    front.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    exchange = front.exchanges[0]
    exchange.watch(taker)
    exchange.switch([(b"upgrade", b"x")])
    front.advance(99)
    exchange.write(b"news")
    front.advance(99)
    before = front.wire.aborted
    front.advance(2)

    assert (before, front.wire.aborted) == (False, True)


@pytest.mark.parametrize("at", [b"secret", "ended"])
def test_who_fails_over_a_body_is_500_and_hears_no_more(caplog: pytest.LogCaptureFixture, at: bytes | str) -> None:
    class Failing(Taker):
        def request_data(self, data: bytes) -> None:
            super().request_data(data)
            if at == data:
                raise RuntimeError(data)

        def request_ended(self, trailers: Sequence[Header]) -> None:
            super().request_ended(trailers)
            raise RuntimeError(self.told[0])

    front, taker = Front(Limits()), Failing()
    front.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n")
    front.exchanges[0].watch(taker)
    front.exchanges[0].accept_body()
    front.receive(b"secret")
    front.receive(b"secret" + GET % 2)
    front.connection.connection_lost(None)

    assert re.findall(rb"HTTP/1.1 (\d\d\d)", front.wire.written) == [b"500"]
    assert front.wire.written.endswith(b"<EOF>")
    assert taker.told == ([b"secret", "left"] if at == b"secret" else [b"secret", b"secret", "ended", "left"])
    assert len(front.exchanges) == 1
    assert "secret" not in "".join(repr(record.__dict__) for record in caplog.records)


def test_nothing_is_written_behind_a_last_answer() -> None:
    front = Front(Limits())
    front.receive(b"GET / HTTP/1.0\r\n\r\n")
    front.exchanges[0].answer(FINE)
    front.exchanges[0].write(b"more")

    assert front.wire.written.endswith(b"fine<EOF>")


async def test_a_sweep_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def failing(now: float) -> None:
        raise RuntimeError("secret")

    ticker, reached = Ticker(), asyncio.Event()
    ticker.add(failing)
    ticker.add(lambda now: reached.set())
    await asyncio.wait_for(reached.wait(), 10)
    ticker.remove(failing)

    assert "RuntimeError" in repr([record.__dict__ for record in caplog.records])
    assert "secret" not in repr([record.getMessage() for record in caplog.records])


def test_a_connection_whose_sweep_fails_is_cut_and_the_others_are_swept() -> None:
    server = HttpServer(lambda exchange: None, ticker=Ticker())
    wires = [Wire(), Wire()]
    for wire in wires:
        ServerConnection(server).connection_made(wire)

    def failing() -> int:
        raise RuntimeError

    wires[0].get_write_buffer_size = failing  # type: ignore[method-assign]
    for connection in server._connections:
        connection._linger()
    server.sweep(1000.0)
    server.sweep(2000.0)

    assert [wire.aborted for wire in wires] == [True, True]
