"""What the upstream gets to see, and what the caller gets back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protectedservice_server.identity import header_value
from protectedservice_server.policy import CHECK_PATH

from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer
from .running import Running, behind, service, until
from .wire import Header, ask, head, raw, reply


@pytest.fixture
async def proxy(server: IntrospectionServer, upstream: EchoUpstream) -> AsyncIterator[Running]:
    async with service(server, **behind(upstream.url)) as running:
        yield running


@pytest.mark.parametrize("target", ["/", "/public", "/health", CHECK_PATH])
async def test_nothing_reaches_the_upstream_without_a_token(
    proxy: Running, upstream: EchoUpstream, target: str
) -> None:
    answers = [await ask(proxy.port, target, method=method) for method in ("GET", "OPTIONS", "POST")]

    assert {answer.status for answer in answers} == {401}
    assert upstream.seen == []


async def test_the_upstream_learns_who_calls_and_whence_and_never_the_token(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    token = server.issue("read write", sub="alice", client_id="shop")
    answer = await ask(proxy.port, "/orders?id=1", token=token, headers=[("X-Own", "kept"), ("Cookie", "a=b; c=d")])
    seen = upstream.seen[0]

    assert (answer.status, answer.body, answer.value("x-upstream")) == (200, b"echo", "echo")
    assert (seen.method, seen.target) == ("GET", "/orders?id=1")
    assert seen.values("x-auth-client-id") == ["shop"]
    assert seen.values("x-auth-subject") == ["alice"]
    assert seen.values("x-auth-scope") == ["read write"]
    assert seen.values("x-forwarded-for") == ["127.0.0.1"]
    assert seen.values("x-forwarded-host") == ["svc"]
    assert seen.values("x-forwarded-proto") == ["http"]
    assert seen.values("host") == [f"127.0.0.1:{upstream.port}"]
    assert seen.values("x-own") == ["kept"]
    assert seen.values("cookie") == ["a=b; c=d"]
    assert token not in repr(seen)


async def test_nothing_is_added_that_neither_the_caller_nor_the_contract_knows(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    await ask(proxy.port, "/x", method="POST", token=server.issue(), body=b"x")
    names = {name.lower() for name, _ in upstream.seen[0].headers}

    assert names == {
        *("host", "content-length", "x-auth-client-id", "x-auth-scope"),
        *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
    }


@pytest.mark.parametrize(
    "forged",
    [
        ("X-Auth-Client-Id", "admin"),
        ("x-auth-subject", "admin"),
        ("X_Auth_Subject", "admin"),
        ("X-AUTH_SCOPE", "admin"),
        ("X-Forwarded-For", "admin"),
        ("X_Forwarded_Host", "admin"),
        ("X-Forwarded-Proto", "admin"),
        ("X-Forwarded-User", "admin"),
        ("Forwarded", "for=admin"),
        ("X-Real-IP", "admin"),
        ("Proxy-Authorization", "Basic admin"),
    ],
)
async def test_what_a_caller_says_about_itself_is_taken_off(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, forged: Header
) -> None:
    await ask(proxy.port, "/x", token=server.issue(), headers=[forged, forged])

    assert "admin" not in repr(upstream.seen[0].headers)


@pytest.mark.parametrize(
    "hop",
    [
        ("Connection", "close, X-Secret-Hop"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Trailer", "X-T"),
        ("Upgrade", "h2c"),
        ("Proxy-Connection", "keep-alive"),
        ("HTTP2-Settings", "x"),
    ],
)
async def test_hop_by_hop_headers_end_here(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, hop: Header
) -> None:
    headers = [hop, ("X-Secret-Hop", "1"), ("X-Own", "kept")]
    if hop[0] in ("Upgrade", "HTTP2-Settings"):
        headers += [("Connection", "Upgrade, HTTP2-Settings")]
    answer = await ask(proxy.port, "/x", token=server.issue(), headers=headers)
    seen = upstream.seen[0]

    assert answer.status == 200
    assert seen.values(hop[0]) == []
    assert seen.values("x-own") == ["kept"]
    if hop[0] == "Connection":
        assert seen.values("x-secret-hop") == []


async def test_a_caller_cannot_name_away_the_length_or_our_headers(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    named = ("Connection", "Content-Length, X-Auth-Client-Id, X-Forwarded-For, close")
    await ask(proxy.port, "/x", method="POST", token=server.issue(), headers=[named], body=b"12345")
    seen = upstream.seen[0]

    assert seen.body == b"12345"
    assert seen.values("x-auth-client-id") == ["caller"]
    assert seen.values("x-forwarded-for") == ["127.0.0.1"]


@pytest.mark.parametrize(
    "target",
    ["/a%20b", "/%C3%A4/%41", "//a//b/", "/a;v=1/b,c", "/a?", "/a?x=%2F&y=a+b&z=%zz&&", "/a?b=/../c?d", "/[x]|~!$'()*"],
)
async def test_the_bytes_that_were_matched_are_the_bytes_that_are_sent(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, target: str
) -> None:
    await ask(proxy.port, target, token=server.issue())

    assert upstream.seen[0].target == target


async def test_header_values_pass_byte_by_byte(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    token = server.issue()
    utf8 = "ä€".encode().decode("latin-1")
    passed = await ask(proxy.port, "/x", token=token, headers=[("X-Own", utf8), ("X-Own", "2")])
    latin = await ask(proxy.port, "/x", token=token, headers=[("X-Own", "\xe4")])

    assert passed.status == latin.status == 200
    assert upstream.seen[0].values("x-own") == ["ä€", "2"]
    assert upstream.seen[1].values("x-own") == ["\udce4"]  # how a byte that is no UTF-8 is shown here


@pytest.mark.parametrize(
    ("claim", "sent"),
    [
        ("plain-id.1", "plain-id.1"),
        ("two words", "two words"),
        (" edge ", "%20edge%20"),
        ("  ", "%20%20"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil: 1"),
        ("Zoë", "Zo%C3%AB"),
        ("100%", "100%25"),
        ("%0A", "%250A"),
        ("\x00\x7f", "%00%7F"),
        ('<a href="b">', '<a href="b">'),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_claims_become_header_values_that_nobody_can_confuse(claim: str, sent: str) -> None:
    assert header_value(claim) == sent


async def test_hostile_claims_stay_in_their_header(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    await ask(proxy.port, "/x", token=server.issue(sub="a\r\nX-Auth-Client-Id: admin\r\n\r\n"))

    assert upstream.seen[0].values("x-auth-subject") == ["a%0D%0AX-Auth-Client-Id: admin%0D%0A%0D%0A"]
    assert upstream.seen[0].values("x-auth-client-id") == ["caller"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_methods_pass(server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, method: str) -> None:
    answer = await ask(proxy.port, "/x", method=method, token=server.issue(), body=b"")

    assert answer.status == 200
    assert (upstream.seen[0].method, upstream.seen[0].body) == (method, b"")
    assert upstream.seen[0].values("transfer-encoding") == []


async def test_a_chunked_body_stays_chunked_and_a_sized_one_sized(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    token = server.issue()
    chunked = head("POST", "/x", [("Transfer-Encoding", "chunked")], token=token) + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    first = await raw(proxy.port, chunked)
    second = await ask(proxy.port, "/x", method="POST", token=token, body=b"abcde")

    assert first.body == second.body == b"abcde"
    assert upstream.seen[0].values("transfer-encoding") == ["chunked"]
    assert upstream.seen[0].values("content-length") == []
    assert upstream.seen[1].values("content-length") == ["5"]
    assert upstream.seen[1].values("transfer-encoding") == []


async def test_a_request_body_streams_as_it_comes(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(head("POST", "/upload", [("Transfer-Encoding", "chunked")], token=server.issue()) + b"3\r\none\r\n")
    first = await upstream.chunks.get()
    writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
    second = await upstream.chunks.get()
    answer = await reply(reader)
    writer.close()

    assert (first, second) == (b"one", b"two")
    assert answer.body == b"uploaded"


async def test_an_answer_streams_as_it_comes(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(head("GET", "/stream", token=server.issue()))
    start = await reader.readuntil(b"first")
    upstream.go.set()
    rest = await reader.readuntil(b"0\r\n\r\n")
    writer.close()

    assert b"text/event-stream" in start
    assert b"second" in rest


async def test_a_body_waits_for_100_continue_until_the_token_was_good(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    expecting = [("Expect", "100-continue"), ("Content-Length", "4")]
    writer.write(head("POST", "/x", expecting, token=server.issue()))
    interim = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"body")
    answer = await reply(reader)
    writer.close()

    assert interim.startswith(b"HTTP/1.1 100 ")
    assert answer.body == b"body"
    assert upstream.seen[0].values("expect") == []


async def test_megabytes_pass_both_ways(server: IntrospectionServer, proxy: Running, upstream: EchoUpstream) -> None:
    token, body = server.issue(), bytes(range(256)) * 8192
    echoed = await ask(proxy.port, "/x", method="PUT", token=token, body=body)
    big = await ask(proxy.port, "/big", token=token)

    assert echoed.body == body
    assert len(big.body) == 1_000_000


async def test_who_goes_away_frees_the_upstream(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(head("GET", "/wait", token=server.issue()))
    await upstream.arrived.wait()
    writer.transport.abort()

    async with asyncio.timeout(5):
        await upstream.left.wait()


async def test_who_goes_away_within_a_stream_frees_the_upstream(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(head("GET", "/stream", token=server.issue()))
    await reader.readuntil(b"first")
    writer.transport.abort()

    async with asyncio.timeout(5):
        await upstream.left.wait()


async def test_hop_by_hop_headers_of_the_answer_end_here(server: IntrospectionServer, proxy: Running) -> None:
    answer = await ask(proxy.port, "/hop", token=server.issue())

    assert answer.body == b"hop"
    assert answer.values("x-private") == []
    assert answer.values("keep-alive") == []
    assert answer.values("connection") == []
    assert answer.value("x-kept") == "1"


async def test_answers_are_neither_decoded_nor_followed_nor_remembered(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    token = server.issue()
    packed = await ask(proxy.port, "/gzip", token=token)
    redirect = await ask(proxy.port, "/redirect", token=token)
    unchanged = await ask(proxy.port, "/unchanged", token=token)
    long = await ask(proxy.port, "/long-header", token=token)

    assert (packed.body, packed.value("content-encoding")) == (b"\x1f\x8bnot really", "gzip")
    assert (redirect.status, redirect.value("location"), redirect.value("set-cookie")) == (302, "/elsewhere", "a=b")
    assert (unchanged.status, unchanged.value("etag")) == (304, '"x"')
    assert len(long.value("x-long") or "") == 20_000
    assert all(seen.values("cookie") == [] for seen in upstream.seen)


async def test_an_answer_that_breaks_off_is_cut_and_not_ended(server: IntrospectionServer, proxy: Running) -> None:
    answer = await ask(proxy.port, "/break", token=server.issue())

    assert answer.status == 200
    assert not answer.complete


async def test_an_upstream_that_is_not_there_is_502(server: IntrospectionServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    async with service(server, **behind(f"http://127.0.0.1:{port}")) as proxy:
        answer = await ask(proxy.port, "/x", token=server.issue())

    assert (answer.status, answer.json()["error"]) == (502, "upstream_unreachable")
    assert proxy.metric("protectedservice_upstream_seconds_count", result="unreachable") == 1


@pytest.mark.parametrize("body", [None, b"x"], ids=["without a body", "with a body"])
async def test_an_upstream_that_does_not_answer_in_time_is_504(
    server: IntrospectionServer, upstream: EchoUpstream, body: bytes | None
) -> None:
    async with service(server, **behind(upstream.url, timeout="100ms")) as proxy:
        answer = await ask(proxy.port, "/wait", method="POST", token=server.issue(), body=body)

    assert (answer.status, answer.json()["error"]) == (504, "upstream_timeout")


async def test_an_upstream_that_does_not_take_the_body_is_504(server: IntrospectionServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        async with service(server, **behind(url, timeout="200ms")) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(head("POST", "/x", [("Content-Length", "99000000")], token=server.issue()))
            writer.write(b"x" * 20_000_000)
            answer = await reply(reader)
            writer.transport.abort()

    assert answer.status == 504


async def test_an_upstream_that_speaks_no_http_is_502(server: IntrospectionServer) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    listening = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with listening, service(server, **behind(f"http://127.0.0.1:{_port(listening)}")) as proxy:
        answer = await ask(proxy.port, "/x", token=server.issue())

    assert answer.status == 502


@pytest.mark.parametrize("status", [b"101 Switching Protocols", b"999 What"])
async def test_a_status_that_cannot_be_passed_on_is_502(server: IntrospectionServer, status: bytes) -> None:
    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(answering, "127.0.0.1", 0)
    async with listening, service(server, **behind(f"http://127.0.0.1:{_port(listening)}")) as proxy:
        answer = await ask(proxy.port, "/x", token=server.issue())

    assert answer.status == 502


async def test_a_name_that_leads_to_this_machine_is_refused_at_the_connection(
    server: IntrospectionServer, upstream: EchoUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    really = loop.getaddrinfo

    async def resolve(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host != "orders.tenant.svc":
            return await really(host, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", upstream.port))]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    changes = behind(f"http://orders.tenant.svc:{upstream.port}", allowLoopback=False)
    async with service(server, **changes) as proxy:
        answer = await ask(proxy.port, "/x", token=server.issue())

    assert answer.status == 502
    assert upstream.seen == []


HANDSHAKE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
HELLO = b"\x81\x85\x00\x00\x00\x00hello"  # a text frame, masked with zeros (RFC 6455 section 5.2)
ECHO = b"\x81\x05hello"


async def test_a_websocket_passes_both_ways_once_its_token_was_accepted(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    # The first frame does not wait for the answer: it must not be taken for a request.
    writer.write(head("GET", "/socket", HANDSHAKE, token=server.issue()) + HELLO)
    switched = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    echoed = await reader.readexactly(len(ECHO))
    writer.write(HELLO)
    again = await reader.readexactly(len(ECHO))
    writer.close()

    assert switched.startswith("http/1.1 101 ")
    assert "upgrade: websocket" in switched
    assert echoed == again == ECHO
    (seen,) = upstream.seen
    assert seen.values("authorization") == []
    await until(upstream.left.is_set)


@pytest.mark.parametrize("path", ["/socket", "/x"])
async def test_a_websocket_without_a_token_is_refused_and_one_that_the_upstream_declines_is_an_answer(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, path: str
) -> None:
    without = await ask(proxy.port, path, headers=HANDSHAKE)

    assert without.status == 401
    assert upstream.seen == []

    declined = await ask(proxy.port, "/x", headers=HANDSHAKE, token=server.issue())

    assert (declined.status, declined.body) == (200, b"echo")


async def test_the_check_path_is_never_forwarded(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    answer = await ask(proxy.port, CHECK_PATH, token=server.issue())

    assert answer.status == 204
    assert upstream.seen == []


async def test_requests_on_one_connection_do_not_mix(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    token = server.issue()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    for number in range(5):
        body = b"body %d" % number
        writer.write(head("POST", f"/{number}", [("Content-Length", str(len(body)))], token=token) + body)
        writer.write(head("GET", "/unauthorised"))
    answers = [await reply(reader) for _ in range(10)]
    writer.close()

    assert [answer.status for answer in answers] == [200, 401] * 5
    assert [answer.body for answer in answers[::2]] == [b"body %d" % number for number in range(5)]
    assert [seen.target for seen in upstream.seen] == [f"/{number}" for number in range(5)]


def _port(listening: asyncio.Server) -> int:
    port: int = listening.sockets[0].getsockname()[1]
    return port
