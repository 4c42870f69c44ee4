"""What passes through the front and its client besides plain requests: upgrades, interim answers, trailers, kept and
dead connections, and what an upstream gets wrong.
"""

from __future__ import annotations

import asyncio
import ssl

import pytest

from protectedservice_server.decision import Facts
from protectedservice_server.http1.answers import WholeAnswer, WholeAnswers
from protectedservice_server.http1.client import Call, ClientConnection
from protectedservice_server.http1.limits import Limits
from protectedservice_server.http1.pool import Origin, Pool
from protectedservice_server.http1.ticker import Ticker
from protectedservice_server.identity import Identity
from protectedservice_server.policy import Rules, Upstream
from protectedservice_server.proxy import Proxy, _Relay

from ..support.introspection_server import IntrospectionServer
from ..support.scripted_upstream import ScriptedUpstream
from .running import behind, service, until
from .test_http1_server import Front, Wire
from .wire import ask, head, raw, reply

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
WEBSOCKET = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]


def answering(*answers: bytes) -> ScriptedUpstream:
    """An upstream that gives these answers, one a request, and then ends the connection."""
    upstream: ScriptedUpstream

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await upstream.read_head(reader)
            writer.write(answer)

    upstream = ScriptedUpstream(script)
    return upstream


async def test_a_websocket_passes_both_ways_once_the_token_was_good(server: IntrospectionServer) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        while data := await reader.read(1000):
            writer.write(data.upper())

    async with ScriptedUpstream(script) as upstream, service(server, **behind(upstream.url)) as proxy:
        without = await ask(proxy.port, "/chat", headers=WEBSOCKET)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head("GET", "/chat", WEBSOCKET, token=server.issue()) + b"early")
        switched = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readexactly(len(b"helloEARLY"))
        writer.write(b"x" * 300_000)
        rest = await reader.readexactly(300_000)
        writer.close()
        await until(lambda: proxy.front.open == 0)

    assert without.status == 401
    assert switched.startswith(b"HTTP/1.1 101 ")
    assert b"upgrade: websocket" in switched
    assert first == b"helloEARLY"
    assert rest == b"X" * 300_000
    assert b"upgrade: websocket\r\n" in upstream.heads[0]
    assert b"connection: upgrade\r\n" in upstream.heads[0]
    assert b"sec-websocket-version: 13\r\n" in upstream.heads[0]
    assert len(upstream.heads) == 1


async def test_an_upstream_that_ends_a_websocket_ends_it_for_the_caller(server: IntrospectionServer) -> None:
    upstream = answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nbye")
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head("GET", "/chat", WEBSOCKET, token=server.issue()))
        await reader.readuntil(b"\r\n\r\n")

        assert await reader.read() == b"bye"
        writer.close()


async def test_an_upgrade_that_the_upstream_declines_is_a_plain_answer_and_the_connection_goes_on(
    server: IntrospectionServer,
) -> None:
    upstream = answering(OK, OK)
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        token = server.issue()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head("GET", "/1", WEBSOCKET, token=token) + head("GET", "/2", token=token))
        answers = [await reply(reader), await reply(reader)]
        writer.close()

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"ok")] * 2
    assert b"upgrade" not in upstream.heads[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["another protocol", "none"],
)
async def test_a_switch_that_nobody_offered_is_502(server: IntrospectionServer, answer: bytes) -> None:
    upstream = answering(answer)
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        assert (await ask(proxy.port, "/x", headers=WEBSOCKET, token=server.issue())).status == 502


async def test_interim_answers_pass_and_100_does_not(server: IntrospectionServer) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"
    upstream = answering(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + OK, hints + OK)
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        token = server.issue()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head("GET", "/1", token=token))
        first = await reader.readuntil(b"\r\n\r\n")
        answer = await reply(reader)
        writer.close()
        old = await raw(proxy.port, head("GET", "/2", token=token).replace(b"HTTP/1.1", b"HTTP/1.0"))

    assert first == b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"
    assert (answer.status, answer.body) == (200, b"ok")
    assert old.status == 200


async def test_trailers_pass_both_ways_except_those_that_could_pass_for_headers(server: IntrospectionServer) -> None:
    seen = b""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await upstream.read_head(reader)
        seen = await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
            b"X-Digest: d\r\nContent-Type: evil\r\nSet-Cookie: evil=1\r\n\r\n"
        )

    async with ScriptedUpstream(script) as upstream, service(server, **behind(upstream.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            head("POST", "/x", [("Transfer-Encoding", "chunked")], token=server.issue())
            + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Auth-Subject: evil\r\nX_Forwarded_For: evil\r\nCookie: evil\r\n"
            + b"Authorization: evil\r\nContent-Encoding: evil\r\n\r\n"
        )
        answer = await reader.readuntil(b"x-digest: d\r\n\r\n")
        writer.close()

    assert seen == b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"
    assert b"evil" not in answer


async def test_a_caller_of_http_1_0_gets_no_chunks(server: IntrospectionServer) -> None:
    upstream = answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head("GET", "/x", token=server.issue()).replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await reader.read()
        writer.close()

    assert b"transfer-encoding" not in answer
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nok")


async def test_an_answer_up_to_the_end_of_its_connection_is_whole(server: IntrospectionServer) -> None:
    upstream = answering(b"HTTP/1.0 200 OK\r\n\r\nall of it")
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        answer = await ask(proxy.port, "/x", token=server.issue())

    assert (answer.status, answer.body, answer.complete) == (200, b"all of it", True)


async def test_connections_to_the_upstream_are_kept_and_one_that_died_unnoticed_is_replaced(
    server: IntrospectionServer,
) -> None:
    upstream = answering(OK, OK)
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        token = server.issue()
        answers = [await ask(proxy.port, "/x", token=token) for _ in range(5)]

    assert {answer.status for answer in answers} == {200}
    assert upstream.connections == 3


@pytest.mark.parametrize(("method", "statuses"), [("GET", [200, 200]), ("POST", [200, 502])])
async def test_only_what_may_be_repeated_is_sent_again_when_a_kept_connection_ends_without_an_answer(
    server: IntrospectionServer, method: str, statuses: list[int]
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read_head(reader)
        writer.write(OK)
        await upstream.read_head(reader)  # and ends, as if its idle timeout had come just now

    async with ScriptedUpstream(script) as upstream, service(server, **behind(upstream.url)) as proxy:
        token = server.issue()
        answers = [await ask(proxy.port, "/x", method=method, token=token) for _ in range(2)]

    assert [answer.status for answer in answers] == statuses
    assert upstream.connections == (2 if method == "GET" else 1)


async def test_a_first_connection_that_ends_without_an_answer_is_not_tried_again(server: IntrospectionServer) -> None:
    upstream = answering(b"")
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        assert (await ask(proxy.port, "/x", token=server.issue())).status == 502

    assert upstream.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX : y\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\x01b\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 099 Odd\r\ncontent-length: 2\r\n\r\nok",
    ],
    ids=[
        *("two lengths", "length and chunks", "a coding more", "another coding", "a space", "a fold", "a control"),
        *("HTTP/2.0", "too large", "too many headers", "no status"),
    ],
)
async def test_an_answer_that_could_be_read_in_two_ways_is_502(server: IntrospectionServer, answer: bytes) -> None:
    upstream = answering(answer)
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        assert (await ask(proxy.port, "/x", token=server.issue())).status == 502


@pytest.mark.parametrize(
    ("method", "extra"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"),
        ("GET", b"HTTP/1.1 20"),
        ("GET", b"x"),
        ("HEAD", b"ok"),
        ("HEAD", b"0\r\n\r\n"),
    ],
    ids=["a second answer", "the start of one", "a byte", "a body to HEAD", "a chunk to HEAD"],
)
async def test_what_nobody_asked_for_reaches_nobody(server: IntrospectionServer, method: str, extra: bytes) -> None:
    answer = OK if method == "GET" else b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for kept in (OK, OK) if upstream.connections > 1 else (answer + extra, OK):
            await upstream.read_head(reader)
            writer.write(kept)

    async with ScriptedUpstream(script) as upstream, service(server, **behind(upstream.url)) as proxy:
        token = server.issue()
        first = await ask(proxy.port, "/1", method=method, token=token)
        second = await ask(proxy.port, "/2", token=token)

    assert first.status == 200
    assert (second.status, second.body) == (200, b"ok")
    assert upstream.connections == 2


async def test_an_early_answer_passes_while_the_body_is_still_coming(server: IntrospectionServer) -> None:
    upstream = answering(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head("POST", "/x", [("Content-Length", "10")], token=server.issue()) + b"12345")
        early = await reply(reader)
        writer.write(b"67890" + head("GET", "/unauthorised"))
        after = await reply(reader)
        writer.close()

    assert (early.status, after.status) == (413, 401)


async def test_a_caller_that_does_not_read_slows_the_upstream_down(server: IntrospectionServer) -> None:
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await upstream.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 200000000\r\n\r\n")
        for _ in range(2000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with ScriptedUpstream(script) as upstream, service(server, **behind(upstream.url)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head("GET", "/x", token=server.issue()))
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = -1
        while before != sent:
            before = sent
            await asyncio.wait_for(_many_turns(), 10)
        held = sent
        writer.transport.abort()

    assert held < 100_000_000


async def _many_turns() -> None:
    for _ in range(500):
        await asyncio.sleep(0)


async def test_an_answer_is_dated_once(server: IntrospectionServer) -> None:
    dated = b"HTTP/1.1 200 OK\r\ndate: then\r\ncontent-length: 2\r\n\r\nok"
    upstream = answering(dated, OK)
    async with upstream, service(server, **behind(upstream.url)) as proxy:
        token = server.issue()
        first, second = [await ask(proxy.port, "/x", token=token) for _ in range(2)]

    assert first.value("date") == "then"
    assert (second.value("date") or "").endswith(" GMT")


@pytest.mark.parametrize(
    ("start", "more"),
    [(b"0\r\nX: ", b"y"), (b"0\r\n", b"X: yyyyyyyy\r\n"), (b"2", b";a=bcdefgh")],
    ids=["one without an end", "many trailers", "an extension of a chunk"],
)
async def test_an_answer_that_never_comes_to_its_end_is_cut_off_and_not_kept_in_memory(
    server: IntrospectionServer, start: bytes, more: bytes
) -> None:
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await upstream.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n" + start)
        piece = more * (10_000 // len(more))
        for _ in range(5000):  # 50 MB
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async with ScriptedUpstream(script) as upstream, service(server, **behind(upstream.url)) as proxy:
        answer = await ask(proxy.port, "/x", token=server.issue())

    assert (answer.status, answer.complete) == (200, False)
    assert sent < 20_000_000


def test_what_is_made_for_a_request_does_not_show_its_token() -> None:
    """Whoever logs one, or a callback that belongs to one, tells no secret."""
    upstream = Upstream("http://127.0.0.1:1", forward_token=True, allow_loopback=True)
    proxy = Proxy(upstream, Identity(upstream, Rules(())), lambda result, seconds: None, Ticker())
    front = Front(Limits())
    front.receive(b"GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cret\r\n\r\n")
    exchange = front.exchanges[0]
    head = proxy.requests.head(exchange, b"/x", Facts(active=True))
    relay = _Relay(proxy, exchange, head, False, False, None, 0.0)

    assert b"s3cret" in head
    assert "s3cret" not in f"{exchange!r} {relay!r} {exchange.answer!r} {relay.failed!r}"


async def test_an_upstream_that_takes_no_more_of_a_body_is_waited_for_no_longer_because_the_caller_paused() -> None:
    ticker = Ticker()
    upstream = Upstream("http://127.0.0.1:1", timeout=5.0, allow_loopback=True)
    proxy = Proxy(upstream, Identity(upstream, Rules(())), lambda result, seconds: None, ticker)
    front = Front(Limits())
    front.receive(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
    relay = _Relay(proxy, front.exchanges[0], b"", False, False, None, 0.0)
    relay.connection = connection = ClientConnection(proxy.pool)
    connection.connection_made(Wire())
    relay.pause()
    relay.caller_full()
    while_the_caller_reads_nothing = connection.deadline
    relay.caller_drained()

    assert while_the_caller_reads_nothing is None
    assert connection.deadline is not None


class _Asked(Call):
    head = b"GET / HTTP/1.1\r\n\r\n"
    patience = 9.0

    def answered_whole(self, answer: WholeAnswer) -> None:
        pass


def _connected(pool: Pool) -> tuple[ClientConnection, Wire]:
    """A connection of `pool` without a network, under way with a call."""
    connection, wire = ClientConnection(pool), Wire()
    connection.connection_made(wire)
    pool._all.add(connection)
    connection.begin(_Asked(), 0.0)
    return connection, wire


WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def test_a_connection_that_was_busy_when_the_trust_changed_takes_no_further_call() -> None:
    contexts = [ssl.create_default_context()]
    pool = Pool(Origin.of("https://orders/"), Ticker(), context=lambda: contexts[-1])
    pool._check_trust()
    (stays, _), (goes, wire) = _connected(pool), _connected(pool)
    stays.trusted = goes.trusted = contexts[0]
    stays.data_received(WHOLE)
    kept = list(pool._idle)
    contexts.append(ssl.create_default_context())
    pool._check_trust()  # as at each call
    goes.data_received(WHOLE)

    assert kept == [stays]
    assert wire.closed
    assert pool._idle == []


@pytest.mark.parametrize(
    "answer", [WHOLE, WHOLE.replace(b"content-length: 0", b"transfer-encoding: chunked") + b"0\r\n\r\n"]
)
def test_no_request_comes_behind_one_that_the_upstream_has_not_taken(answer: bytes) -> None:
    pool = Pool(Origin.of("http://orders/"), Ticker())
    (connection, wire), (fit, _) = _connected(pool), _connected(pool)
    connection.pause_writing()
    for each in (connection, fit):
        each.data_received(answer)

    assert wire.closed
    assert pool._idle == [fit]


def test_an_answer_that_is_printed_shows_nothing_of_it() -> None:
    answer = WholeAnswers().read(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")

    assert answer is not None
    assert "secret" not in repr(answer)
