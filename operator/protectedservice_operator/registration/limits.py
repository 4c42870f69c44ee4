"""How fast and how wide the operator talks to one authorization server: a token bucket and a number of places."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from ..authorization_server import Rates

DEFAULTS: Final = Rates()  # of AuthorizationServer.spec.limits


class Limits:
    """At most `concurrency` requests at once, at most `rate` a second after a burst of `burst`.

    Nobody is refused: callers wait, first come first served. `clock` gives seconds, monotonic.
    """

    def __init__(
        self,
        *,
        rate: float = DEFAULTS.requests_per_second,
        burst: int = DEFAULTS.burst,
        concurrency: int = DEFAULTS.concurrency,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.concurrency = concurrency
        self._rate, self._burst = rate, float(burst)
        self._clock, self._sleep = clock, sleep
        self._tokens, self._counted = float(burst), clock()
        self._places = asyncio.Semaphore(concurrency)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a place and for the bucket, then hold the place.

        The bucket comes second, so that a request leaves at the moment it was counted for and a queue for places
        cannot turn into a burst.
        """
        async with self._places:
            await self._take()
            yield

    async def _take(self) -> None:
        """Take one token, on credit if need be, and sleep until it would have been there."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._counted) * self._rate)
        self._counted = now
        self._tokens -= 1.0
        if self._tokens >= 0.0:
            return
        try:
            await self._sleep(-self._tokens / self._rate)
        except BaseException:
            self._tokens += 1.0  # cancelled while waiting: nothing was sent, so nothing was spent
            raise
