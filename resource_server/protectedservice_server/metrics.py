"""What the server counts, as plain numbers; `exposition` turns them into Prometheus' words when somebody asks.

No label holds a token, a path or a client.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from .breaker import State
from .decision import Reason

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_INTROSPECTION_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_UPSTREAM_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """Durations by bucket. `counts` has one more than there are bounds: what is beyond the last."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0


class Metrics:
    """One per process, or per middleware; implements `verifier.Observer`. All is counted in the event loop's thread."""

    def __init__(self) -> None:
        # Made beforehand: a rate of something that has not happened yet reads 0, not "no data".
        self.requests = dict.fromkeys(Reason, 0)
        self.lookups = dict.fromkeys(("hit", "miss", "joined", "stale"), 0)
        self.introspections: dict[str, Histogram] = {}
        self.upstream: dict[str, Histogram] = {}
        self.breaker = State.CLOSED
        self.cache_sizes: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.connections: Callable[[], int] = lambda: 0
        self.in_progress: Callable[[], int] = lambda: 0
        self.overloads: Callable[[], int] = lambda: 0
        self.backlog: Callable[[], int] = lambda: 0

    def decided(self, reason: Reason) -> None:
        """A request was let in or refused."""
        self.requests[reason] += 1

    def looked_up(self, result: str) -> None:
        """A token was looked up: `hit`, `miss` or `joined`; and `stale` after one of the latter in an outage."""
        self.lookups[result] += 1

    def introspected(self, result: str, seconds: float) -> None:
        """A question to the authorization server ended."""
        histogram = self.introspections.get(result)
        if histogram is None:
            histogram = self.introspections[result] = Histogram(_INTROSPECTION_BUCKETS)
        histogram.counts[bisect_left(_INTROSPECTION_BUCKETS, seconds)] += 1
        histogram.sum += seconds

    def upstream_answered(self, result: str, seconds: float) -> None:
        """The upstream's headers came, or did not."""
        histogram = self.upstream.get(result)
        if histogram is None:
            histogram = self.upstream[result] = Histogram(_UPSTREAM_BUCKETS)
        histogram.counts[bisect_left(_UPSTREAM_BUCKETS, seconds)] += 1
        histogram.sum += seconds

    def watch_cache(self, sizes: Callable[[], tuple[int, int]]) -> None:
        """Read the sizes of the tables (active, inactive) at each scrape."""
        self.cache_sizes = sizes

    def watch_connections(self, open_: Callable[[], int], in_progress: Callable[[], int]) -> None:
        """Read how many connections there are, and how many of them wait for an answer, at each scrape."""
        self.connections, self.in_progress = open_, in_progress

    def watch_load(self, overloads: Callable[[], int], backlog: Callable[[], int]) -> None:
        """Read how many connections were refused or ended for want of room, and the bytes kept of strangers."""
        self.overloads, self.backlog = overloads, backlog

    def breaker_changed(self, state: State) -> None:
        """The breaker opened, closed or lets a probe through."""
        self.breaker = state

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        # Prometheus' library is a third of what the process would need to start, so it is loaded at the first scrape.
        from .exposition import exposition  # noqa: PLC0415

        return exposition(self)
