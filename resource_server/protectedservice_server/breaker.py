"""When not to ask at all: a circuit breaker for one authorization server. No I/O; the clock is injected.

::

    closed --5 failures in a row--> open --wait is over--> half-open: one probe at a time
       ^                              ^                        |              |
       |                              +---- longer wait -------+ probe fails  |
       +--------------------------------------------------------- probe succeeds

Whoever may ask reports back once: `succeeded` or `failed`; a probe that taught nothing about the server: `abandoned`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

FAILURES_TO_OPEN: Final = 5
"""In a row. Fewer would let one lost connection refuse everybody; more would keep callers waiting for timeouts."""

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 10.0
"""Seconds. Short: one probe each ten seconds costs an authorization server nothing, and users wait for its end."""

LONGEST_SERVER_WAIT: Final = 30.0
"""Seconds: the most that a server's own Retry-After is believed."""


class State(IntEnum):
    """The values are the metric's."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


_CLOSED: Final = State.CLOSED


class Breaker:
    """Counts failures in a row, refuses while open, then lets one probe through at a time."""

    def __init__(self, clock: Callable[[], float], changed: Callable[[State], None] = lambda state: None) -> None:
        self._clock = clock
        self._changed = changed
        self._failures = 0
        self._wait = 0.0
        self._open_until = 0.0
        self._probing = False
        self.state = State.CLOSED

    def wait(self) -> float | None:
        """None: ask now, and report back. Else the seconds after which it is worth trying again."""
        if self.state is _CLOSED:
            return None
        left = self._open_until - self._clock()
        if left > 0:
            return left
        if self._probing:
            return FIRST_WAIT
        self._probing = True
        self._become(State.HALF_OPEN)
        return None

    def succeeded(self) -> None:
        """The server answered as it should."""
        if self.state is _CLOSED and not self._failures:
            return  # as nearly always; `_wait` is over since it closed
        self._failures = 0
        self._wait = 0.0
        self._probing = False
        self._become(State.CLOSED)

    def failed(self, retry_after: float | None = None) -> None:
        """The server did not answer as it should; `retry_after` is what it asked for itself, in seconds."""
        self._failures += 1
        if self.state is State.OPEN:
            return  # a straggler from before it opened: the wait is running already
        if self.state is State.CLOSED and self._failures < FAILURES_TO_OPEN:
            return
        self._probing = False
        self._wait = min(max(FIRST_WAIT, self._wait * 2), LONGEST_WAIT)
        wait = max(self._wait, min(retry_after or 0.0, LONGEST_SERVER_WAIT))
        self._open_until = self._clock() + wait
        self._become(State.OPEN)

    def abandoned(self) -> None:
        """The probe taught nothing about the server; another caller may probe."""
        self._probing = False

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._changed(state)
