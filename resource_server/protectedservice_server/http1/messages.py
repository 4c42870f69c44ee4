"""Heads as bytes: status lines, header lines, and the whole answers of the server itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from ..bearer import Answer, Header

_NONE: Final[frozenset[bytes]] = frozenset()

# Hand-picked where Python's words are older than RFC 9110's.
_PHRASES: Final = {**{status.value: status.phrase for status in HTTPStatus}, 413: "Content Too Large"}


@lru_cache(maxsize=512)
def status_line(status: int) -> bytes:
    """`HTTP/1.1 404 Not Found` with its line end; the version is this server's own (RFC 9112 section 2.3)."""
    return b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, "").encode("ascii"))


def hops_of(headers: Iterable[Header]) -> frozenset[bytes]:
    """What `Connection` names: its options, and headers meant for this hop only (RFC 9110 section 7.6.1)."""
    values = [header[1] for header in headers if header[0] == b"connection"]
    if not values:
        return _NONE
    return frozenset([word.strip().lower() for value in values for word in value.split(b",")])


def lines(headers: Iterable[Header]) -> bytes:
    """Header lines, without the empty line behind them."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


@lru_cache(maxsize=256)
def _own_head(status: int, headers: tuple[Header, ...], date: bytes) -> bytes:
    return b"%b%bdate: %b\r\n" % (status_line(status), lines(headers), date)


def whole(answer: Answer, date: bytes, connection: bytes, body: bool) -> bytes:
    """An answer of the server itself; `connection` is an extra header line or nothing; no `body` for HEAD."""
    status, content = answer.status, answer.body
    head = _own_head(status, answer.headers, date)
    if status == 204:  # RFC 9110 section 8.6: no length either
        return b"%b%b\r\n" % (head, connection)
    return b"%bcontent-length: %d\r\n%b\r\n%b" % (head, len(content), connection, content if body else b"")
