"""Whether the upstream takes connections, for the operator: connected and parted, nothing sent, nobody's choice where.

Who isolates an upstream has to tell "nobody else gets through" from "nobody gets through at all". Anybody who reaches
the management port may ask; so there is one try at a time, and its answer holds for a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from .bearer import Answer, error
from .http1.exchange import Exchange

PATH: Final = b"/upstream"
PATIENCE: Final = 2.0
"""Seconds for a connection; the policy's timeout may be many times as long."""
HOLDS: Final = 1.0

_NO_STORE: Final = ((b"cache-control", b"no-store"),)
_REACHED: Final = Answer(204, _NO_STORE, b"")
_NOT_REACHED: Final = error(502, "upstream_unreachable", "The upstream takes no connection")


class UpstreamCheck:
    """Answers `PATH`. `reach` raises OSError, or takes too long, where the upstream is not reached."""

    def __init__(self, reach: Callable[[], Awaitable[None]], *, clock: Callable[[], float] = monotonic) -> None:
        self._reach, self._clock = reach, clock
        self._known: tuple[float, Answer] | None = None
        self._trying: asyncio.Task[None] | None = None
        self._waiting: list[Exchange] = []

    def ask(self, exchange: Exchange) -> None:
        """Answer, now or after the try under way."""
        if self._known is not None and self._clock() - self._known[0] < HOLDS:
            exchange.answer(self._known[1])
            return
        self._waiting.append(exchange)
        if self._trying is None:
            self._trying = asyncio.create_task(self._try())

    async def close(self) -> None:
        """Give up what is under way."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.gather(self._trying, return_exceptions=True)

    async def _try(self) -> None:
        answer = _NOT_REACHED
        try:
            async with asyncio.timeout(PATIENCE):
                await self._reach()
            answer = _REACHED
        except OSError:  # TimeoutError is one
            pass
        finally:
            self._known, self._trying = (self._clock(), answer), None
            waiting, self._waiting = self._waiting, []
            for exchange in waiting:
                exchange.answer(answer)  # whoever left meanwhile is not told
