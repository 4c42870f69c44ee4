"""What the server counts, in a registry of its own. No label holds a token, a path or a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .breaker import State
from .decision import Reason

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_INTROSPECTION_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_UPSTREAM_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """One per process, or per middleware; implements `verifier.Observer`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        requests = Counter(
            "protectedservice_requests", "Requests by what was decided", ["reason"], registry=self.registry
        )
        # Made beforehand: a rate of something that has not happened yet reads 0, not "no data".
        self._requests = {reason: requests.labels(reason.value) for reason in Reason}
        lookups = Counter(
            "protectedservice_cache_lookups", "Tokens looked up, by result", ["result"], registry=self.registry
        )
        self._lookups = {result: lookups.labels(result) for result in ("hit", "miss", "joined", "stale")}
        self._joins = Counter(
            "protectedservice_single_flight_joins",
            "Requests that waited for a question another request had asked",
            registry=self.registry,
        )
        self._entries = Gauge(
            "protectedservice_cache_entries", "Tokens remembered, by table", ["table"], registry=self.registry
        )
        self._introspections = Histogram(
            "protectedservice_introspection_seconds",
            "Introspections, by result, waiting for a free slot included",
            ["result"],
            buckets=_INTROSPECTION_BUCKETS,
            registry=self.registry,
        )
        self._breaker = Gauge("protectedservice_breaker_state", "0 closed, 1 half-open, 2 open", registry=self.registry)
        self._upstream = Histogram(
            "protectedservice_upstream_seconds",
            "Seconds until the upstream's headers, by result (a class of status, unreachable, slow)",
            ["result"],
            buckets=_UPSTREAM_BUCKETS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "protectedservice_requests_in_progress", "Requests that are not answered yet", registry=self.registry
        )

    def decided(self, reason: Reason) -> None:
        """A request was let in or refused."""
        self._requests[reason].inc()

    def looked_up(self, result: str) -> None:
        """A token was looked up: `hit`, `miss` or `joined`; and `stale` after one of the latter in an outage."""
        self._lookups[result].inc()
        if result == "joined":
            self._joins.inc()

    def introspected(self, result: str, seconds: float) -> None:
        """A question to the authorization server ended."""
        self._introspections.labels(result).observe(seconds)

    def upstream_answered(self, result: str, seconds: float) -> None:
        """The upstream's headers came, or did not."""
        self._upstream.labels(result).observe(seconds)

    def watch_cache(self, sizes: Callable[[], tuple[int, int]]) -> None:
        """Read the sizes of the tables (active, inactive) at each scrape."""
        self._entries.labels("active").set_function(lambda: sizes()[0])
        self._entries.labels("inactive").set_function(lambda: sizes()[1])

    def breaker_changed(self, state: State) -> None:
        """The breaker opened, closed or lets a probe through."""
        self._breaker.set(state.value)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)
