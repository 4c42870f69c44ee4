"""When something that an object needs again and again is due, and the task that does it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Appointment:
    """Of one object with one kind of work. Times are monotonic seconds; `jitter` is between 0 and 1."""

    due: float = 0.0
    failures: int = 0
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def next_due(self, now: float) -> float | None:
        """Seconds until it falls due.

        None where no clock is waited for: it is under way and will wake its object, or it is overdue and something else
        is in its way, whose change will.
        """
        remaining = self.due - now
        return remaining if self.task is None and remaining > 0 else None

    def succeeded(self, now: float, interval: float, jitter: float) -> None:
        """It ended as wished: again after about `interval` seconds."""
        self.failures = 0
        self.due = now + interval * (0.9 + 0.2 * jitter)

    def failed(self, now: float, first: float, longest: float, jitter: float) -> None:
        """It did not: again after about `first` seconds, twice as long each time, at most `longest`."""
        delay = min(first * 2.0**self.failures, longest)
        self.failures = min(self.failures + 1, 16)
        self.due = now + delay * (0.8 + 0.4 * jitter)

    def cancel(self) -> None:
        """Give up what is under way."""
        if self.task is not None:
            self.task.cancel()


async def cancel_all(appointments: Iterable[Appointment]) -> None:
    """Give up all that is under way, and wait for its end."""
    tasks = [appointment.task for appointment in appointments if appointment.task is not None]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
