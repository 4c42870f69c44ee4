"""TLS connections from the moment TCP has them: counted, and given a deadline, before there is a word of HTTP.

The event loop's own servers tell of a connection when its handshake is over, so that whoever began handshakes and ended
none would hold file descriptors and memory without taking a place.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .connection import ServerConnection
from .limits import Limits
from .ticker import Ticker
from .unforeseen import log_bug

GRACE: Final = 1.0
"""Seconds that a handshake may take before it is the first to give up its place. It is a matter of two turns."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(eq=False, slots=True)
class _Handshake:
    place: socket.socket
    since: float
    begun: bool = False  # the loop has taken the socket over


class Handshakes:
    """Accepts on a listening socket, and makes a connection of each caller who finishes.

    `room` says whether there is a place for one more, and may end another to make one. `ended` is told when there is
    one handshake fewer.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        limits: Limits,
        ticker: Ticker,
        connection: Callable[[], ServerConnection],
        room: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        self._context = context
        self._limits = limits
        self._ticker = ticker
        self._connection = connection
        self._room = room
        self._ended = ended
        self._listening: socket.socket | None = None
        self._paused = False
        self._under_way: dict[ServerConnection, tuple[_Handshake, asyncio.Task[None]]] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self, listening: socket.socket) -> None:
        """Accept from now on."""
        listening.setblocking(False)
        self._listening = listening
        asyncio.get_running_loop().add_reader(listening, self._accept)

    def stop(self) -> None:
        """Accept no more; what is under way may finish."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def cut(self) -> None:
        """End those under way."""
        while self.give_up():
            pass

    def give_up(self, seconds: float = 0.0) -> bool:
        """End the oldest one, if it has taken as long as that; False: none has."""
        oldest = next(iter(self._under_way.items()), None)
        if oldest is None or self._ticker.now - oldest[1][0].since < seconds:
            return False
        connection, (_, task) = oldest
        del self._under_way[connection]
        task.cancel()
        return True

    def finished(self, connection: ServerConnection) -> None:
        """It is a connection like all others now."""
        self._under_way.pop(connection, None)

    def sweep(self) -> None:
        """Accept again, where there was no file descriptor for one more."""
        if self._paused and self._listening is not None:
            self._paused = False
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        # One at a time: its handshake begins before the loop asks for the next one.
        if self._listening is None:
            return
        try:
            place, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._paused = True  # the socket stays readable: asking again at once would be all that is done
            asyncio.get_running_loop().remove_reader(self._listening)
            return
        if len(self._under_way) >= self._limits.handshakes:
            self.give_up()
        if not self._room():
            place.close()
            return
        place.setblocking(False)
        handshake, connection = _Handshake(place, self._ticker.now), self._connection()
        task = asyncio.create_task(self._shake(handshake, connection))
        self._under_way[connection] = handshake, task
        task.add_done_callback(lambda _: self._over(handshake, connection))

    async def _shake(self, handshake: _Handshake, connection: ServerConnection) -> None:
        handshake.begun = True
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                handshake.place,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.handshake_seconds,
                ssl_shutdown_timeout=self._limits.stall_seconds,
            )
        except OSError:
            pass  # the caller speaks no TLS, or none that we take, or left, or was too slow
        except Exception as bug:
            log_bug("A handshake failed in a way that was not foreseen", bug)

    def _over(self, handshake: _Handshake, connection: ServerConnection) -> None:
        if not handshake.begun:
            handshake.place.close()
        self._under_way.pop(connection, None)
        self._ended()
