"""Which key is reconciled next. The rules are those of client-go's work queue, plus two lanes.

    add ──> waiting (HIGH before LOW) ──get──> in work ──done──> gone, or waiting again if it was added meanwhile
             ^
    add_after, add_rate_limited ──> sleeping until due

A key is never waiting twice and never in work twice at once. Nothing is kept over a restart: everything is looked at
again then, which costs no writes. Seconds on an injected monotonic clock.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from .metrics import Metrics
from .resource import Key

# First retry after 0.2 s, for the many faults that pass at once; 5 min at the end, so that a long outage costs little
# and is still noticed to be over within a coffee break.
BACKOFF_FIRST: Final = 0.2
BACKOFF_LAST: Final = 300.0
# Each delay is drawn from 0.5 to 1.5 times its nominal value, so that keys that failed together do not come together.
JITTER: Final = 0.5


class Lane(enum.IntEnum):
    """Events before the work of a start or a resync: what somebody just did should not wait for 10,000 others."""

    HIGH = 0
    LOW = 1


class QueueClosed(Exception):
    """The queue was shut down: there is nothing more to get."""


class WorkQueue:
    """See the module. One event loop; no method but `get` waits."""

    def __init__(
        self, clock: Callable[[], float], *, rng: random.Random | None = None, metrics: Metrics | None = None
    ) -> None:
        self._clock = clock
        self._random = rng or random.Random()  # noqa: S311 (spreads retries, keeps no secret)
        self._metrics = metrics
        self._lanes: dict[Lane, OrderedDict[Key, float]] = {lane: OrderedDict() for lane in Lane}
        self._in_work: set[Key] = set()
        self._again: dict[Key, Lane] = {}  # in work, and added meanwhile
        self._due: dict[Key, tuple[float, Lane]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, key: Key, lane: Lane = Lane.HIGH) -> None:
        """To be reconciled as soon as a worker is free; a key that waits in LOW moves up when added to HIGH."""
        if self._closed:
            return
        if key in self._in_work:
            self._again[key] = min(lane, self._again.get(key, lane))
            return
        if key in self._lanes[Lane.HIGH]:
            return
        since = self._lanes[Lane.LOW].get(key)
        if since is not None:
            if lane is Lane.HIGH:
                del self._lanes[Lane.LOW][key]
                self._lanes[Lane.HIGH][key] = since
            return
        self._lanes[lane][key] = self._clock()
        if self._metrics:
            self._metrics.workqueue_adds.inc()
        self._changed.set()

    def add_after(self, key: Key, seconds: float, lane: Lane = Lane.HIGH) -> None:
        """To be reconciled that many seconds from now, or earlier if it is already due earlier."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key, lane)
            return
        due = self._clock() + seconds
        known = self._due.get(key)
        if known is not None and known[0] <= due:
            return
        self._due[key] = (due, lane)
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._changed.set()

    def add_rate_limited(self, key: Key, *, at_least: float = 0.0) -> float:
        """To be reconciled after the key's own backoff, which doubles each time; returns the seconds.

        `at_least` seconds, where the other side asked for them, are stretched a little, so that not all come at once.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        nominal = min(BACKOFF_LAST, BACKOFF_FIRST * 2.0 ** min(failures, 32))
        own = min(BACKOFF_LAST, nominal * self._random.uniform(1 - JITTER, 1 + JITTER))
        seconds = max(own, at_least * self._random.uniform(1, 1 + JITTER / 2))
        if self._metrics:
            self._metrics.workqueue_retries.inc()
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: Key) -> None:
        """The key is well: its next failure starts the backoff anew."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """How often the key was added by backoff since it was last well."""
        return self._failures.get(key, 0)

    async def get(self) -> Key:
        """The next key, which is then in work until `done`. Raises QueueClosed after `shutdown`."""
        while True:
            if self._closed:
                raise QueueClosed
            self._wake_due()
            for waiting in self._lanes.values():
                if waiting:
                    key, _ = waiting.popitem(last=False)
                    self._in_work.add(key)
                    return key
            self._changed.clear()
            timeout = self._heap[0][0] - self._clock() if self._heap else None
            try:
                await asyncio.wait_for(self._changed.wait(), timeout)
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """The pass over this key is over; it waits again at once if it was added meanwhile."""
        self._in_work.discard(key)
        lane = self._again.pop(key, None)
        if lane is not None:
            self.add(key, lane)

    def shutdown(self) -> None:
        """No more keys: `get` raises, `add` does nothing, keys in work may finish."""
        self._closed = True
        self._changed.set()

    def __len__(self) -> int:
        """Keys waiting for a worker; those asleep and those in work do not count."""
        return sum(len(waiting) for waiting in self._lanes.values()) + len(self._again)

    @property
    def sleeping(self) -> int:
        """Keys that will wait for a worker later."""
        return len(self._due)

    @property
    def in_work(self) -> frozenset[Key]:
        """Keys that a worker has."""
        return frozenset(self._in_work)

    def oldest(self) -> float:
        """Seconds the longest-waiting key has waited; 0 when none waits."""
        heads = [next(iter(waiting.values())) for waiting in self._lanes.values() if waiting]
        return self._clock() - min(heads) if heads else 0.0

    def next_due(self) -> float | None:
        """Seconds until the next sleeping key is due; None when none sleeps."""
        self._discard_stale()
        return self._heap[0][0] - self._clock() if self._heap else None

    def _wake_due(self) -> None:
        now = self._clock()
        self._discard_stale()
        while self._heap and self._heap[0][0] <= now:
            _, _, key = heapq.heappop(self._heap)
            _, lane = self._due.pop(key)
            self.add(key, lane)
            self._discard_stale()

    def _discard_stale(self) -> None:
        """Take off the heap's top what an earlier due time has replaced."""
        while self._heap and self._due.get(self._heap[0][2], (None,))[0] != self._heap[0][0]:
            heapq.heappop(self._heap)
