"""What passes from one side of the proxy to the other: heads as bytes, hop-by-hop headers left out. Pure.

The upstream gets the request as it came, except: hop-by-hop headers, the token and everything that pretends to come
from this server are taken off; `Host` is the upstream's own authority; who calls is told in `X-Auth-Client-Id`,
`X-Auth-Subject` and `X-Auth-Scope`, and whence in `X-Forwarded-For`, `-Host` and `-Proto`. The target is the bytes that
were matched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from .bearer import Header
from .decision import Facts
from .http1.client import Head
from .http1.exchange import Exchange

HOP_BY_HOP: Final = frozenset(
    {  # RFC 9110 section 7.6.1, and what older programs used
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

IDENTITY: Final = (b"x-auth-client-id", b"x-auth-subject", b"x-auth-scope")

# Set anew by us or by nobody: a caller's word on any of them counts nothing. The length is written by us.
_REPLACED: Final = frozenset(
    {*IDENTITY, b"authorization", b"host", b"expect", b"forwarded", b"x-real-ip", b"content-length", b"http2-settings"}
)
_REPLACED_PREFIX: Final = b"x-forwarded-"

# What a receiver may act on as if it had stood in the head (RFC 9110 section 6.5.1): framing, routing, authentication,
# conditions, what describes the content.
_NO_TRAILER: Final = frozenset(
    {b"cache-control", b"cookie", b"set-cookie", b"max-forwards", b"range", b"www-authenticate", b"age", b"date"}
    | {b"expires", b"location", b"retry-after", b"vary", b"warning", b"pragma"}
)
_NO_TRAILER_PREFIXES: Final = (b"content-", b"if-", b"accept")

_LONGEST_REMEMBERED: Final = 64
"""Bytes of a header name that is worth remembering what becomes of it; real ones are shorter."""

_SAFE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_PLAIN_VALUE: Final = re.compile(r"[\x21-\x24\x26-\x7e](?:[\x20-\x24\x26-\x7e]*[\x21-\x24\x26-\x7e])?")


def request_head(exchange: Exchange, target: bytes, authority: bytes, facts: Facts | None) -> bytes:
    """The head of the request that the upstream gets. Without `facts` nobody is named: the path is open to all."""
    named = exchange.hops
    parts = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (exchange.method.encode("ascii"), target, authority)]
    parts += [b"%b: %b\r\n" % header for header in exchange.headers if _passes(header[0]) and header[0] not in named]
    client = exchange.client
    if client:
        parts.append(b"x-forwarded-for: %b\r\n" % client.encode("ascii"))
    if exchange.host:
        parts.append(b"x-forwarded-host: %b\r\n" % exchange.host)
    parts.append(b"x-forwarded-proto: https\r\n" if exchange.secure else b"x-forwarded-proto: http\r\n")
    if facts is not None:
        parts.append(_identity(facts.client_id, facts.sub, facts.scope))
    parts.append(_framing(exchange))
    parts.append(b"\r\n")
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _identity(*claims: str | None) -> bytes:
    """The lines that say who calls: client, subject and scope."""
    return b"".join(
        b"%b: %b\r\n" % (name, header_value(value).encode("ascii"))
        for name, value in zip(IDENTITY, claims, strict=True)
        if value
    )


def response_headers(head: Head) -> list[Header]:
    """What the caller gets to see of the upstream's headers: all but hop-by-hop."""
    dropped = HOP_BY_HOP
    if head.hops:
        # The length says where the body ends: nobody can name it away.
        dropped = (dropped | head.hops) - {b"content-length"}
    if head.status == 204:
        dropped |= {b"content-length"}  # RFC 9110 section 8.6
    return [header for header in head.headers if header[0] not in dropped]


def trailers(received: Iterable[Header]) -> list[Header]:
    """Trailers that may pass: those that nobody can mistake for a header that was checked or replaced."""
    return [
        (name, value)
        for name, value in received
        if _passes(name) and name not in _NO_TRAILER and not name.startswith(_NO_TRAILER_PREFIXES)
    ]


def header_value(text: str) -> str:
    """A claim as a header value: percent-encoded (UTF-8) where it is not printable ASCII.

    `%` itself is encoded too, and spaces at the ends: no two claims look alike to the upstream.
    """
    if _PLAIN_VALUE.fullmatch(text):
        return text
    encoded = quote(text.encode("utf-8", "surrogatepass"), safe=_SAFE)
    bare = encoded.strip(" ")
    left = len(encoded) - len(encoded.lstrip(" "))
    return "%20" * left + bare + "%20" * (len(encoded) - len(bare) - left)


def _framing(exchange: Exchange) -> bytes:
    if exchange.length is None:
        return b"transfer-encoding: chunked\r\n"
    if exchange.upgrade:
        return b"connection: upgrade\r\nupgrade: %b\r\n" % exchange.upgrade
    if exchange.length or (b"content-length", b"0") in exchange.headers:
        return b"content-length: %d\r\n" % exchange.length
    return b""


def _passes(name: bytes) -> bool:
    return _remembered(name) if len(name) <= _LONGEST_REMEMBERED else _looked_at(name)


def _looked_at(name: bytes) -> bool:
    # As the laxest of readers sees it: many turn `_` and `-` into the same variable.
    plain = name.replace(b"_", b"-")
    return plain not in HOP_BY_HOP and plain not in _REPLACED and not plain.startswith(_REPLACED_PREFIX)


_remembered = lru_cache(maxsize=1024)(_looked_at)
