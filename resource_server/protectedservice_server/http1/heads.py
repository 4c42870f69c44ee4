"""Request heads: what their headers are called, and the short way for those that come alone and whole.

Most requests are one head of HTTP/1.1 in one piece, with no body, no header twice, and the same names of headers as the
one before. `WholeHeads` reads just these, with one parser for all connections, calling nothing written in Python on the
way. It refuses nothing: what is unlike that goes the long way (`reader.Reader`), which knows every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import httptools

from .exchange import Exchange
from .framing import HOST

if TYPE_CHECKING:
    from .connection import ServerConnection

# Headers without which a request has no body, and its connection carries nothing but HTTP/1.1. `Connection` is apart;
# llhttp heeds what older programs call `Proxy-Connection` as if it were that.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection"})

# Others can have a body, and mostly have; to look at their heads twice would cost more than it saves.
_BODILESS: Final = frozenset(b"GHDO")  # GET, HEAD, DELETE, OPTIONS

LINE_END: Final = b"\r\n"
_END: Final = b"\r\n\r\n"
_VERSION: Final = b" HTTP/1.1\r\n"
KEEP_ALIVE: Final = (b"keep-alive", b"Keep-Alive")
_ITS_HOPS: Final = frozenset({b"keep-alive"})

METHODS: Final = {name.encode("ascii"): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
"""Those that are often seen, as text."""

LONGEST: Final = 8 * 1024
"""Bytes of a head that takes the short way; below the least that `Limits.head_bytes` allows."""

_MOST: Final = 50
"""Headers of such a head; below the least that `Limits.headers` allows."""

LONGEST_NAMES: Final = 2 * 1024
"""Bytes of the names of a layout that is worth remembering; real ones are below 500."""

_REMEMBERED: Final = 256
"""Layouts; with `LONGEST_NAMES` and the number of headers that is the most memory that callers can have taken for them,
4 MiB."""

_NONE: Final[tuple[bytes, ...]] = ()


class Layout:
    """The names of a head's headers, lower case and in order, and what follows from them alone."""

    __slots__ = ("authorization", "connection", "form", "host", "names", "plain", "size")

    def __init__(self, received: tuple[bytes, ...]) -> None:
        names = self.names = tuple([name.lower() for name in received])
        self.size = sum(map(len, names))
        """Bytes of the names."""
        self.host = names.index(b"host") if b"host" in names else -1
        """Where `Host` stands first; -1: nowhere."""
        self.connection = names.index(b"connection") if b"connection" in names else -1
        self.authorization = tuple([at for at, name in enumerate(names) if name == b"authorization"])
        """Where each `Authorization` stands."""
        self.plain = self.host >= 0 and len(set(names)) == len(names) <= _MOST and _FRAMING.isdisjoint(names)
        """Whether there is one `Host`, nothing twice, and nothing that says where the request ends."""
        self.form = form(received) + LINE_END if self.plain else b""
        """What follows the request's line where header lines are written as usual; `%` it with the values."""


_layout_of: Final = lru_cache(maxsize=_REMEMBERED)(Layout)


def layout_of(received: tuple[bytes, ...]) -> Layout:
    """The layout of these names, the same one each time unless they are long."""
    return (_layout_of if sum(map(len, received)) <= LONGEST_NAMES else Layout)(received)


def form(names: Sequence[bytes]) -> bytes:
    """Header lines of these names, each with its end, as they are usually written; `%` it with the values."""
    return b"".join([b"%b: %%b\r\n" % name.replace(b"%", b"%%") for name in names])


def pick(places: Sequence[int]) -> Callable[[Sequence[bytes]], Sequence[bytes]]:
    """What takes the values at these places out of all."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: [values[at] for at in places]


class WholeHeads:
    """Reads heads that come alone and whole, of all the connections of a server, one after the other."""

    def __init__(self) -> None:
        self._known_host = b""  # the last one that was looked at and was good
        self._fresh()

    def _fresh(self) -> None:
        # What the parser calls is C all the way: a list's and a dict's own methods.
        self._targets: list[bytes] = []
        self._found: dict[bytes, bytes] = {}
        self._awaited: list[None] = []  # empty again when the parser has seen the end of the request
        self.on_url = self._targets.append
        self.on_header = self._found.setdefault
        self.on_message_complete = self._awaited.pop
        self._parser = httptools.HttpRequestParser(self)

    def read(self, connection: ServerConnection, data: bytes) -> Exchange | None:
        """The request, if `data` is one such head and nothing else; None: nothing of it has been taken."""
        if data[-4:] != _END or data[0] not in _BODILESS or len(data) > LONGEST:
            return None
        found, targets = self._found, self._targets
        self._awaited.append(None)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fresh()
            return None
        if len(found) > _MOST:
            self._fresh()
            return None
        layout = (_layout_of if len(data) <= LONGEST_NAMES else layout_of)(tuple(found))
        values, method = tuple(found.values()), self._parser.get_method()
        # If memory ran out above, the target that is left here tells the next call that more is left.
        target = targets.pop() if targets else b""
        found.clear()
        end = len(method) + len(target) + 12  # of the request line
        if (
            data[end - 11 : end] != _VERSION  # llhttp takes other protocols' too
            or self._awaited
            or targets
            or not layout.plain
            or (layout.connection >= 0 and values[layout.connection] not in KEEP_ALIVE)
            or method not in METHODS
        ):
            self._fresh()
            return None
        if data[end:] != layout.form % values:
            return None  # a header came twice, and only its first value is here: every byte must be accounted for
        host = values[layout.host]
        if host != self._known_host:
            if not HOST.fullmatch(host):
                return None
            self._known_host = host
        at = layout.authorization
        exchange = Exchange(
            connection,
            METHODS[method],
            target,
            layout,
            values,
            (values[at[0]],) if at else _NONE,
            host,
            True,
        )
        exchange.received = True
        if layout.connection >= 0:
            exchange.hops = _ITS_HOPS
        return exchange
