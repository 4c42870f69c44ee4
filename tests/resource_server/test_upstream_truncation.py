"""An answer that ends with its connection is whole only where the upstream said so (RFC 9112 section 9.8).

Over TLS the end of the TCP connection says nothing: anybody on the way can send it. The `close_notify` of TLS does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from ..support.certificates import Authority
from ..support.introspection_server import IntrospectionServer
from .running import behind, service
from .wire import Reply, ask

End = Callable[[ssl.SSLSocket], None]

TO_THE_END = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it"


def said(connection: ssl.SSLSocket) -> None:
    """The end as TLS says it."""
    connection.unwrap().close()


def cut(connection: ssl.SSLSocket) -> None:
    """The end of the TCP connection alone: Python's `close` sends no close_notify."""
    connection.close()


def cut_within_a_record(connection: ssl.SSLSocket) -> None:
    """The same, behind the beginning of a record."""
    with socket.socket(fileno=connection.detach()) as below:
        below.sendall(b"\x17\x03\x03\x01\x00some of it")


def reset(connection: ssl.SSLSocket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def upstream(context: ssl.SSLContext, answer: bytes, end: End) -> Iterator[int]:
    """Gives one answer by TLS and ends the connection; its port."""

    def serve() -> None:
        place, _ = listening.accept()
        with context.wrap_socket(place, server_side=True) as connection:
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                received += connection.recv(4096)
            connection.sendall(answer)
            end(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        serving = threading.Thread(target=serve)
        serving.start()
        yield listening.getsockname()[1]
        serving.join(10)


@asynccontextmanager
async def before(server: IntrospectionServer, place: Path, answer: bytes, end: End) -> AsyncIterator[int]:
    """The resource server before such an upstream; its port."""
    authority = Authority("Upstream")
    (place / "ca.crt").write_text(authority.pem)
    with upstream(authority.server(), answer, end) as port:
        policy = behind(f"https://127.0.0.1:{port}", tls={"caFile": str(place / "ca.crt")})
        async with service(server, **policy) as proxy:
            yield proxy.port


async def through(server: IntrospectionServer, place: Path, answer: bytes, end: End) -> Reply:
    async with before(server, place, answer, end) as port:
        return await ask(port, "/x", token=server.issue())


async def test_an_answer_up_to_an_end_that_tls_has_told_is_whole(server: IntrospectionServer, tmp_path: Path) -> None:
    answer = await through(server, tmp_path, TO_THE_END, said)

    assert (answer.status, answer.body, answer.complete) == (200, b"all of it", True)


@pytest.mark.parametrize("end", [cut, cut_within_a_record, reset])
async def test_one_whose_connection_is_cut_below_tls_reaches_the_caller_as_broken(
    server: IntrospectionServer, tmp_path: Path, end: End, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await through(server, tmp_path, TO_THE_END, end)

    assert answer.status == 502 or not answer.complete  # a reset can overtake the answer's beginning
    assert "The upstream failed" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall of it",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nall of it\r\n0\r\n\r\n",
    ],
    ids=["a length", "chunks"],
)
async def test_an_answer_that_says_its_own_end_needs_no_other(
    server: IntrospectionServer, tmp_path: Path, answer: bytes
) -> None:
    received = await through(server, tmp_path, answer, cut)

    assert (received.body, received.complete) == (b"all of it", True)


async def test_a_caller_of_http_1_0_can_tell_it_too(server: IntrospectionServer, tmp_path: Path) -> None:
    """It gets no chunks, so that how its connection ends is all that it sees."""
    request = f"GET /x HTTP/1.0\r\nHost: svc\r\nAuthorization: Bearer {server.issue()}\r\n\r\n".encode()
    ends = []
    for end in (said, cut):
        async with before(server, tmp_path, TO_THE_END, end) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            try:
                ends.append((await reader.read())[-9:])
            except ConnectionResetError:
                ends.append(b"reset")
            writer.close()

    assert ends == [b"all of it", b"reset"]
