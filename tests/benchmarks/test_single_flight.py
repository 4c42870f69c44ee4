from __future__ import annotations

import asyncio

import pytest

from benchmarks import single_flight
from benchmarks.single_flight import parse_head


def test_a_head_tells_status_and_length() -> None:
    assert parse_head("http/1.1 200 ok\r\ncontent-type: text/plain\r\ncontent-length: 12\r\n\r\n") == (200, 12, False)


def test_a_chunked_answer_is_told_apart() -> None:
    assert parse_head("http/1.1 401 no\r\ntransfer-encoding: chunked\r\n\r\n") == (401, 0, True)


def test_an_answer_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="how long"):
        parse_head("http/1.1 200 ok\r\n\r\n")


async def test_a_burst_counts_the_answers_to_the_token_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_flight, "REQUESTS", 5)
    asked: list[bool] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(b"Authorization: Bearer good-1" in head)
            if asked[-1]:
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await asyncio.to_thread(single_flight.burst, port, "/protected", "good-1")
    assert found.statuses == {200: 5}
    assert asked == [False] * 5 + [True] * 5
