"""Workers take keys off the queue, one pass each, and turn the outcome into when to look again.

| outcome | next look |
| --- | --- |
| done | when the pass asked for it, if it did |
| Conflict | at once; by backoff when it happens again |
| Wait | by the key's backoff, not before the other side's Retry-After |
| UserMustEdit | on the next event; after an hour in any case, should the cause be gone |
| AdministratorMustAct | after a minute, or on the next event |
| anything else | a bug: traceback, then by backoff |

The pass itself has written the conditions before it raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from .errors import AdministratorMustAct, Conflict, Outcome, UserMustEdit, Wait
from .metrics import Metrics
from .resource import Key
from .work_queue import QueueClosed, WorkQueue

logger = logging.getLogger(__name__)

# Seconds. An edit is an event and is seen at once; the hour is for causes outside the object, and costs one pass.
USER_RETRY: Final = 3600.0
# Seconds. What an administrator must change is often outside the cluster, where no watch sees it.
ADMINISTRATOR_RETRY: Final = 60.0


class Reconciler(Protocol):
    """What the workers drive."""

    async def reconcile(self, key: Key) -> float | None:
        """One pass; returns the seconds after which to look again, or None. Raises errors.Outcome."""


class Workers:
    """`count` workers on one queue. `clock` is monotonic seconds."""

    def __init__(
        self, queue: WorkQueue, reconciler: Reconciler, metrics: Metrics, clock: Callable[[], float], *, count: int
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._metrics = metrics
        self._clock = clock
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self._conflicted: set[Key] = set()
        self._stopping = False

    def start(self) -> None:
        """Begin to work."""
        self._tasks = [asyncio.create_task(self._work(), name=f"worker {n}") for n in range(self._count)]

    async def stop(self, grace: float) -> None:
        """Take no more keys; passes under way may end within `grace` seconds and are cancelled then."""
        self._stopping = True
        self._queue.shutdown()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=grace)
        if late:
            logger.warning("%d passes had not ended after %g s and were cancelled", len(late), grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def dead(self) -> int:
        """Workers that ended although nobody stopped them: only a bug can do that."""
        return 0 if self._stopping else sum(task.done() for task in self._tasks)

    async def work_one(self) -> Key:
        """Wait for a key, make one pass over it, and see to what comes next. Raises QueueClosed."""
        key = await self._queue.get()
        started = self._clock()
        try:
            result = await self._pass(key)
        finally:
            self._queue.done(key)
        self._metrics.reconcile_seconds.labels(kind=key.kind).observe(self._clock() - started)
        self._metrics.reconciles.labels(kind=key.kind, result=result).inc()
        return key

    async def _work(self) -> None:
        while True:
            try:
                await self.work_one()
            except QueueClosed:
                return

    async def _pass(self, key: Key) -> str:
        """Returns the outcome's name in metrics."""
        queue = self._queue
        try:
            again = await self._reconciler.reconcile(key)
        except Conflict as conflict:
            if key in self._conflicted:
                self._wait(key, conflict)
            else:
                self._conflicted.add(key)
                queue.add(key)
            return "conflict"
        except Wait as wait:
            self._wait(key, wait)
            return "wait"
        except UserMustEdit as outcome:
            self._settle(key, outcome, USER_RETRY)
            return "user_must_edit"
        except AdministratorMustAct as outcome:
            self._settle(key, outcome, ADMINISTRATOR_RETRY)
            return "administrator_must_act"
        except Exception:
            seconds = queue.add_rate_limited(key)
            logger.exception("%s: a bug ended the pass; next in %.1f s", key, seconds)
            return "bug"
        self._conflicted.discard(key)
        queue.forget(key)
        if again is not None:
            queue.add_after(key, again)
        return "done"

    def _wait(self, key: Key, wait: Wait) -> None:
        seconds, attempt = (
            self._queue.add_rate_limited(key, at_least=wait.retry_after or 0.0),
            self._queue.failures(key),
        )
        if wait.at_latest is not None:
            self._queue.add_after(key, wait.at_latest)
        # One line when it begins; an outage over 10,000 objects must not fill the log.
        level = logging.INFO if attempt == 1 else logging.DEBUG
        logger.log(level, "%s waits: %s; attempt %d, next in %.1f s", key, wait, attempt, seconds)

    def _settle(self, key: Key, outcome: Outcome, seconds: float) -> None:
        self._conflicted.discard(key)
        self._queue.forget(key)
        self._queue.add_after(key, min(seconds, outcome.at_latest or seconds))
        logger.debug("%s: %s; next in %g s unless something changes", key, outcome, seconds)
