"""Where one request ends and the next begins, however the bytes are cut. `tests/conformance` has what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protectedservice_server.http1.framing import Cutter, Refused, check_framing

from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer
from .running import Running, behind, service
from .wire import head, reply


@pytest.fixture
async def proxy(server: IntrospectionServer, upstream: EchoUpstream) -> AsyncIterator[Running]:
    async with service(server, **behind(upstream.url)) as running:
        yield running


CHUNKS = {
    "an extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "an extension without a value": b"5;a\r\nhello\r\n0\r\n\r\n",
    "an extension of the last chunk": b"5\r\nhello\r\n0;a\r\n\r\n",
    "a bare LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a hexadecimal prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "less data than its size": b"6\r\nhello\r\n0\r\n\r\n",
    "more data than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "a bare LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "a length among the trailers": b"0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("step", [1000, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
async def test_a_chunk_that_is_not_its_size_and_its_data_ends_the_request(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream, chunks: bytes, step: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(head("POST", "/x", [("Transfer-Encoding", "chunked")], token=server.issue()))
    for start in range(0, len(chunks), step):
        writer.write(chunks[start : start + step])
        await asyncio.sleep(0)
    answer = await reply(reader)
    writer.close()

    assert answer.status == 400
    assert upstream.seen == []


async def test_any_cut_of_the_same_bytes_is_the_same_requests(
    server: IntrospectionServer, proxy: Running, upstream: EchoUpstream
) -> None:
    token = server.issue()
    chunked = [("Transfer-Encoding", "chunked")]
    conversation = (
        head("POST", "/1", chunked, token=token)
        + b"3\r\na;b\r\n009\r\n\r\n\r\n0\r\n\r\n\r\n0\r\nX-T: y\r\n\r\n"
        + head("GET", "/2", token=token)
        + b"\r\n"
        + head("POST", "/3", [("Content-Length", "4")], token=token)
        + b"\r\n\r\n"
        + head("GET", "/4", token=token)
    )
    for step in (1, 2, 3, 5, 17, len(conversation)):
        upstream.seen.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        for start in range(0, len(conversation), step):
            writer.write(conversation[start : start + step])
            await asyncio.sleep(0)
        statuses = [(await reply(reader)).status for _ in range(4)]
        writer.close()

        assert statuses == [200] * 4, step
        assert [(seen.target, seen.body) for seen in upstream.seen] == [
            ("/1", b"a;b\r\n\r\n0\r\n\r\n"),
            ("/2", b""),
            ("/3", b"\r\n\r\n"),
            ("/4", b""),
        ], step


@given(
    bodies=st.lists(st.tuples(st.booleans(), st.lists(st.binary(min_size=1, max_size=40), max_size=4)), max_size=4),
    cuts=st.lists(st.integers(1, 30), min_size=1, max_size=50),
)
def test_the_cutter_ends_each_request_where_it_was_written_to_end(
    bodies: list[tuple[bool, list[bytes]]], cuts: list[int]
) -> None:
    start, wire, ends = b"POST / HTTP/1.1\r\nX: y\r\n\r\n", b"", []
    for chunked, parts in bodies:
        wire += start
        if chunked:
            wire += b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nT: u\r\n\r\n"
        else:
            wire += b"".join(parts)
        ends.append(len(wire))

    cutter, found, position, seen_heads, at = Cutter(), [], 0, 0, 0
    while position < len(wire):
        size = cuts[at % len(cuts)]
        data, at = wire[position : position + size], at + 1
        piece = 0
        while piece < len(data):
            in_head = cutter.between_requests
            piece = cutter.end_of_piece(data, piece)
            if in_head and not cutter.partial:
                chunked, parts = bodies[seen_heads]
                seen_heads += 1
                if chunked:
                    cutter.chunked()
                else:
                    cutter.sized(sum(map(len, parts)))
            if cutter.between_requests and not cutter.partial:
                found.append(position + piece)
        position += len(data)

    assert found == ends


@pytest.mark.parametrize(
    ("lengths", "codings", "expected"),
    [([], [], 0), ([b"0"], [], 0), ([b"007"], [], 7), ([], [b"chunked"], None), ([], [b"Chunked"], None)],
)
def test_the_length_of_a_body(lengths: list[bytes], codings: list[bytes], expected: int | None) -> None:
    assert check_framing("1.1", [b"a"], lengths, codings) == expected


@pytest.mark.parametrize("host", [b"a b", b"a/b", b"u@a", b"a:b", b"[::1", b"\xe4"])
def test_a_host_that_is_no_authority_is_refused(host: bytes) -> None:
    with pytest.raises(Refused):
        check_framing("1.1", [host], [], [])
