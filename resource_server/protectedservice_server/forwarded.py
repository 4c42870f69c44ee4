"""What passes from one side of the proxy to the other: heads as bytes, hop-by-hop headers left out. Pure.

The upstream gets the request as it came, except: hop-by-hop headers, the token and everything that pretends to come
from this server are taken off; `Host` is the upstream's own authority; who calls is told as the policy says
(`identity.py`), and whence in `X-Forwarded-For`, `-Host` and `-Proto`. The target is the bytes that were matched.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from .bearer import Header
from .decision import Facts
from .http1.client import Head
from .http1.exchange import Exchange
from .identity import Identity, plain

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

# Written by us. `http2-settings` goes with an offer that is not passed on.
_OURS: Final = frozenset({"content-length", "http2-settings"})

# What a receiver may act on as if it had stood in the head (RFC 9110 section 6.5.1): framing, routing, authentication,
# conditions, what describes the content.
_NO_TRAILER: Final = frozenset(
    {b"cache-control", b"cookie", b"set-cookie", b"max-forwards", b"range", b"www-authenticate", b"age", b"date"}
    | {b"expires", b"location", b"retry-after", b"vary", b"warning", b"pragma"}
)
_NO_TRAILER_PREFIXES: Final = (b"content-", b"if-", b"accept")

_LONGEST_REMEMBERED: Final = 64
"""Bytes of a header name that is worth remembering what becomes of it; real ones are shorter."""


class Requests:
    """Makes the heads of the requests that the upstream gets. Built once for a policy with an upstream."""

    def __init__(self, identity: Identity, authority: bytes) -> None:
        self._identity, self._authority = identity, authority
        self._remembered = lru_cache(maxsize=1024)(self._looked_at)
        self._told = lru_cache(maxsize=1024)(self._told_anew)

    def head(self, exchange: Exchange, target: bytes, facts: Facts | None) -> bytes:
        """The head of the request. Without `facts` nobody is named: the path is open to all."""
        named, passes = exchange.hops, self._passes
        parts = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (exchange.method.encode("ascii"), target, self._authority)]
        parts += [b"%b: %b\r\n" % header for header in exchange.headers if passes(header[0]) and header[0] not in named]
        if exchange.authorization and not self._identity.drops("authorization", facts):
            parts.append(b"authorization: %b\r\n" % exchange.authorization[0])
        client = exchange.client
        if client:
            parts.append(b"x-forwarded-for: %b\r\n" % client.encode("ascii"))
        if exchange.host:
            parts.append(b"x-forwarded-host: %b\r\n" % exchange.host)
        parts.append(b"x-forwarded-proto: https\r\n" if exchange.secure else b"x-forwarded-proto: http\r\n")
        if facts is not None:
            parts.append(self._told(facts))
        parts.append(_framing(exchange))
        parts.append(b"\r\n")
        return b"".join(parts)

    def _told_anew(self, facts: Facts) -> bytes:
        """The lines that say who calls. The same facts come back as long as their token is remembered."""
        return "".join(f"{name}: {value}\r\n" for name, value in self._identity.told(facts)).encode("ascii")

    def trailers(self, received: Iterable[Header]) -> list[Header]:
        """Trailers that may pass: those that nobody can mistake for a header that was checked or replaced."""
        return [
            (name, value)
            for name, value in received
            if self._passes(name) and name not in _NO_TRAILER and not name.startswith(_NO_TRAILER_PREFIXES)
        ]

    def _passes(self, name: bytes) -> bool:
        return self._remembered(name) if len(name) <= _LONGEST_REMEMBERED else self._looked_at(name)

    def _looked_at(self, name: bytes) -> bool:
        seen = plain(name.decode("latin-1"))
        if seen == "authorization" or seen in _OURS or seen.encode("latin-1") in HOP_BY_HOP:
            return False
        return not self._identity.drops(seen, None)


def response_headers(head: Head) -> list[Header]:
    """What the caller gets to see of the upstream's headers: all but hop-by-hop."""
    dropped = HOP_BY_HOP
    if head.hops:
        # The length says where the body ends: nobody can name it away.
        dropped = (dropped | head.hops) - {b"content-length"}
    if head.status == 204:
        dropped |= {b"content-length"}  # RFC 9110 section 8.6
    return [header for header in head.headers if header[0] not in dropped]


def _framing(exchange: Exchange) -> bytes:
    if exchange.length is None:
        return b"transfer-encoding: chunked\r\n"
    if exchange.upgrade:
        return b"connection: upgrade\r\nupgrade: %b\r\n" % exchange.upgrade
    if exchange.length or (b"content-length", b"0") in exchange.headers:
        return b"content-length: %d\r\n" % exchange.length
    return b""
