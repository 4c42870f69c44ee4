"""One connection's requests, read piece by piece: llhttp parses, and what it lets through too much is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httptools

from ..bearer import Header
from .exchange import Exchange
from .framing import Cutter, Refused, check_framing
from .heads import METHODS, layout_of
from .messages import hops_of

if TYPE_CHECKING:
    from .connection import ServerConnection

# Offers that are not taken: this server stays at HTTP/1.1 (RFC 9110 section 7.8), and a tunnel of HTTP/2 to the
# upstream would carry requests that nobody has looked at.
_NOT_TUNNELLED: Final = (b"h2", b"http/", b"tls/")

_VERSIONS: Final = (b" HTTP/1.1", b" HTTP/1.0")


class Reader:
    """Tells its connection of heads (`began`), of bodies (`body_came`), and of ends (`request_came`)."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._limits = connection.limits
        self._cutter = Cutter()
        self._url = b""
        self._line = b""  # of the request, as far as it came
        self._line_seen = False
        self._headers: list[Header] = []
        self._head_bytes = 0
        self._length: int | None = 0  # of the body that comes
        self._upgrading = False  # the parser will stop behind this head
        self.in_body = False
        """Whether a head is complete and its request is not."""
        self._fresh_parser()

    def _fresh_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._behind_offer = False

    @property
    def partial(self) -> bool:
        """Whether a head or a trailer section has begun whose end has not come."""
        return self._cutter.partial

    @property
    def kept(self) -> int:
        """Bytes of a head or a trailer section whose end has not come."""
        return self._head_bytes

    def feed(self, data: bytes, start: int) -> int:
        """Read one piece of `data`: from `start` to the returned end. What follows a request is another piece.

        Raises:
            Refused: it is no valid request.
            Exception: what nobody foresaw of the connection's own calls.
        """
        end = self._cutter.end_of_piece(data, start)
        piece = data if end - start == len(data) else data[start:end]
        if not (self.in_body or self._line_seen):
            self._look_at_line(piece)
        if not self.in_body or self._cutter.in_trailers:
            self._head_bytes += len(piece)
            if self._head_bytes > self._limits.head_bytes:
                raise _too_large()
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._go_on_behind_offer()
        except httptools.HttpParserCallbackError as failure:
            raise failure.__context__ or failure from None
        except httptools.HttpParserError:
            raise Refused("The request is not valid HTTP/1.1") from None
        return end

    def _look_at_line(self, piece: bytes) -> None:
        """Refuse a request line that is not HTTP's own: llhttp takes RTSP and ICE as well, and does not tell."""
        line = self._line + piece if self._line else piece
        if line[:1] in (b"\r", b"\n"):
            line = line.lstrip(b"\r\n")  # empty lines before it are passed over (RFC 9112 section 2.2)
        end = line.find(b"\r\n")
        if end < 0:
            self._line = line[-len(_VERSIONS[0]) - 1 :]  # what the version is looked for in; llhttp keeps the rest
            return
        self._line, self._line_seen = b"", True
        if line[end - 9 : end] not in _VERSIONS:
            raise Refused("Only HTTP/1.1 and HTTP/1.0 are spoken here")

    def _go_on_behind_offer(self) -> None:
        """Go on behind an offered upgrade, where httptools stops: a fresh parser, told how the body is framed.

        The values come from the head that the first parser has read; a caller that offers h2c with a body (Java's HTTP
        client does) is served as if it had not offered anything.
        """
        self._upgrading = False
        self._fresh_parser()
        if self._cutter.between_requests:
            return
        length = self._length
        framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        self._parser = httptools.HttpRequestParser(_BodyOnly(self))
        self._behind_offer = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)

    # The parser's calls.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) == self._limits.headers:
            raise _too_large()  # at once: a head of many short lines takes twenty times its bytes
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        received, url = self._headers, self._url
        self._headers, self._url = [], b""
        layout = layout_of(tuple([name for name, _ in received]))
        values = tuple([value for _, value in received])
        exchange = Exchange(
            self._connection,
            METHODS.get(method := self._parser.get_method()) or method.decode("ascii"),
            url,
            layout,
            values,
            tuple([values[at] for at in layout.authorization]),
            values[layout.host] if layout.host >= 0 else b"",
            self._parser.should_keep_alive(),
        )
        self._frame(exchange)
        self._head_bytes, self._line_seen, self.in_body, self._length = 0, False, True, exchange.length
        self._connection.began(exchange)

    def _frame(self, exchange: Exchange) -> None:
        """Say where the request ends; raises Refused where that, or the server it is for, is doubtful."""
        headers = exchange.headers

        def values_of(wanted: bytes) -> list[bytes]:
            return [value.strip(b" \t") for name, value in headers if name == wanted]

        version = self._parser.get_http_version()
        exchange.http10 = version == "1.0"
        exchange.length = check_framing(
            version, values_of(b"host"), values_of(b"content-length"), values_of(b"transfer-encoding")
        )
        if exchange.method == "CONNECT":
            raise Refused("CONNECT is not served here")
        exchange.hops = hops_of(headers)
        if exchange.length is None:
            self._cutter.chunked()
        else:
            self._cutter.sized(exchange.length)
        if not exchange.http10 and any(value.lower() == b"100-continue" for value in values_of(b"expect")):
            exchange.expects_continue = exchange.length != 0
        if self._parser.should_upgrade():
            self._upgrading = True
            if not exchange.http10 and exchange.length == 0:
                offered = [word.strip() for value in values_of(b"upgrade") for word in value.split(b",")]
                exchange.upgrade = b", ".join(
                    word for word in offered if word and not word.lower().startswith(_NOT_TUNNELLED)
                )

    def on_body(self, data: bytes) -> None:
        self._connection.body_came(data)

    def on_message_complete(self) -> None:
        if not self._cutter.between_requests:
            if self._upgrading:
                return  # the end that httptools sees behind an offer; the body follows
            raise Refused("The request does not end where it should")
        trailers, self._headers = [(name.lower(), value) for name, value in self._headers], []
        self._head_bytes, self.in_body = 0, False
        if self._behind_offer:
            self._fresh_parser()
        self._connection.request_came(trailers)


class _BodyOnly:
    """Lets a reader hear of a body and its trailers, and not of the head that stands for the real one."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.on_body = reader.on_body
        self.on_message_complete = reader.on_message_complete
        self._headed = False

    def on_headers_complete(self) -> None:
        self._headed = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            self._reader.on_header(name, value)


def _too_large() -> Refused:
    return Refused("The request's headers are too many or too large", 431, "header_too_large")
