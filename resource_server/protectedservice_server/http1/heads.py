"""Request heads: what their headers are called, and the short way for those that come alone and whole.

Most requests are one head of HTTP/1.1 in one piece, with no body, no header twice, and the same names of headers as the
one before. `WholeHeads` reads just these, with one parser for all connections, calling nothing written in Python on the
way. It refuses nothing: what is unlike that goes the long way (`reader.Reader`), which knows every rule.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Final

import httptools

from .exchange import Exchange
from .framing import HOST

if TYPE_CHECKING:
    from .connection import ServerConnection

# Headers without which a request has no body, and its connection carries nothing but HTTP/1.1. `Connection` is apart;
# llhttp heeds what older programs call `Proxy-Connection` as if it were that.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection"})

# Others can have a body, and mostly have; to look at their heads twice would cost more than it saves. By their first
# byte: that it is really this method, the whole head's comparison says.
_BODILESS: Final = {name[0]: (name.decode("ascii"), name) for name in (b"GET", b"HEAD", b"DELETE", b"OPTIONS")}

_END: Final = b"\r\n\r\n"
KEEP_ALIVE: Final = (b"keep-alive", b"Keep-Alive")
_ITS_HOPS: Final = frozenset({b"keep-alive"})
_NO_HOPS: Final[frozenset[bytes]] = frozenset()

METHODS: Final = {name.encode("ascii"): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
"""Those that are often seen, as text."""

LONGEST: Final = 8 * 1024
"""Bytes of a head that takes the short way; below the least that `Limits.head_bytes` allows."""

_MOST: Final = 50
"""Headers of such a head, and of a layout that is remembered; below the least that `Limits.headers` allows."""

_LONGEST_NAMES: Final = 2 * 1024
"""Bytes of the names of a layout that is remembered; real ones are below 500."""

_REMEMBERED: Final = 256
"""Layouts; with their names' length and number that is the most memory that callers can have taken for them, 4 MiB; and
7 KiB for each connection, which keeps that of its last head."""


class Layout:
    """The names of a head's headers, lower case and in order, and what follows from them alone."""

    __slots__ = (
        "authorization",
        "connection",
        "count",
        "form",
        "hops",
        "host",
        "lasting",
        "names",
        "plain",
        "size",
        "token",
    )

    def __init__(self, received: tuple[bytes, ...]) -> None:
        names = self.names = tuple([name.lower() for name in received])
        self.size = sum(map(len, names))
        """Bytes of the names."""
        self.lasting = len(names) <= _MOST and self.size <= _LONGEST_NAMES
        """Whether it is remembered, and so is the same one for the next head with these names."""
        self.host = names.index(b"host") if b"host" in names else -1
        """Where `Host` stands first; -1: nowhere."""
        self.connection = names.index(b"connection") if b"connection" in names else -1
        self.hops = _NO_HOPS if self.connection < 0 else _ITS_HOPS
        """What `Connection` names where it stays away, or says no more than to keep the connection."""
        self.authorization = tuple([at for at, name in enumerate(names) if name == b"authorization"])
        """Where each `Authorization` stands."""
        first = self.authorization[0] if self.authorization else len(names)
        self.token = slice(first, first + 1)
        """The place of the first of them: the slice of the values is empty where there is none."""
        self.plain = self.host >= 0 and len(set(names)) == len(names) <= _MOST and _FRAMING.isdisjoint(names)
        """Whether there is one `Host`, nothing twice, and nothing that says where the request ends."""
        self.count = len(names) if self.plain else -1
        """How many values `form` takes; -1: it takes none."""
        self.form = b"%b %b HTTP/1.1\r\n" + form(received) + b"\r\n" if self.plain else b""
        """The head as it is usually written; `%` it with method, target and values."""


NO_LAYOUT: Final = Layout(())
"""Of no head that takes the short way."""

_layouts: Final[dict[tuple[bytes, ...], Layout]] = {}


def layout_of(received: tuple[bytes, ...]) -> Layout:
    """The layout of these names, the same one each time unless they are long or many."""
    layout = _layouts.get(received)
    if layout is None:
        layout = Layout(received)
        if layout.lasting:
            if len(_layouts) >= _REMEMBERED:
                _layouts.clear()
            _layouts[received] = layout
    return layout


def form(names: Sequence[bytes], left_out: Container[bytes] = ()) -> bytes:
    """Header lines of these names, each with its end, as they are usually written; `%` it with the values.

    Of those in `left_out` (lower case) nothing is written, but they have their value all the same: with none of its
    bytes, `%.0b`.
    """
    return b"".join(
        [
            b"%.0b" if left_out and name.lower() in left_out else b"%b: %%b\r\n" % name.replace(b"%", b"%%")
            for name in names
        ]
    )


class WholeHeads:
    """Reads heads that come alone and whole, of all the connections of a server, one after the other."""

    def __init__(self) -> None:
        self._known_host = b""  # the last one that was looked at and was good
        self._fresh()

    def _fresh(self) -> None:
        # What the parser calls is C all the way: a list's and a dict's own methods.
        self._targets: list[bytes] = []
        self._found: dict[bytes, bytes] = {}
        self.on_url = self._targets.append
        self.on_header = self._found.setdefault
        self._parser = httptools.HttpRequestParser(self)

    def read(self, connection: ServerConnection, data: bytes) -> Exchange | None:
        """The request, if `data` is one such head and nothing else; None: nothing of it has been taken."""
        if len(data) > LONGEST or data[-4:] != _END or (method := _BODILESS.get(data[0])) is None:
            return None
        found, targets = self._found, self._targets
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fresh()
            return None
        # If memory ran out below, what is left in either tells the next call that more is left.
        if len(targets) != 1:
            self._fresh()
            return None
        target, (text, name) = targets.pop(), method
        # Every byte must be accounted for: there may be less than a head, or more; of a header that came twice only the
        # first value is here; and llhttp takes other methods and the versions of other protocols too. Bytes that are
        # the same are read the same: where they are what the last layout makes of the values, the names are its names.
        layout, values = connection.layout, tuple(found.values())
        if len(values) != layout.count or layout.form % (name, target, *values) != data:
            layout = layout_of(tuple(found))
            if not layout.plain or layout.form % (name, target, *values) != data:
                self._fresh()
                return None
            if layout.lasting:
                connection.layout = layout
        found.clear()
        at = layout.connection
        if at >= 0 and values[at] not in KEEP_ALIVE:
            self._fresh()
            return None
        host = values[layout.host]
        if host != self._known_host:
            if not HOST.fullmatch(host):
                return None
            self._known_host = host
        return Exchange(connection, text, target, layout, values, values[layout.token], host, True, layout.hops, True)
