"""A second reading of HTTP/1.1: what a strict reader sees in the bytes of a connection (RFC 9112).

It is slow, takes all bytes at once, and stops at the first thing that is not plain. Where it does not matter to where a
request ends it is more lenient than llhttp: it is an upper bound of what a front may see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# Several spaces between words are one to llhttp, and change nothing (section 3).
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) +([^\x00-\x20\x7f]+) +HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00\r\n]*)")
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}")

Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class Request:
    method: bytes
    target: bytes
    headers: tuple[Header, ...]
    body: bytes
    """As far as it came."""
    complete: bool
    last: bool
    """Whether its sender says that nothing follows."""


def read(data: bytes) -> list[Request]:
    """The requests in `data`, in order; only the last may be incomplete."""
    found: list[Request] = []
    position = 0
    while True:
        while data[position : position + 1] in (b"\r", b"\n"):
            position += 1  # empty lines before a request are passed over (section 2.2)
        end = data.find(b"\r\n\r\n", position)
        if end < 0:
            return found
        head = _head(data[position:end])
        if head is None:
            return found
        method, target, headers, minor = head
        length = _length(headers, minor)
        if length is None:
            return found
        body, complete, position = (
            _chunks(data, end + 4)
            if length < 0
            else (data[end + 4 : end + 4 + length], len(data) >= end + 4 + length, end + 4 + length)
        )
        words = {
            word.strip(b" \t").lower() for name, value in headers if name == b"connection" for word in value.split(b",")
        }
        last = b"close" in words or (minor == b"0" and b"keep-alive" not in words)
        found.append(Request(method, target, headers, body, complete, last))
        if last or not complete:
            return found


def _head(data: bytes) -> tuple[bytes, bytes, tuple[Header, ...], bytes] | None:
    first, *lines = data.split(b"\r\n")
    line = _LINE.fullmatch(first)
    fields = [_FIELD.fullmatch(line) for line in lines]
    if line is None or line[1] == b"CONNECT":
        return None
    headers: list[Header] = []
    for field in fields:
        if field is None:
            return None
        headers.append((field[1].lower(), field[2].strip(b" \t")))
    return line[1], line[2], tuple(headers), line[3]


def _length(headers: tuple[Header, ...], minor: bytes) -> int | None:
    """Of the body; -1: chunks; None: nobody can say (section 6)."""
    hosts = [value for name, value in headers if name == b"host"]
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if len(hosts) > 1 or (not hosts and minor == b"1"):
        return None
    if codings:
        plain = len(codings) == 1 and codings[0].lower() == b"chunked" and not lengths and minor == b"1"
        return -1 if plain else None
    if not lengths:
        return 0
    return int(lengths[0]) if len(lengths) == 1 and re.fullmatch(rb"[0-9]+", lengths[0]) else None


def _chunks(data: bytes, position: int) -> tuple[bytes, bool, int]:
    """The body, whether it is whole, and where what follows begins."""
    body = b""
    while True:
        end = data.find(b"\r\n", position)
        if end < 0 or not _SIZE.fullmatch(data[position:end]):
            return body, False, position
        size, position = int(data[position:end], 16), end + 2
        if size == 0:
            return body, *_trailers(data, position)
        body += data[position : position + size]
        position += size
        if data[position : position + 2] != b"\r\n":
            return body, False, position
        position += 2


def _trailers(data: bytes, position: int) -> tuple[bool, int]:
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return False, position
        line, position = data[position:end], end + 2
        if not line:
            return True, position
        if not _FIELD.fullmatch(line):
            return False, position
