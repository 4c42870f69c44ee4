"""What passes from one side of the proxy to the other: heads as bytes, hop-by-hop headers left out. Pure.

The upstream gets the request as it came, except: hop-by-hop headers, the token and everything that pretends to come
from this server are taken off; `Host` is the upstream's own authority; who calls is told as the policy says
(`identity.py`), and whence in `X-Forwarded-For`, `-Host` and `-Proto`. The target is the bytes that were matched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from .bearer import Header
from .decision import Facts
from .http1.answers import HOP_BY_HOP
from .http1.client import Head
from .http1.exchange import Exchange
from .http1.heads import Layout, form
from .identity import Identity, plain

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

_LONGEST_HOST: Final = 256
"""Bytes of a Host that is worth remembering; a name has at most 253."""

_MOST_TOLD: Final = 1024

_KEPT: Final[frozenset[bytes]] = frozenset({b"keep-alive"})
"""What `Connection` names as a rule: a header that does not pass anyhow."""


class _Passing:
    """What becomes of the heads of one layout."""

    __slots__ = ("form", "framed")

    def __init__(self, layout: Layout, authority: bytes, passes: Callable[[bytes], bool]) -> None:
        left_out = frozenset([name for name in layout.names if not passes(name)])
        start = b"%%b %%b HTTP/1.1\r\nhost: %b\r\n" % authority.replace(b"%", b"%%")
        self.form = start + form(layout.names, left_out) + b"%b%b%b%b\r\n"
        """The head that is passed on; `%` it with method, target, values, and four times lines of ours."""
        self.framed = b"content-length" in layout.names
        """Whether the caller told a length."""


class Requests:
    """Makes the heads of the requests that the upstream gets. Built once for a policy with an upstream."""

    def __init__(self, identity: Identity, authority: bytes) -> None:
        self._identity, self._authority = identity, authority
        self._remembered = lru_cache(maxsize=1024)(self._looked_at)
        self._passing = lru_cache(maxsize=256)(self._passing_anew)
        self._told: dict[int, tuple[Facts, bytes]] = {}

    def head(self, exchange: Exchange, target: bytes, facts: Facts | None) -> bytes:
        """The head of the request. Without `facts` nobody is named: the path is open to all."""
        layout, connection, host = exchange.layout, exchange.connection, exchange.host
        if exchange.hops <= _KEPT:
            passing = (self._passing if layout.lasting else self._passing_anew)(layout)
        else:
            passing = self._passing_anew(layout, exchange.hops)
        whence = connection.whence
        if whence is None or whence[0] != host:
            # Nearly all requests of a connection are for one host.
            whence = host, _whence(connection.client, host, connection.secure)
            if len(host) <= _LONGEST_HOST:
                connection.whence = whence
        ours = b""
        if facts is not None:
            # The same facts come back as long as their token is remembered; what is kept keeps its identity.
            told = self._told.get(id(facts)) or self._tell(facts)
            ours = told[1]
        return passing.form % (
            exchange.method.encode("ascii"),
            target,
            *exchange.values,
            self._token(exchange, facts) if self._identity.forward_token and exchange.authorization else b"",
            whence[1],
            ours,
            _framing(exchange) if exchange.length != 0 or exchange.upgrade or passing.framed else b"",
        )

    def _passing_anew(self, layout: Layout, named: frozenset[bytes] = _KEPT) -> _Passing:
        return _Passing(layout, self._authority, lambda name: name not in named and self._passes(name))

    def _token(self, exchange: Exchange, facts: Facts | None) -> bytes:
        if self._identity.drops("authorization", facts):
            return b""
        return b"authorization: %b\r\n" % exchange.authorization[0]

    def _tell(self, facts: Facts) -> tuple[Facts, bytes]:
        """The lines that say who calls, to be kept."""
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        lines = "".join(f"{name}: {value}\r\n" for name, value in self._identity.told(facts)).encode("ascii")
        told = self._told[id(facts)] = (facts, lines)
        return told

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


def _whence(client: str, host: bytes, secure: bool) -> bytes:
    """The lines that say where the request came from (X-Forwarded-*)."""
    return b"".join(
        (
            b"x-forwarded-for: %b\r\n" % client.encode("ascii") if client else b"",
            b"x-forwarded-host: %b\r\n" % host if host else b"",
            b"x-forwarded-proto: https\r\n" if secure else b"x-forwarded-proto: http\r\n",
        )
    )


def _framing(exchange: Exchange) -> bytes:
    if exchange.length is None:
        return b"transfer-encoding: chunked\r\n"
    if exchange.upgrade:
        return b"connection: upgrade\r\nupgrade: %b\r\n" % exchange.upgrade
    return b"content-length: %d\r\n" % exchange.length
