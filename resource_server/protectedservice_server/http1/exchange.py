"""One request and its answer, as the handler sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from ..bearer import Answer, Header, error
from .messages import lines, status_line, whole
from .unforeseen import log_bug

if TYPE_CHECKING:
    from .answers import WholeAnswer
    from .connection import ServerConnection
    from .heads import Layout

_FAILED: Final = error(500, "server_error", "The server failed")


class Receiver(Protocol):
    """Who works on a request: takes its body, and hears how the caller fares until the answer has ended."""

    def request_data(self, data: bytes) -> None:
        """A piece of the body."""

    def request_ended(self, trailers: Sequence[Header]) -> None:
        """The whole request was received."""

    def request_stalled(self) -> None:
        """The caller pauses within its body for too long. To be answered, or failed."""

    def caller_left(self) -> None:
        """The caller left, or what it sent on is no valid HTTP. Nothing more can be answered; the last call."""

    def caller_full(self) -> None:
        """The caller does not take the answer as fast as it is sent."""

    def caller_drained(self) -> None:
        """It does again."""

    def caller_sent(self, data: bytes) -> None:
        """Bytes of the protocol that was switched to."""


class Exchange(msgspec.Struct, eq=False):
    """A request whose head has been received. Exactly one answer is due, by `answer`, or by `start`..`finish`.

    `target` is as it was received. The headers are `values` under the names of `layout`; `authorization` and `host` are
    those of these names. A Struct because one is made for each request, and C makes it in half the time.
    """

    connection: ServerConnection
    method: str
    target: bytes
    layout: Layout
    values: Sequence[bytes]
    authorization: Sequence[bytes]
    host: bytes
    keep_alive: bool
    hops: frozenset[bytes] = frozenset()
    """Headers that `Connection` names: meant for this hop only."""
    received: bool = False
    """Whether the whole request is here."""
    length: int | None = 0
    """Of the body; None: it comes in chunks."""
    http10: bool = False
    """Whether the caller speaks HTTP/1.0."""
    expects_continue: bool = False
    upgrade: bytes = b""
    """The protocols that the caller offers to switch to, of those that may be (RFC 9110 section 7.8)."""
    receiver: Receiver | None = None
    started: bool = False
    """Whether the answer's head has been written."""
    ended: bool = False
    left: bool = False
    """Whether the caller has gone away: whatever is answered is dropped."""
    on_left: Callable[[], object] | None = None
    """Called when that happens and there is no receiver."""
    tunnel: bool = False
    chunks: bool = False
    """Whether the answer is sent in chunks."""

    def __repr__(self) -> str:
        return object.__repr__(self)  # a Struct's own tells every field, and so the token

    @property
    def headers(self) -> list[Header]:
        """In order; the names are lower case."""
        return list(zip(self.layout.names, self.values, strict=True))

    @property
    def client(self) -> str:
        """The caller's address."""
        return self.connection.client

    @property
    def secure(self) -> bool:
        """Whether it came by TLS."""
        return self.connection.secure

    @property
    def size(self) -> int:
        """Bytes that are kept of its head."""
        return len(self.target) + self.layout.size + sum(map(len, self.values))

    def answer(self, answer: Answer) -> None:
        """The whole answer. Whoever waits for `100 Continue` may send its body now or not, so that connection ends."""
        if self.ended or self.left:
            return
        connection = self.connection
        if self.length != 0:
            self._doubt_the_body(connection.limits.unwanted_bytes)
        self.started = self.ended = True
        keep = self.keep_alive and not (self.http10 or connection.host.draining)
        if keep and self.received:
            connection.write_last(self, whole(answer, connection.ticker.date, b"", self.method != "HEAD"))
            return
        line = b"" if keep else self._connection_line()
        connection.write(whole(answer, connection.ticker.date, line, self.method != "HEAD"))
        if self.received or not (connection.parsing and self.keep_alive):
            connection.answered(self)

    def _doubt_the_body(self, most: int) -> None:
        if self.expects_continue or (self.length is not None and self.length > most):
            self.keep_alive = False

    def watch(self, receiver: Receiver) -> None:
        """Have `receiver` told how the caller fares; of its body from `accept_body` on."""
        self.receiver = receiver
        connection = self.connection
        if not connection.let_in:
            connection.let_in = True
        if connection.counted:
            connection.count()
        if self.left:
            receiver.caller_left()
        elif connection.unread_since is not None:
            receiver.caller_full()

    def accept_body(self) -> None:
        """Take the body; a caller that waits may go on (RFC 9110 section 10.1.1)."""
        if self.expects_continue:
            self.expects_continue = False
            self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.connection.take_body()

    def pause_body(self) -> None:
        """Take no more of the body for now."""
        self.connection.leave_body(self)

    def resume_body(self) -> None:
        """Take more of the body, or of the tunnel."""
        if self.tunnel or not self.received:
            self.connection.take_body()

    def inform(self, status: int, headers: Sequence[Header]) -> None:
        """An interim answer (1xx) that the upstream sent; HTTP/1.0 knows none (RFC 9110 section 15.2)."""
        if not (self.started or self.http10 or self.left):
            self.connection.write(b"%b%b\r\n" % (status_line(status), lines(headers)))

    def start(self, status: int, headers: Sequence[Header], length: int | None, *, dated: bool) -> bytes:
        """Begin a streamed answer: its head, for the caller to write with the first piece.

        `length` is what `headers` promise of the body, if they do. An answer without a length goes out in chunks, or up
        to the end of the connection where the caller speaks HTTP/1.0.
        """
        self.started = True
        head = status_line(status) + lines(headers)
        if not dated:
            head += b"date: %b\r\n" % self.connection.ticker.date
        if length is None and self.method != "HEAD" and status not in (204, 304):
            if self.http10:
                self.keep_alive = False
            else:
                self.chunks = True
                head += b"transfer-encoding: chunked\r\n"
        return b"%b%b\r\n" % (head, self._connection_line())

    def pass_on(self, answer: WholeAnswer) -> None:
        """The whole answer of another server in one write, to a request that is received and speaks HTTP/1.1."""
        connection = self.connection
        more = b"" if answer.layout.dated else b"date: %b\r\n" % connection.ticker.date
        self.ended = True
        if self.keep_alive and not connection.host.draining:
            connection.write_last(self, answer.passed_on(status_line(answer.status), more))
            return
        connection.write(answer.passed_on(status_line(answer.status), more + self._connection_line()))
        connection.answered(self)

    def write(self, data: bytes) -> None:
        """Bytes of the answer, framed already; or of the tunnel."""
        self.connection.write(data)
        if self.tunnel:
            self.connection.passed()

    def finish(self) -> None:
        """The streamed answer has been written to its end."""
        if not self.ended:
            self.ended = True
            self.connection.answered(self)

    def fail(self) -> None:
        """The answer broke off: cut the connection, so that the caller sees that something is missing."""
        self.ended = True
        if self.http10:
            self.connection.reset()
        else:
            self.connection.cut()

    def switch(self, headers: Sequence[Header]) -> None:
        """101: from here on bytes pass both ways, until one side ends (RFC 9110 section 7.8)."""
        self.started = self.tunnel = True
        self.keep_alive = False
        self.connection.write(b"%b%b\r\n" % (status_line(101), lines(headers)))
        self.connection.take_body()

    def crash(self, bug: Exception) -> None:
        """Nobody foresaw this: say so where an answer can still be given, or cut it off."""
        log_bug("A request failed in a way that was not foreseen", bug)
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.caller_left()
        if self.started or self.ended:
            self.fail()
        else:
            self.keep_alive = False
            self.answer(_FAILED)

    def _connection_line(self) -> bytes:
        if self.keep_alive and not self.connection.host.draining:
            return b"connection: keep-alive\r\n" if self.http10 else b""
        self.keep_alive = False
        return b"connection: close\r\n"
