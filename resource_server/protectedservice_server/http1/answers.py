"""Answers of other servers that come whole in one piece: the short way for them, as `heads` is for requests.

One parser for all connections of a pool, calling nothing written in Python. It refuses nothing: what is unlike the
usual goes the long way (`client.ClientConnection`), which knows every rule.
"""

from __future__ import annotations

from typing import Final

import httptools
import msgspec

from .heads import KEEP_ALIVE, form

LARGEST: Final = 16 * 1024
"""Bytes of an answer that takes the short way. Larger ones seldom come in one piece."""

_MOST: Final = 100
"""Headers of such an answer."""

_REMEMBERED: Final = 64
"""Layouts; with `LARGEST` that is the most memory they can take, 5 MiB."""

_MISSES: Final = 32
"""Answers that are not tried after one that did not come whole: servers that send the head apart always do."""

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

# Where one of them stands, an answer has more to it than a length. llhttp heeds `Proxy-Connection` as `Connection`.
_UNUSUAL: Final = frozenset({b"transfer-encoding", b"upgrade", b"trailer", b"proxy-connection"})

_VERSION: Final = b"HTTP/1.1 "
_BODILESS: Final = frozenset({204, 205, 304})  # 205 must not have a body; the others cannot


class AnswerLayout:
    """The names of an answer's headers in order, and what follows from them alone."""

    __slots__ = ("connection", "count", "dated", "form", "length", "names", "passing", "plain")

    def __init__(self, received: tuple[bytes, ...]) -> None:
        names = self.names = tuple([name.lower() for name in received])
        self.connection = names.index(b"connection") if b"connection" in names else -1
        self.length = names.index(b"content-length") if b"content-length" in names else -1
        self.dated = b"date" in names
        self.plain = self.length >= 0 and len(set(names)) == len(names) <= _MOST and _UNUSUAL.isdisjoint(names)
        self.count = len(names) if self.plain else -1
        """How many values `form` takes; -1: it takes none."""
        self.form = b"HTTP/1.1 %d %b\r\n" + form(received) + b"\r\n%b" if self.plain else b""
        """The answer as it is usually written; `%` it with status, reason, values and body."""
        self.passing = b"%b" + form(received, HOP_BY_HOP) + b"%b\r\n%b" if self.plain else b""
        """What passes on of it; `%` it with the status line, values, more lines, and body."""


class WholeAnswer(msgspec.Struct, frozen=True, gc=False):
    """An answer with a length, of a server that keeps the connection."""

    status: int
    layout: AnswerLayout
    values: tuple[bytes, ...]
    body: bytes

    def __repr__(self) -> str:
        return object.__repr__(self)  # a Struct's own tells every field: the body may be about a token

    def passed_on(self, status_line: bytes, more: bytes) -> bytes:
        """The answer as it passes on: its header lines as they came but those for this hop, and `more` of ours."""
        return self.layout.passing % (status_line, *self.values, more, self.body)


class WholeAnswers:
    """Reads such answers, of all the connections of a pool, one after the other."""

    def __init__(self) -> None:
        self._untried = 0
        self._layouts: dict[tuple[bytes, ...], AnswerLayout] = {}
        self._last = AnswerLayout(())  # mostly of the next one too
        self._fresh()

    def _fresh(self) -> None:
        # What the parser calls is C all the way: a list's and a dict's own methods.
        self._reasons: list[bytes] = []
        self._found: dict[bytes, bytes] = {}
        self._bodies: list[bytes] = []
        self.on_status = self._reasons.append
        self.on_header = self._found.setdefault
        self.on_body = self._bodies.append
        self._parser = httptools.HttpResponseParser(self)

    def read(self, data: bytes) -> WholeAnswer | None:
        """The answer, if `data` is one and nothing else; None: nothing of it has been taken."""
        if self._untried:
            self._untried -= 1
            return None
        if len(data) > LARGEST or data[:9] != _VERSION:
            return None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._other()
            return None
        found, reasons, bodies = self._found, self._reasons, self._bodies
        if len(reasons) != 1 or len(bodies) > 1:
            self._other()
            return None
        status, reason, body = self._parser.get_status_code(), reasons.pop(), bodies.pop() if bodies else b""
        # Every byte must be accounted for: there may be less than a head, or more than an answer; and of a header that
        # came twice only the first value is here. Bytes that are the same are read the same: where they are what the
        # last layout makes of the values, the names are its names.
        layout, values = self._last, tuple(found.values())
        if len(values) != layout.count or layout.form % (status, reason, *values, body) != data:
            layout = self._layout_of(tuple(found))
            if not layout.plain:
                self._other()
                return None
            if layout.form % (status, reason, *values, body) != data:
                self._fresh()
                return None
            self._last = layout
        found.clear()
        at = layout.connection
        if values[layout.length] != b"%d" % len(body) or (at >= 0 and values[at] not in KEEP_ALIVE):
            self._other()  # the rest of the body is to come, or the connection ends
            return None
        # These have none, whatever their headers say.
        if not 200 <= status <= 599 or status in _BODILESS:
            self._fresh()
            return None
        return WholeAnswer(status, layout, values, body)

    def _layout_of(self, names: tuple[bytes, ...]) -> AnswerLayout:
        layout = self._layouts.get(names)
        if layout is None:
            layout = AnswerLayout(names)
            if layout.plain:
                if len(self._layouts) >= _REMEMBERED:
                    self._layouts.clear()
                self._layouts[names] = layout
        return layout

    def _other(self) -> None:
        self._untried = _MISSES
        self._fresh()
