"""One caller's connection: requests in, answers out in the same order, bounds all along (RFC 9112 section 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

import httptools

from ..bearer import Answer, Header, error
from .exchange import Exchange
from .framing import Cutter, Refused, check_framing
from .limits import Limits
from .messages import hops_of, whole
from .ticker import Ticker

Handler = Callable[[Exchange], None]

# Headers without which a request has no body, no version but 1.1, and no end of its connection.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"connection"})

_METHODS: Final = {name.encode("ascii"): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}

# Offers that are not taken: this server stays at HTTP/1.1 (RFC 9110 section 7.8), and a tunnel of HTTP/2 to the
# upstream would carry requests that nobody has looked at.
_NOT_TUNNELLED: Final = (b"h2", b"http/", b"tls/")

_VERSIONS: Final = (b" HTTP/1.1", b" HTTP/1.0")
_BUSY: Final = error(503, "overloaded", "Too many connections are open", (b"retry-after", b"1"))
_STALLED: Final = error(408, "request_timeout", "The request stopped coming")


class Host(Protocol):
    """What a connection needs of its server."""

    limits: Limits
    ticker: Ticker
    handler: Handler
    draining: bool
    secure: bool

    def opened(self, connection: ServerConnection) -> bool:
        """Note a new connection; False: there are too many."""

    def closed(self, connection: ServerConnection) -> None:
        """Forget it."""

    def refused(self) -> None:
        """A request was refused before any handler saw it."""


class ServerConnection(asyncio.Protocol):
    """llhttp calls `on_*`; the server's sweep calls `sweep`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.limits = host.limits
        self.ticker = host.ticker
        self._handler = host.handler
        self._transport: asyncio.Transport
        self._fresh_parser()
        self._cutter = Cutter()
        self._exchange: Exchange | None = None
        self._takes = True  # whether what comes may be parsed now
        self._held = b""  # came while it might not
        self.parsing = False
        """Whether the parser is being fed: what is answered now is answered within its own request."""
        self._upgrading = False  # the parser will stop behind this head
        self._url = b""
        self._line = b""  # of the request, as far as it came
        self._line_seen = False
        self._headers: list[Header] = []
        self._in_body = False
        self._ready = True  # whether a head is awaited of which nothing has come
        self._known_host = b""  # the last one that was looked at and was good
        self._head_bytes = 0
        self._unwanted = 0  # bytes of a body that nobody takes
        self._begun = False  # a head has begun, or bytes came that are none yet
        self._since = self.ticker.now  # when what is waited for began to be
        self._unread_since: float | None = None  # since when the caller leaves its answer unread
        self._unsent = 0  # bytes of the last answer that the caller had not taken at the last sweep
        self._lingering = False
        self._reading = True
        self._client: str | None = None

    # What the rest of the server asks.

    @property
    def client(self) -> str:
        """The caller's address."""
        if self._client is None:
            peer = self._transport.get_extra_info("peername")
            text = str(peer[0]) if isinstance(peer, tuple) else ""
            # A socket for both families shows IPv4 as ::ffff:192.0.2.1.
            self._client = text.removeprefix("::ffff:") if "." in text else text
        return self._client

    @property
    def secure(self) -> bool:
        """Whether the connection is TLS."""
        return self.host.secure

    @property
    def busy(self) -> bool:
        """Whether a request is not answered yet."""
        return self._exchange is not None

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, or for the rest of a head."""
        return self._exchange is None and not self._lingering

    def close_if_idle(self) -> None:
        """Close unless an answer is under way."""
        if self.idle:
            self._transport.close()

    def cut(self) -> None:
        """End it now, and with it whatever is under way."""
        self._transport.abort()

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass
        if not self.host.opened(self):
            self._last_answer(_BUSY)

    def connection_lost(self, exc: Exception | None) -> None:
        self.host.closed(self)
        self._leave()

    def eof_received(self) -> bool:
        return False  # a caller that sends no more counts as gone: there is no other sign of it

    def data_received(self, data: bytes) -> None:
        # Most requests are one head of HTTP/1.1 that comes alone and whole. They take this short way: the hot path.
        if (
            self._ready
            and data.find(b"\r\n\r\n") == len(data) - 4
            and data.startswith(b" HTTP/1.1\r\n", data.find(b"\r\n") - 9)
            and len(data) <= self.limits.head_bytes
        ):
            self.parsing = True
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as failure:
                self._stopped(failure)
            self.parsing = False
        else:
            self._received(data)

    def _received(self, data: bytes) -> None:
        if self._lingering:
            self._unwanted += len(data)
            if self._unwanted > self.limits.linger_bytes:
                self.cut()
            return
        exchange = self._exchange
        if exchange is not None and exchange.tunnel:
            self._since = self.ticker.now
            if self._takes and exchange.receiver is not None:
                exchange.receiver.caller_sent(data)
                return
        if self._must_wait:
            self._hold(data)
        else:
            self._parse(data)

    @property
    def _must_wait(self) -> bool:
        """Whether what comes may not be parsed yet.

        A caller who reads no answers gets no further ones: small requests would fill the memory with large answers.
        """
        return not self._takes or (self._unread_since is not None and self._exchange is None)

    def _hold(self, data: bytes) -> None:
        """Keep what may not be parsed yet, and take no more."""
        self._held += data
        self._read(False)

    def pause_writing(self) -> None:
        self._unread_since = self.ticker.now
        self._ready = False
        if self._exchange is not None and self._exchange.receiver is not None:
            self._exchange.receiver.caller_full()
        else:
            self._read(False)

    def resume_writing(self) -> None:
        self._unread_since = None
        if self._exchange is not None and self._exchange.receiver is not None:
            self._exchange.receiver.caller_drained()
        if not self._held:
            self._read(True)
        elif self._takes and not self.parsing:
            self.take_body()

    # Feeding the parser.

    def _fresh_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._behind_offer = False

    def _parse(self, data: bytes) -> None:
        self.parsing = True
        start, size = 0, len(data)
        try:
            while start < size:
                if self._must_wait:
                    self._held = data[start:]
                    self._read(False)
                    break
                end = self._cutter.end_of_piece(data, start)
                piece = data if end - start == size else data[start:end]
                start = end
                self._feed(piece)
                if self._lingering:
                    break
        except Refused as refusal:
            self._refuse(refusal)
        finally:
            self.parsing = False

    def _feed(self, piece: bytes) -> None:
        if not (self._in_body or self._line_seen):
            self._look_at_line(piece)
        if not self._in_body or self._cutter.in_trailers:
            self._head_bytes += len(piece)
            if self._head_bytes > self.limits.head_bytes:
                raise _too_large()
        try:
            self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as failure:
            self._stopped(failure)
        if self._in_body:
            self._since = self.ticker.now
        elif self._cutter.partial and not self._begun:
            self._begun, self._ready, self._since = True, False, self.ticker.now

    def _look_at_line(self, piece: bytes) -> None:
        """Refuse a request line that is not HTTP's own: llhttp takes RTSP and ICE as well, and does not tell."""
        line = self._line + piece if self._line else piece
        if line[:1] in (b"\r", b"\n"):
            line = line.lstrip(b"\r\n")  # empty lines before it are passed over (RFC 9112 section 2.2)
        end = line.find(b"\r\n")
        if end < 0:
            self._line = line
            return
        self._line, self._line_seen = b"", True
        if line[end - 9 : end] not in _VERSIONS:
            raise Refused("Only HTTP/1.1 and HTTP/1.0 are spoken here")

    def _stopped(self, failure: Exception) -> None:
        """The parser did not come to the end of a piece."""
        if isinstance(failure, httptools.HttpParserUpgrade):
            self._go_on_behind_offer()
        elif not isinstance(failure, httptools.HttpParserCallbackError):
            self._refuse(Refused("The request is not valid HTTP/1.1"))
        elif isinstance(failure.__context__, Refused):
            self._refuse(failure.__context__)
        elif self._exchange is None:
            raise failure
        else:
            bug = failure.__context__
            self._exchange.crash(bug if isinstance(bug, Exception) else failure)
            self._linger()  # the parser is of no use any more

    def _go_on_behind_offer(self) -> None:
        """Go on behind an offered upgrade, where httptools stops: a fresh parser, told how the body is framed.

        The values come from the head that the first parser has read; a caller that offers h2c with a body (Java's HTTP
        client does) is served as if it had not offered anything.
        """
        self._upgrading = False
        self._fresh_parser()
        exchange = self._exchange
        if self._cutter.between_requests or exchange is None:
            return
        framing = b"transfer-encoding: chunked" if exchange.length is None else b"content-length: %d" % exchange.length
        self._parser = httptools.HttpRequestParser(_BodyOnly(self))
        self._behind_offer = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)

    # The parser's calls.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        headers, url = self._headers, self._url
        self._headers, self._url = [], b""
        if len(headers) > self.limits.headers:
            raise _too_large()
        parser = self._parser
        keep_alive = parser.should_keep_alive()
        host, others = b"", 0
        authorization: list[bytes] = []
        special: list[Header] | None = None
        for header in headers:
            name = header[0]
            if name == b"host":
                host, others = header[1], others + 1
            elif name == b"authorization":
                authorization.append(header[1])
            elif name in _FRAMING:
                special = [*special, header] if special else [header]
        exchange = Exchange(
            self,
            _METHODS.get(method := parser.get_method()) or method.decode("ascii"),
            url,
            headers,
            authorization,
            host,
            False,
            keep_alive,
        )
        # llhttp keeps a connection without being asked to in HTTP/1.1 only: the version needs no look then.
        if special or not keep_alive or others != 1 or host != self._known_host:
            self._frame(exchange, [value for name, value in headers if name == b"host"], special or ())
        self._begun, self._head_bytes, self._in_body, self._line_seen = False, 0, True, False
        self._exchange = exchange
        self._takes = self._ready = False  # until somebody wants the body, or the answer is there
        try:
            self._handler(exchange)
        except Exception as bug:
            exchange.crash(bug)
        if exchange.ended:
            self._takes = True

    def _frame(self, exchange: Exchange, hosts: Sequence[bytes], special: Sequence[Header]) -> None:
        version = self._parser.get_http_version()
        exchange.http10 = version == "1.0"
        lengths = [value.strip(b" \t") for name, value in special if name == b"content-length"]
        codings = [value.strip(b" \t") for name, value in special if name == b"transfer-encoding"]
        hosts = [value.strip(b" \t") for value in hosts]
        exchange.length = check_framing(version, hosts, lengths, codings)
        if exchange.method == "CONNECT":
            raise Refused("CONNECT is not served here")
        self._known_host = hosts[0] if hosts else b""
        exchange.hops = hops_of(special)
        if exchange.length is None:
            self._cutter.chunked()
        else:
            self._cutter.sized(exchange.length)
        for name, value in special:
            if name == b"expect" and value.strip().lower() == b"100-continue" and not exchange.http10:
                exchange.expects_continue = exchange.length != 0
        if self._parser.should_upgrade():
            self._upgrading = True
            if not exchange.http10 and exchange.length == 0:
                offered = [word.strip() for name, value in special if name == b"upgrade" for word in value.split(b",")]
                exchange.upgrade = b", ".join(
                    word for word in offered if word and not word.lower().startswith(_NOT_TUNNELLED)
                )

    def on_body(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.receiver is not None and not exchange.ended:
            exchange.receiver.request_data(data)
            return
        self._unwanted += len(data)
        if self._unwanted > self.limits.unwanted_bytes:
            self._linger()

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or not self._cutter.between_requests:
            if self._upgrading:
                return  # the end that httptools sees behind an offer; the body follows
            raise Refused("The request does not end where it should")
        exchange.received = True
        self._in_body = False
        if exchange.ended:
            self._next(exchange)
            return
        trailers, self._headers = self._headers, []
        self._takes = False
        if exchange.receiver is not None:
            exchange.receiver.request_ended(trailers)

    # The exchange's calls.

    def write(self, data: bytes) -> None:
        """Send to the caller, if it is still there and nothing was said to be the last."""
        if not (self._lingering or self._transport.is_closing()):
            self._transport.write(data)

    def passed(self) -> None:
        """Something passed through the tunnel: it is not silent."""
        self._since = self.ticker.now

    @property
    def unread(self) -> bool:
        """Whether the caller leaves what it was sent unread."""
        return self._unread_since is not None

    def take_body(self) -> None:
        """Go on with what was held, and with what comes."""
        self._takes = True
        self._since = self.ticker.now
        if self.parsing:
            return
        held, self._held = self._held, b""
        if held:
            self.data_received(held)
        if self._takes and not self._held and self._unread_since is None:
            self._read(True)

    def leave_body(self, exchange: Exchange) -> None:
        """Take nothing more of this request for now."""
        if exchange is self._exchange and (not exchange.received or exchange.tunnel):
            self._takes = False
            if not self.parsing:
                self._read(False)

    def answered(self, exchange: Exchange) -> None:
        """The answer has been written; its request may still be coming."""
        if exchange is not self._exchange:
            return
        if exchange.received:
            self._next(exchange)
        elif not exchange.keep_alive and exchange.length != 0:
            self._linger()
        if not (self._lingering or self.parsing):
            self.take_body()

    def _read(self, on: bool) -> None:
        if on is self._reading or self._transport.is_closing():
            return
        self._reading = on
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _next(self, exchange: Exchange) -> None:
        """The request is received and answered: the next head may come."""
        self._exchange = None
        exchange.receiver = None  # each knows the other; parted, both go without the garbage collector
        if exchange.length != 0:
            self._headers, self._unwanted, self._head_bytes = [], 0, 0
            if self._behind_offer:
                self._fresh_parser()
        self._since = self.ticker.now
        self._takes = True
        self._ready = not self._lingering and self._unread_since is None
        # An answer that began before the drain has promised to keep the connection; it may be closed all the same.
        if self.host.draining or not exchange.keep_alive:
            self._linger()

    # Refusing, ending.

    def _refuse(self, refusal: Refused) -> None:
        """Answer what is no valid request. After an answer has begun only the end is left: two answers would mix."""
        exchange = self._exchange
        begun = exchange is not None and exchange.started
        self.host.refused()
        if exchange is not None and exchange.ended:
            self._linger()
        elif begun:
            self.cut()
        else:
            self._leave()
            self._last_answer(error(refusal.status, refusal.code, refusal.why))

    def _leave(self) -> None:
        """Tell whoever works for this caller that it is not there any more."""
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange.left:
            return
        exchange.left = True
        if exchange.ended and not exchange.tunnel:
            return
        if exchange.receiver is not None:
            exchange.receiver.caller_left()
        elif exchange.on_left is not None:
            exchange.on_left()

    def _last_answer(self, answer: Answer) -> None:
        self.write(whole(answer, self.ticker.date, b"connection: close\r\n", body=True))
        self._linger()

    def _linger(self) -> None:
        """Nothing is read as a request any more; the caller gets a moment to read what it was sent.

        Closing at once, with bytes of the caller unread, would make the kernel send a reset that can overtake the
        answer (RFC 9112 section 9.6).
        """
        if self._lingering:
            return
        self._lingering, self._ready = True, False
        self._since, self._held, self._unwanted = self.ticker.now, b"", 0
        self._read(True)
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def sweep(self, now: float) -> None:
        """End what takes too long."""
        limits, waited = self.limits, now - self._since
        if self._unread_since is not None and now - self._unread_since > limits.stall_seconds:
            self.cut()
        elif self._lingering:
            self._sweep_rest(now)
        elif self._exchange is None:
            self._sweep_head(waited)
        elif self._exchange.tunnel:
            if waited > limits.tunnel_seconds:
                self.cut()
        elif not self._exchange.received and self._takes and waited > limits.body_seconds:
            self._sweep_body(self._exchange)

    def _sweep_rest(self, now: float) -> None:
        """End it once the caller has had its moment; that begins when the last answer has left our memory."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._since = unsent, now
        # What lies below TLS cannot be seen; asyncio bounds its closing (see HttpServer.start).
        patience = self.limits.stall_seconds if unsent or self.secure else self.limits.linger_seconds
        if now - self._since > patience:
            self.cut()

    def _sweep_head(self, waited: float) -> None:
        limits = self.limits
        if self._begun:
            if waited > limits.head_seconds:
                self.host.refused()
                self._last_answer(_STALLED)
            return
        patience = limits.idle_seconds if self._known_host else limits.head_seconds
        if waited > patience + limits.stall_seconds:
            self.cut()  # closing waits for a caller who reads nothing
        elif waited > patience:
            self._transport.close()

    def _sweep_body(self, exchange: Exchange) -> None:
        if exchange.ended or exchange.receiver is None:
            self._linger()
        else:
            exchange.receiver.request_stalled()


class _BodyOnly:
    """Lets a connection hear of a body and its trailers, and not of the head that stands for the real one."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete
        self._headed = False

    def on_headers_complete(self) -> None:
        self._headed = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            self._connection.on_header(name, value)


def _too_large() -> Refused:
    return Refused("The request's headers are too many or too large", 431, "header_too_large")
