"""One breaker per authorization server: while it does not answer, nobody but one probe at a time asks it.

    CLOSED ──N failures in a row, or a Retry-After──> OPEN ──delay over──> HALF_OPEN (one attempt is out)
      ^                                                ^                       │
      └────────────────── it succeeded ────────────────┼───────────────────────┤
                                                       └── it failed: delay x2 ┘

Only outages are failures. A 400 or 401 is an answer, hence a success here.
"""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .. import reasons
from ..errors import ServerUnavailable

FAILURES: Final = 3  # in a row, before the breaker opens
FIRST_DELAY: Final = 1.0  # seconds until the first probe; doubles with each failed one
LONGEST_DELAY: Final = 30.0  # seconds
JITTER: Final = 0.25  # a delay is shortened by up to this part, so that operators do not probe in step
LONGEST_RETRY_AFTER: Final = 300.0  # seconds; a server that asks for more is asked again after this


class State(enum.StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Attempt:
    """One request that the breaker let through. Whoever holds it says how it ended, once."""

    def __init__(self, breaker: Breaker, epoch: int) -> None:
        self._breaker = breaker
        self.epoch = epoch
        self.settled = False

    def succeeded(self) -> None:
        """The server answered, whatever it said."""
        self.settled = True
        self._breaker.settle(self, failed=False)

    def failed(self, retry_after: float | None = None) -> None:
        """There was no answer to be trusted. `retry_after`: seconds that the server asked for."""
        self.settled = True
        self._breaker.settle(self, failed=True, retry_after=retry_after)


class Breaker:
    """See the drawing above.

    Args:
        clock: seconds, monotonic.
        jitter: a number in [0, 1).
        on_close: called after each change from open to closed, so that parked work can go on; must not raise.
    """

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        first_delay: float = FIRST_DELAY,
        longest_delay: float = LONGEST_DELAY,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._threshold, self._first_delay, self._longest_delay = failures, first_delay, longest_delay
        self._clock, self._jitter, self.on_close = clock, jitter, on_close
        self._failures = 0  # in a row, while closed
        self._rounds = 0  # how often it opened since it was last closed
        self._until: float | None = None  # when the next probe may go; None while closed
        self._probe: Attempt | None = None
        self._epoch = 0  # changes whenever the breaker opens or closes

    @property
    def state(self) -> State:
        if self._until is None:
            return State.CLOSED
        return State.OPEN if self._probe is None else State.HALF_OPEN

    @property
    def open(self) -> bool:
        """Not closed: the last thing known of the server is that it does not answer."""
        return self._until is not None

    @property
    def retry_after(self) -> float | None:
        """Seconds until asking makes sense; None while closed, 0 when a probe may go now."""
        if self._until is None:
            return None
        if self._probe is not None:
            return self._first_delay
        return max(0.0, self._until - self._clock())

    def check(self) -> None:
        """Raise ServerUnavailable if an attempt would be refused now; takes no place."""
        if self._until is not None and (self._probe is not None or self._clock() < self._until):
            raise ServerUnavailable(
                reasons.UNREACHABLE,
                "the authorization server did not answer lately, so nothing was sent; it is tried again by itself",
                retry_after=self.retry_after,
                uncertain=False,
            )

    @contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """Let one request through; raises ServerUnavailable (certain) if not.

        An attempt left unsettled (cancelled, or a bug) teaches nothing: a probe's place is free again at once.
        """
        self.check()
        attempt = Attempt(self, self._epoch)
        if self._until is not None:
            self._probe = attempt
        try:
            yield attempt
        finally:
            if not attempt.settled and self._probe is attempt:
                self._probe = None

    def settle(self, attempt: Attempt, *, failed: bool, retry_after: float | None = None) -> None:
        """Take an attempt's end into account; one that began before the breaker last moved says nothing new."""
        if attempt.epoch != self._epoch:
            return
        if self._probe is attempt:
            self._probe = None
            if failed:
                self._open(retry_after)
            else:
                self._close()
        elif failed:
            self._failures += 1
            if self._failures >= self._threshold or retry_after:
                self._open(retry_after)
        else:
            self._failures = 0

    def _open(self, retry_after: float | None) -> None:
        delay = min(self._longest_delay, self._first_delay * 2**self._rounds) * (1.0 - JITTER * self._jitter())
        delay = max(delay, min(retry_after or 0.0, LONGEST_RETRY_AFTER))
        # The exponent stops growing where the delay does: an outage of days must not end in huge numbers.
        self._rounds = min(self._rounds + 1, 16)
        self._until = self._clock() + delay
        self._epoch += 1

    def _close(self) -> None:
        self._until, self._failures, self._rounds = None, 0, 0
        self._epoch += 1
        if self.on_close is not None:
            self.on_close()
