"""Where a request ends: the checks around llhttp that only ever refuse, and never read a message in a way of their own.

llhttp parses. It is strict about almost everything (bare LF and CR, folded lines, spaces before a colon, two lengths, a
length beside a coding, signs, NUL). `check_framing` and `Cutter` refuse what it lets through and another server might
read differently (RFC 9112 sections 6, 7 and 11.2): HTTP/0.9 and 2.0, codings other than `chunked` alone, a coding in
HTTP/1.0, chunk extensions, and any Host that is not exactly one authority.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

# RFC 3986 authority without user information: what a Host header may hold (RFC 9112 section 3.2).
HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")

_END_OF_HEAD: Final = b"\r\n\r\n"
_CHUNK_LINE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}\r\n")
_PART_OF_CHUNK_LINE: Final = re.compile(rb"[0-9A-Fa-f]{0,16}\r?")


class Refused(Exception):
    """A request that is not interpreted; `args[0]` says why, in words that hold nothing of the request."""

    def __init__(self, why: str, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(why)
        self.why = why
        self.status = status
        self.code = code


class _At(Enum):
    HEAD = auto()
    SIZED = auto()
    CHUNK_LINE = auto()
    CHUNK_DATA = auto()
    TRAILERS = auto()


class Cutter:
    """Cuts the bytes of a connection into pieces that belong to one request, and to its head or to its body.

    The parser is fed piece by piece, so that what follows a request stays unparsed until it may be looked at. Where the
    parser sees another end than the cutter, the request is refused by the connection.
    """

    __slots__ = ("_at", "_left", "_line", "_tail", "between_requests")

    def __init__(self) -> None:
        self.between_requests = True
        """Whether the next byte belongs to a head."""
        self._at = _At.HEAD
        self._left = 0  # bytes of the body or of the chunk, with the CRLF behind a chunk
        self._line = b""  # of a chunk, as far as it came
        self._tail = b""  # the last bytes fed, where an end of a head may have begun

    @property
    def in_trailers(self) -> bool:
        """Whether the next byte belongs to a trailer section."""
        return self._at is _At.TRAILERS

    @property
    def partial(self) -> bool:
        """Whether a section has begun whose end has not come."""
        return bool(self._tail)

    def sized(self, length: int) -> None:
        """The head is over; a body of `length` bytes follows."""
        if length:
            self._at, self._left, self.between_requests = _At.SIZED, length, False

    def chunked(self) -> None:
        """The head is over; chunks follow."""
        self._at, self._line, self.between_requests = _At.CHUNK_LINE, b"", False

    def end_of_piece(self, data: bytes, start: int) -> int:
        """Where the piece that begins at `start` ends.

        Raises:
            Refused: a chunk has an extension, or no size.
        """
        at = self._at
        if at is _At.HEAD:
            return self._section(data, start)
        if at is _At.TRAILERS:
            end = self._section(data, start)
            if not self._tail:
                self._at, self.between_requests = _At.HEAD, True
            return end
        if at is _At.CHUNK_LINE:
            return self._chunk_line(data, start)
        return self._counted(data, start)

    def _section(self, data: bytes, start: int) -> int:
        """A head or a trailer section, up to the empty line; `_tail` is empty iff that has come."""
        tail = self._tail
        if tail:
            found = (tail + data[start : start + 3]).find(_END_OF_HEAD)
            if found >= 0:
                self._tail = b""
                return start + found + 4 - len(tail)
        found = data.find(_END_OF_HEAD, start)
        if found >= 0:
            self._tail = b""
            return found + 4
        self._tail = (tail + data[max(start, len(data) - 3) :])[-3:]
        return len(data)

    def _chunk_line(self, data: bytes, start: int) -> int:
        end = data.find(b"\n", start) + 1
        self._line += data[start : end or len(data)]
        if not end:
            if not _PART_OF_CHUNK_LINE.fullmatch(self._line):
                raise Refused("a chunk must begin with its size alone")
            return len(data)
        line, self._line = self._line, b""
        if not _CHUNK_LINE.fullmatch(line):
            raise Refused("a chunk must begin with its size alone")
        size = int(line[:-2], 16)
        if not size:
            self._at, self._tail = _At.TRAILERS, b"\r\n"
            return end
        self._at, self._left = _At.CHUNK_DATA, size + 2
        return self._counted(data, end)

    def _counted(self, data: bytes, start: int) -> int:
        taken = min(self._left, len(data) - start)
        self._left -= taken
        if not self._left:
            self.between_requests = self._at is _At.SIZED
            self._at = _At.HEAD if self.between_requests else _At.CHUNK_LINE
        return start + taken


def check_framing(
    version: str, hosts: Sequence[bytes], lengths: Sequence[bytes], codings: Sequence[bytes]
) -> int | None:
    """The length of the body, 0 for none; None: it comes in chunks. The values are those of all such headers.

    Raises:
        Refused: two readers could see different requests.
    """
    if version not in ("1.1", "1.0"):
        raise Refused("Only HTTP/1.1 and HTTP/1.0 are spoken here")
    if len(hosts) > 1 or (not hosts and version == "1.1") or not all(map(HOST.fullmatch, hosts)):
        raise Refused("Exactly one valid Host header is needed")
    if codings:
        if len(codings) > 1 or codings[0].lower() != b"chunked" or lengths or version == "1.0":
            raise Refused("The only transfer coding taken is chunked, alone and in HTTP/1.1")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit():
        raise Refused("Exactly one length is taken, in digits")
    return int(lengths[0])
