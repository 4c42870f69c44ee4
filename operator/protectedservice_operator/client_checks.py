"""When each client is looked at, at its authorization server. Times are kept in memory only: a check writes nothing.

After a start they fall due spread evenly over the coming period, whenever the last ones were.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

INTERVAL: Final = 3600.0  # seconds (design: drift check 1 h, jittered)


class ClientChecks:
    """Keeps the times, by the object's uid. `clock` is monotonic seconds."""

    def __init__(
        self,
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._interval, self._clock, self._jitter = interval, clock, jitter
        self._due: dict[str, float] = {}

    def due(self, uid: str) -> bool:
        """Whether it is time; one that was never seen is due within the coming period."""
        return self.due_in(uid) <= 0

    def due_in(self, uid: str) -> float:
        """Seconds until it is time."""
        if uid not in self._due:
            self._due[uid] = self._clock() + self._interval * self._jitter()
        return self._due[uid] - self._clock()

    def done(self, uid: str) -> None:
        """It was looked at, whatever came of it."""
        self._due[uid] = self._clock() + self._interval * (0.9 + 0.2 * self._jitter())

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._due.pop(uid, None)
