"""Answers of other servers that come whole in one piece: the short way for them, as `heads` is for requests.

One parser for all connections of a pool, calling nothing written in Python. It refuses nothing: what is unlike the
usual goes the long way (`client.ClientConnection`), which knows every rule.
"""

from __future__ import annotations

from functools import lru_cache
from operator import add
from typing import Final

import httptools
import msgspec

from .heads import KEEP_ALIVE, LINE_END, form, pick

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


class AnswerLayout:
    """The names of an answer's headers in order, and what follows from them alone."""

    __slots__ = ("connection", "dated", "form", "length", "names", "pick", "plain", "prefixes", "staying")

    def __init__(self, received: tuple[bytes, ...]) -> None:
        names = self.names = tuple([name.lower() for name in received])
        self.connection = names.index(b"connection") if b"connection" in names else -1
        self.length = names.index(b"content-length") if b"content-length" in names else -1
        self.dated = b"date" in names
        self.plain = self.length >= 0 and len(set(names)) == len(names) and _UNUSUAL.isdisjoint(names)
        self.form = LINE_END + form(received) + LINE_END if self.plain else b""
        """The header lines as they are usually written, between the line ends around them; `%` it with the values."""
        passing = [at for at, name in enumerate(names) if name not in HOP_BY_HOP]
        self.pick = pick(passing)
        self.prefixes = tuple([names[at] + b": " for at in passing])
        self.staying = None
        """What stands before the value of `Connection`, the only line that does not pass; b"": all do; None: others."""
        if len(passing) == len(names):
            self.staying = b""
        elif len(passing) == len(names) - 1 and self.connection >= 0:
            self.staying = b"\r\n%b: " % received[self.connection]


class WholeAnswer(msgspec.Struct, frozen=True, gc=False):
    """An answer with a length, of a server that keeps the connection."""

    status: int
    layout: AnswerLayout
    values: tuple[bytes, ...]
    body: bytes
    section: bytes
    """The header lines as they came, each with the line end before it."""

    def lines(self) -> bytes:
        """The header lines that pass on, all but hop-by-hop, each with the line end before it."""
        layout = self.layout
        staying = layout.staying
        if staying is None:
            return b"\r\n" + b"\r\n".join(map(add, layout.prefixes, layout.pick(self.values)))
        return self.section.replace(staying + self.values[layout.connection], b"", 1) if staying else self.section


_layout_of: Final = lru_cache(maxsize=_REMEMBERED)(AnswerLayout)


class WholeAnswers:
    """Reads such answers, of all the connections of a pool, one after the other."""

    def __init__(self) -> None:
        self._untried = 0
        self._fresh()

    def _fresh(self) -> None:
        # What the parser calls is C all the way: a list's and a dict's own methods.
        self._reasons: list[bytes] = []
        self._found: dict[bytes, bytes] = {}
        self._bodies: list[bytes] = []
        self._awaited: list[None] = []  # empty again when the parser has seen the end of the answer
        self.on_status = self._reasons.append
        self.on_header = self._found.setdefault
        self.on_body = self._bodies.append
        self.on_message_complete = self._awaited.pop
        self._parser = httptools.HttpResponseParser(self)

    def read(self, data: bytes) -> WholeAnswer | None:
        """The answer, if `data` is one and nothing else; None: nothing of it has been taken."""
        if self._untried:
            self._untried -= 1
            return None
        if len(data) > LARGEST or data[:9] != _VERSION:
            return None
        self._awaited.append(None)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._other()
            return None
        found, reasons, bodies = self._found, self._reasons, self._bodies
        if len(found) > _MOST:
            self._other()
            return None
        layout, values = _layout_of(tuple(found)), tuple(found.values())
        if (
            self._awaited
            or not layout.plain
            or len(reasons) != 1
            or len(bodies) > 1
            or (layout.connection >= 0 and values[layout.connection] not in KEEP_ALIVE)
        ):
            self._other()
            return None
        status, body = self._parser.get_status_code(), bodies.pop() if bodies else b""
        start = len(_VERSION) + len(b"200 ") + len(reasons.pop())  # of the header lines
        found.clear()
        # Every byte must be accounted for: of a header that came twice only the first value is here.
        rest = layout.form % values
        if data[start:] != rest + body:
            return None
        # Those below have no body, whatever their headers say; and 205 must not have one.
        if not 200 <= status <= 599 or status in (204, 205, 304) or values[layout.length] != b"%d" % len(body):
            return None
        return WholeAnswer(status, layout, values, body, rest[:-4])

    def _other(self) -> None:
        self._untried = _MISSES
        self._fresh()
