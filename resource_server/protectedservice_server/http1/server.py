"""The sockets of one port: who is connected, the sweep over all of them, and an ordered end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from itertools import islice
from typing import Final

from .backlog import Backlog
from .connection import Handler, ServerConnection
from .handshakes import GRACE, Handshakes
from .heads import WholeHeads
from .limits import Limits
from .ticker import Ticker
from .unforeseen import log_bug

_LOOKED_AT: Final = 256
"""Connections among which an idle one is looked for; where all of these work, there is no room."""


class HttpServer:
    """Serves `handler` on a listening socket from `start` to `drain` or `close`."""

    def __init__(
        self,
        handler: Handler,
        *,
        ticker: Ticker,
        limits: Limits | None = None,
        refused: Callable[[], None] = lambda: None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.handler = handler
        self.limits = limits if limits is not None else Limits()
        self.ticker = ticker
        self.backlog = Backlog(self.limits.backlog_bytes, self.limits.backlog_share)
        self.heads = WholeHeads()
        self.draining = False
        self.overloads = 0
        """Connections that were refused or ended for want of places or of room for what they sent."""
        self.secure = tls is not None
        self.refused = refused
        self._connections: dict[ServerConnection, None] = {}  # the oldest first
        self._listening: asyncio.Server | None = None
        self._handshakes: Handshakes | None = None
        if tls is not None:
            self._handshakes = Handshakes(
                tls, self.limits, ticker, lambda: ServerConnection(self), self._has_room, self._tell_emptied
            )
        self._emptied = asyncio.Event()

    async def start(self, listening: socket.socket) -> None:
        """Accept from now on."""
        self.ticker.add(self.sweep)
        if self._handshakes is not None:
            self._handshakes.start(listening)
            return
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: ServerConnection(self), sock=listening, backlog=2048
        )

    async def drain(self, seconds: float) -> None:
        """Take no new connections and requests, let those under way finish for `seconds`, then cut what is left."""
        self.stop_accepting()
        try:
            async with asyncio.timeout(seconds):
                while self.open:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            pass
        self.close()

    def stop_accepting(self) -> None:
        """Each answer is the last of its connection from now on; idle connections end."""
        self.draining = True
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._handshakes is not None:
            self._handshakes.stop()
        for connection in tuple(self._connections):
            connection.close_if_idle()

    def close(self) -> None:
        """End everything now."""
        self.stop_accepting()
        if self._handshakes is not None:
            self._handshakes.cut()
        for connection in tuple(self._connections):
            connection.cut()
        self.ticker.remove(self.sweep)

    @property
    def open(self) -> int:
        """Connections there are, those in TLS's handshake included."""
        return len(self._connections) + (len(self._handshakes) if self._handshakes is not None else 0)

    @property
    def busy(self) -> int:
        """Requests that are not answered yet."""
        return sum(connection.busy for connection in self._connections)

    def sweep(self, now: float) -> None:
        """End what takes too long."""
        if self._handshakes is not None:
            self._handshakes.sweep()
        for connection in tuple(self._connections):
            try:
                connection.sweep(now)
            except Exception as bug:
                log_bug("A connection failed in a way that was not foreseen", bug)
                connection.cut()

    # The connections' calls.

    def opened(self, connection: ServerConnection) -> bool:
        if self._handshakes is not None:
            self._handshakes.finished(connection)  # it has had a place since TCP had it
        room = self._has_room()
        self._connections[connection] = None
        return room

    def _has_room(self) -> bool:
        """Whether there is a place for one more. Who takes long over a handshake is the first to lose its own."""
        if self.open < self.limits.connections:
            return True
        handshakes = self._handshakes
        if handshakes is None:
            return self._make_room()
        return handshakes.give_up(GRACE) or self._make_room() or handshakes.give_up()

    def _make_room(self) -> bool:
        """End one of the oldest connections that wait for a request: who only holds places must not keep others out.

        RFC 9112 section 9.5 lets a server close those at any time. Where there is none, one goes whose caller does not
        read its answer, or does not end what has been ended.
        """
        second: ServerConnection | None = None
        for old in islice(self._connections, _LOOKED_AT):
            match old.expendable:
                case 2:
                    break
                case 1 if second is None:
                    second = old
        else:
            if second is None:
                return False
            old = second
        del self._connections[old]
        old.cut()
        return True

    def overloaded(self) -> None:
        self.overloads += 1

    def closed(self, connection: ServerConnection) -> None:
        self._connections.pop(connection, None)
        self._tell_emptied()

    def _tell_emptied(self) -> None:
        if not self.open:
            self._emptied.set()
