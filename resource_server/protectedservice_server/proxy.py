"""Passing an admitted request on to the upstream, and its answer back, as streams both ways."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

import msgspec

from .bearer import Header, error
from .decision import Facts
from .forwarded import Requests, response_headers
from .http1.answers import WholeAnswer
from .http1.client import Call, ClientConnection, Failure, Head
from .http1.exchange import Exchange
from .http1.messages import lines
from .http1.pool import Address, Origin, Pool
from .http1.ticker import INTERVAL, Ticker
from .identity import Identity
from .policy import Upstream, refused_address
from .trust import Trust

logger = logging.getLogger(__name__)

_LARGE: Final = 16 * 1024
"""Bytes from which on a piece is sent as it is: copying it behind others would cost more than another write."""

# RFC 9110 section 9.2.2, those that have no body as a rule.
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

_CLASSES: Final = ("", "1xx", "2xx", "3xx", "4xx", "5xx")

_STALLED: Final = error(408, "request_timeout", "The request body stopped coming")
_SLOW: Final = error(504, "upstream_timeout", "The upstream did not answer in time")
_UNREACHABLE: Final = error(502, "upstream_unreachable", "The upstream cannot be reached, or its answer cannot be read")

Observe = Callable[[str, float], None]


class Proxy:
    """What stands behind the gate when there is an upstream. `close` it at the end.

    Raises:
        TrustError: on construction, when the policy's caFile cannot be used.
    """

    def __init__(self, upstream: Upstream, identity: Identity, observe: Observe, ticker: Ticker) -> None:
        # The ticker's clock may be an interval old; a deadline is never early.
        self.patience = upstream.timeout + INTERVAL
        self.url = upstream.url
        self.observe = observe
        self.ticker = ticker

        def refused(address: Address) -> str | None:
            return refused_address(address, allow_loopback=upstream.allow_loopback)

        trust = Trust(Path(upstream.ca_file) if upstream.ca_file else None)
        origin = Origin.of(upstream.url, server_name=upstream.server_name)
        self.pool = Pool(origin, ticker, upstream.timeout, refused, trust.context)
        self.requests = Requests(identity, origin.authority)

    async def reach(self) -> None:
        """Connect to the upstream and part again. Raises OSError."""
        await self.pool.reach()

    async def close(self) -> None:
        """Close the connections to the upstream."""
        await self.pool.close()

    def forward(self, exchange: Exchange, target: bytes, facts: Facts | None) -> None:
        """Pass on a request: `target` is its path and query, as they were matched."""
        method, bodiless = exchange.method, exchange.length == 0
        relay = _Relay(
            self,
            exchange,
            self.requests.head(exchange, target, facts),
            method == "HEAD",
            bodiless and method in _REPEATABLE,
            self.patience if bodiless else None,
            monotonic(),
        )
        exchange.watch(relay)
        if not relay.over:
            self.pool.begin(relay)


class _Relay(Call, msgspec.Struct, eq=False):
    """One request with its answer: `Call` to the upstream's connection, `Receiver` to the caller's.

    A Struct because one is made for each request, and C makes it in half the time.
    """

    _proxy: Proxy
    _exchange: Exchange
    head: bytes
    headless: bool
    repeatable: bool
    patience: float | None
    _began: float
    connection: ClientConnection | None = None
    given_up: bool = False
    over: bool = False
    _out: list[bytes] | None = None  # of the answer, not written yet
    _caller_full: bool = False
    _upstream_full: bool = False

    def __repr__(self) -> str:
        return object.__repr__(self)  # a Struct's own tells every field, and so the token

    def _wait(self) -> None:
        """The upstream's time begins now."""
        if self.connection is not None:
            self.connection.deadline = self._proxy.ticker.now + self._proxy.patience

    def _wait_no_more(self) -> None:
        """It is not the upstream that is waited for."""
        if self.connection is not None:
            self.connection.deadline = None

    # From the upstream's connection.

    def sent(self) -> None:
        connection = self.connection
        if connection is None:
            return
        if self._exchange.length == 0:
            connection.request_sent = True
        if self._caller_full:
            connection.read(False)
        elif self._exchange.length == 0:
            self._wait()
        if self._exchange.length != 0:
            self._exchange.accept_body()

    def pause(self) -> None:
        self._upstream_full = True
        self._exchange.pause_body()
        if not self._exchange.tunnel:
            self._wait()

    def resume(self) -> None:
        self._upstream_full = False
        if self.connection is not None and not self.connection.request_sent:
            self._wait_no_more()
        self._exchange.resume_body()

    def interim(self, head: Head) -> None:
        self._exchange.inform(head.status, response_headers(head))

    def answered(self, head: Head) -> None:
        if head.status < 200:
            raise ValueError
        self._proxy.observe(_CLASSES[head.status // 100], monotonic() - self._began)
        self._out = [self._exchange.start(head.status, response_headers(head), head.length, dated=head.dated)]

    def answered_whole(self, answer: WholeAnswer) -> None:
        exchange = self._exchange
        if self._caller_full or exchange.http10 or exchange.started:
            Call.answered_whole(self, answer)
            return
        self.over = True
        try:
            self._proxy.observe(_CLASSES[answer.status // 100], monotonic() - self._began)
            exchange.pass_on(answer)
        except Exception as bug:  # nobody else would tell the caller: the connection knows nothing of it any more
            exchange.crash(bug)

    def body(self, data: bytes) -> None:
        out = self._out
        if out is None:
            out = self._out = []
        if self._exchange.chunks:
            out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            out.append(data)

    def flush(self) -> None:
        out = self._out
        if not out or self.over:
            return
        self._out = None
        if sum(map(len, out)) < _LARGE:
            self._exchange.write(b"".join(out))
        else:
            for piece in out:
                self._exchange.write(piece)
        if not self._caller_full and self.connection is not None and self.connection.request_sent:
            self._wait()

    def finished(self, received: Sequence[Header]) -> None:
        self.over = True
        if self._exchange.chunks:
            self._exchange.write(b"0\r\n%b\r\n" % lines(self._proxy.requests.trailers(received)))
        self._exchange.finish()

    def failed(self, failure: Failure) -> None:
        if self.over:
            return
        self.over = True
        begun = self._exchange.started
        self._proxy.observe("slow" if failure is Failure.SLOW else "unreachable", monotonic() - self._began)
        logger.warning(
            "The upstream failed", extra={"upstream": self._proxy.url, "cause": failure.value, "begun": begun}
        )
        if begun:
            self._exchange.fail()  # the caller must not take what came for the whole
        else:
            self._exchange.answer(_SLOW if failure is Failure.SLOW else _UNREACHABLE)

    def switched(self, head: Head) -> None:
        offered = {word.strip().lower() for word in self._exchange.upgrade.split(b",")}
        taken = [value.strip().lower() for name, value in head.headers if name == b"upgrade"]
        connection = self.connection
        if connection is None:
            return
        if not self._exchange.upgrade or len(taken) != 1 or taken[0] not in offered:
            connection.fail(Failure.PROTOCOL)
            return
        self._wait_no_more()
        self._proxy.observe("1xx", monotonic() - self._began)
        headers = response_headers(head)
        self._exchange.switch([*headers, (b"connection", b"upgrade"), (b"upgrade", taken[0])])

    def tunnelled(self, data: bytes) -> None:
        self._exchange.write(data)

    # From the caller's connection.

    def request_data(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._exchange.length is None else data)

    def request_ended(self, received: Sequence[Header]) -> None:
        if self.connection is None or self._exchange.length == 0:
            return
        if self._exchange.length is None:
            self.connection.write(b"0\r\n%b\r\n" % lines(self._proxy.requests.trailers(received)))
        self.connection.request_sent = True
        if not self._caller_full:
            self._wait()

    def request_stalled(self) -> None:
        self.over = True
        self._proxy.pool.give_up(self)
        if self._exchange.started:
            self._exchange.fail()
        else:
            self._exchange.keep_alive = False
            self._exchange.answer(_STALLED)

    def caller_left(self) -> None:
        self.over = True
        self._proxy.pool.give_up(self)

    def caller_full(self) -> None:
        self._caller_full, self.patience = True, None
        self._wait_no_more()
        if self.connection is not None:
            self.connection.read(False)

    def caller_drained(self) -> None:
        self._caller_full = False
        if self.connection is not None:
            self.connection.read(True)
            if (self.connection.request_sent or self._upstream_full) and not self._exchange.tunnel:
                self._wait()

    def caller_sent(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection.write(data)
