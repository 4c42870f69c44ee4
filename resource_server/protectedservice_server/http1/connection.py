"""One caller's connection: requests in, answers out in the same order, bounds all along (RFC 9112 section 9)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from ..bearer import Answer, Header, error
from .backlog import Backlog
from .exchange import Exchange
from .framing import Refused
from .heads import NO_LAYOUT, WholeHeads
from .limits import Limits
from .messages import whole
from .reader import Reader
from .ticker import Ticker

_AT_ONCE: Final = struct.pack("ii", 1, 0)  # linger, for 0 s: what is unsent is dropped, and the end is a reset

_UNSENT: Final = 64 * 1024
"""Bytes of answers, above TLS, that a caller may leave unread before it gets no more; uvloop's own: 512 KiB."""

_BELOW_TLS: Final = 32 * 1024
"""Bytes, of two records of TLS, beyond which uvloop takes no more from the socket while reading is paused; its own: 256
KiB. Less than one record would never be read."""

Handler = Callable[[Exchange], Answer | None]
"""Called with each request; the answer where it is known at once, None where it is given by the exchange's methods."""

_BUSY: Final = error(503, "overloaded", "Too many connections are open", (b"retry-after", b"1"))
_OVERLOADED: Final = error(503, "overloaded", "Too much waits to be decided", (b"retry-after", b"1"))
_STALLED: Final = error(408, "request_timeout", "The request stopped coming")


class Host(Protocol):
    """What a connection needs of its server."""

    limits: Limits
    backlog: Backlog
    ticker: Ticker
    handler: Handler
    heads: WholeHeads
    draining: bool
    secure: bool

    def opened(self, connection: ServerConnection) -> bool:
        """Note a new connection; False: there are too many."""

    def closed(self, connection: ServerConnection) -> None:
        """Forget it."""

    def refused(self) -> None:
        """A request was refused before any handler saw it."""

    def overloaded(self) -> None:
        """A connection was refused or ended for want of room."""


class ServerConnection(asyncio.Protocol):
    """The transport calls it, and a `Reader`; the server's sweep calls `sweep`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.limits = host.limits
        self.ticker = host.ticker
        self._handler = host.handler
        self._transport: asyncio.Transport
        self._heads = host.heads
        self._reader: Reader | None = None  # made for the first request that takes the long way
        self._exchange: Exchange | None = None
        self._takes = True  # whether what comes may be read now
        self._held = b""  # came while it might not
        self.counted = 0
        """Bytes that the backlog counts for this connection."""
        self.let_in = False
        """Whether a request that came by it was passed on: whoever sends such ones is no stranger."""
        self.parsing = False
        """Whether something is being read: what is answered now is answered within its own request."""
        self._ready = True  # whether a head is awaited of which nothing has come
        self._served = False  # whether there was a request
        self._unwanted = 0  # bytes of a body that nobody takes
        self._begun = False  # a head has begun, or bytes came that are none yet
        self._since = self.ticker.now  # when what is waited for began to be
        self.unread_since: float | None = None
        """Since when the caller leaves what it was sent unread."""
        self._unsent = 0  # bytes of the last answer that the caller had not taken at the last sweep
        self._lingering = False
        self._reading = True
        self.layout = NO_LAYOUT
        """Of its last head that took the short way, and mostly of the next."""
        self._client: str | None = None
        self.whence: tuple[bytes, bytes] | None = None
        """Kept for the proxy: a host, and the lines that tell the upstream of it and of this connection's other end."""

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

    @property
    def expendable(self) -> int:
        """Whether its place may go to a newcomer: 2: nothing is lost; 1: an answer that is not being read; 0: no."""
        exchange, limits = self._exchange, self.limits
        if exchange is not None and (not exchange.ended or exchange.tunnel):
            return 0
        now = self.ticker.now
        if self._lingering:
            return int(now - self._since > limits.linger_seconds)
        if self.unread_since is not None:
            return int(now - self.unread_since > limits.linger_seconds)
        return 1 if self._transport.get_write_buffer_size() else 2

    def close_if_idle(self) -> None:
        """Close unless an answer is under way."""
        if self.idle:
            self._transport.close()

    def cut(self) -> None:
        """End it now, and with it whatever is under way."""
        self._transport.abort()

    def reset(self) -> None:
        """As `cut`, by TCP's reset: an ordinary end would be that of an answer without a length."""
        place = self._transport.get_extra_info("socket")
        if place is not None:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.cut()

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass
        if self.secure:
            cast(Any, transport).set_read_buffer_limits(_BELOW_TLS, _BELOW_TLS)
            self._transport.set_write_buffer_limits(_UNSENT)
        if not self.host.opened(self):
            self.host.overloaded()
            self._last_answer(_BUSY)

    def connection_lost(self, exc: Exception | None) -> None:
        self.host.closed(self)
        self._leave()
        self._drop()

    def eof_received(self) -> bool:
        return False  # a caller that sends no more counts as gone: there is no other sign of it

    def data_received(self, data: bytes) -> None:
        # The short way, for most requests: the hot path.
        if self._ready and (exchange := self._heads.read(self, data)) is not None:
            self._exchange, self._served, self.parsing = exchange, True, True
            answer = None
            try:
                answer = self._handler(exchange)
            except Exception as bug:
                exchange.crash(bug)
            self.parsing = False
            if answer is None:
                if not exchange.ended:
                    self._waits_for(exchange, ())
            elif not (exchange.ended or self.host.draining or (transport := self._transport).is_closing()):
                ticker = self.ticker
                self._exchange, self._since = None, ticker.now
                transport.write(whole(answer, ticker.date, b"", exchange.method != "HEAD"))
            else:
                exchange.answer(answer)
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
        return not self._takes or (self.unread_since is not None and self._exchange is None)

    def _hold(self, data: bytes) -> None:
        """Keep what may not be parsed yet, and take no more."""
        self._held += data
        self._read(False)
        self.count()

    def pause_writing(self) -> None:
        self.unread_since = self.ticker.now
        self._ready = False
        if not self.let_in:
            self.count()
        if self._exchange is not None and self._exchange.receiver is not None:
            self._exchange.receiver.caller_full()
        else:
            self._read(False)

    def resume_writing(self) -> None:
        self.unread_since = None
        if self.counted:
            self.count()
        if self._exchange is not None and self._exchange.receiver is not None:
            self._exchange.receiver.caller_drained()
        if not self._held:
            self._read(True)
        elif self._takes and not self.parsing:
            self.take_body()

    # Reading.

    def _parse(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            reader = self._reader = Reader(self)
        self.parsing = True
        start, size = 0, len(data)
        try:
            while start < size and not self._lingering:
                if self._must_wait:
                    self._held = data[start:]
                    self._read(False)
                    break
                start = reader.feed(data, start)
                if reader.in_body:
                    if self._exchange is None or not self._exchange.ended:
                        self._since = self.ticker.now  # a body that nobody wants any more has its time in all
                elif reader.partial and not self._begun:
                    self._begun, self._ready, self._since = True, False, self.ticker.now
        except Refused as refusal:
            self._refuse(refusal)
        except Exception as bug:
            if self._exchange is None:
                raise
            self._exchange.crash(bug)
            self._linger()  # the parser is of no use any more
        finally:
            self.parsing = False
        exchange = self._exchange
        if self.counted or self._held or reader.kept or (exchange is not None and exchange.on_left is not None):
            self.count()

    # What is kept before anybody has let the request in.

    def count(self) -> None:
        """Tell the backlog what is kept; where there is no room for it, this connection ends.

        The body of a request that somebody takes is no part of it, nor a tunnel: such a caller has been let in, and may
        take its time to read, too. A head that came the short way counts once something is kept beside it: alone it is
        within every connection's share.
        """
        exchange, kept = self._exchange, 0
        if self._reader is not None:
            kept = self._reader.kept
        if exchange is None or exchange.receiver is None or (exchange.received and not exchange.tunnel):
            kept += len(self._held)
            if self.secure and not self._lingering:
                kept += cast(Any, self._transport).get_read_buffer_size()  # goes on for a while after `pause_reading`
        if exchange is not None and exchange.on_left is not None:
            kept += exchange.size
        if self.unread_since is not None and not self.let_in:
            kept += self._transport.get_write_buffer_size()
        if self.host.backlog.changes(self.counted, kept):
            self.counted = kept
            return
        self.host.overloaded()
        if self.unread_since is not None or self._lingering:
            self.cut()  # another answer would only be kept, too
        else:
            self._end_with(_OVERLOADED)

    def _drop(self) -> None:
        """Keep nothing any more."""
        self._held, self._reader = b"", None
        self.host.backlog.changes(self.counted, 0)
        self.counted = 0

    # The reader's calls.

    def began(self, exchange: Exchange) -> None:
        """A head is complete."""
        self._exchange, self._served = exchange, True
        self._takes = self._ready = self._begun = False  # until somebody wants the body, or the answer is there
        try:
            answer = self._handler(exchange)
            if answer is not None:
                exchange.answer(answer)
        except Exception as bug:
            exchange.crash(bug)
        if exchange.ended:
            self._takes = True

    def body_came(self, data: bytes) -> None:
        """A piece of a body."""
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.receiver is not None and not exchange.ended:
            exchange.receiver.request_data(data)
            return
        self._unwanted += len(data)
        if self._unwanted > self.limits.unwanted_bytes:
            self._linger()

    def request_came(self, trailers: Sequence[Header]) -> None:
        """The request whose head `began` is complete."""
        exchange = self._exchange
        if exchange is None:
            raise Refused("The request does not end where it should")
        exchange.received = True
        if exchange.ended:
            self._next(exchange)
        else:
            self._waits_for(exchange, trailers)

    def _waits_for(self, exchange: Exchange, trailers: Sequence[Header]) -> None:
        """Its request is received, and it is not answered yet."""
        self._takes = self._ready = False
        if exchange.receiver is not None:
            exchange.receiver.request_ended(trailers)

    # The exchange's calls.

    def write(self, data: bytes) -> None:
        """Send to the caller, if it is still there and nothing was said to be the last."""
        if not (self._lingering or self._transport.is_closing()):
            self._transport.write(data)

    def write_last(self, exchange: Exchange, data: bytes) -> None:
        """As `write` and `answered`, where the request is received and the connection stays: most answers."""
        if not (self._lingering or self._transport.is_closing()):
            self._transport.write(data)
        if exchange is not self._exchange:
            return
        self._exchange = exchange.receiver = None
        self._unwanted, self._since, self._takes = 0, self.ticker.now, True
        self._ready = not self._lingering and self.unread_since is None
        if self.counted:
            self.count()
        if self._ready and (self._held or not self._reading) and not self.parsing:
            self._go_on()

    def _go_on(self) -> None:
        """The next request may come, or has."""
        if self._held:
            self.take_body()
        elif not self._reading:
            self._read(True)

    def passed(self) -> None:
        """Something passed through the tunnel: it is not silent."""
        self._since = self.ticker.now

    def take_body(self) -> None:
        """Go on with what was held, and with what comes."""
        self._takes = True
        self._since = self.ticker.now
        if self.parsing:
            return
        held, self._held = self._held, b""
        if held:
            self.count()
            self.data_received(held)
        if self._takes and not self._held and self.unread_since is None:
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
            if self._ready and not self.parsing:
                self._go_on()
            return
        if not exchange.keep_alive and exchange.length != 0:
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
        self._unwanted = 0
        self._since = self.ticker.now
        self._takes = True
        self._ready = not self._lingering and self.unread_since is None
        # An answer that began before the drain has promised to keep the connection; it may be closed all the same.
        if self.host.draining or not exchange.keep_alive:
            self._linger()
        elif self.counted:
            self.count()

    # Refusing, ending.

    def _refuse(self, refusal: Refused) -> None:
        """Answer what is no valid request."""
        self.host.refused()
        self._end_with(error(refusal.status, refusal.code, refusal.why))

    def _end_with(self, answer: Answer) -> None:
        """A last answer. After another one has begun only the end is left: two answers would mix."""
        exchange = self._exchange
        begun = exchange is not None and exchange.started
        if exchange is not None and exchange.ended:
            self._linger()
        elif begun:
            self.cut()
        else:
            self._leave()
            self._last_answer(answer)

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
        self.write(whole(answer, self.ticker.date, b"connection: close\r\n", True))
        self._linger()

    def _linger(self) -> None:
        """Nothing is read as a request any more; the caller gets a moment to read what it was sent.

        Closing at once, with bytes of the caller unread, would make the kernel send a reset that can overtake the
        answer (RFC 9112 section 9.6).
        """
        if self._lingering:
            return
        self._lingering, self._ready = True, False
        self._since, self._unwanted = self.ticker.now, 0
        self._held, self._reader = b"", None
        self.count()
        self._read(True)
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def sweep(self, now: float) -> None:
        """End what takes too long."""
        if self.counted or (self.secure and not self._reading):
            self.count()
        limits, waited = self.limits, now - self._since
        if self.unread_since is not None and now - self.unread_since > limits.stall_seconds:
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
        # What lies below TLS cannot be seen; uvloop bounds its closing (see Handshakes).
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
        patience = limits.idle_seconds if self._served else limits.head_seconds
        if waited > patience + limits.stall_seconds:
            self.cut()  # closing waits for a caller who reads nothing
        elif waited > patience:
            self._transport.close()

    def _sweep_body(self, exchange: Exchange) -> None:
        if exchange.ended or exchange.receiver is None:
            self._linger()
        else:
            exchange.receiver.request_stalled()
