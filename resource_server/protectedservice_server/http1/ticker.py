"""One coarse clock and one timer for all connections, instead of a timer for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from .unforeseen import log_bug

INTERVAL: Final = 0.25
"""Seconds between two sweeps: how late a deadline may be noticed."""

Sweep = Callable[[float], None]


class Ticker:
    """Calls every sweep four times a second while there is any. Belongs to the loop in which it is first used."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds as the loop counts them, at most one interval old."""
        self.date = b""
        """`now` as an HTTP date (RFC 9110 section 5.6.7)."""
        self._sweeps: list[Sweep] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, sweep: Sweep) -> None:
        """Call `sweep` with the time from now on."""
        self._sweeps.append(sweep)
        if self._timer is None:
            self._look()
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick)

    def remove(self, sweep: Sweep) -> None:
        """Call it no more. Removing what is not there is no error."""
        if sweep in self._sweeps:
            self._sweeps.remove(sweep)
        if not self._sweeps and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self.now = asyncio.get_running_loop().time()
        self.date = formatdate(usegmt=True).encode("ascii")

    def _tick(self) -> None:
        self._look()
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick)
        for sweep in tuple(self._sweeps):
            try:
                sweep(self.now)
            except Exception as bug:  # it would keep those behind it from their deadlines, at each tick anew
                log_bug("A sweep failed in a way that was not foreseen", bug)
