"""What the operator counts. Names follow controller-runtime where it has one; no label ever names an object."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "protectedservice_"


class Metrics:
    """All metrics of one operator process, in a registry of their own, so that tests never share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        # Kubernetes API
        self.kube_requests = self._counter(
            "kube_requests",
            "Requests to the Kubernetes API; code is `none` where no answer came.",
            "verb",
            "kind",
            "code",
        )
        self.watch_events = self._counter("watch_events", "Watch events that changed the cache.", "kind")
        self.resyncs = self._counter("resyncs", "Full lists taken to compare the cache with.", "kind")
        self.resync_missed_deletes = self._counter(
            "resync_missed_deletes", "Deletions that only a resync found (a relist of the watch hides them).", "kind"
        )
        self.watch_lag_detected = self._counter(
            "watch_lag_detected", "Changes found by a resync that no watch delivered within a minute.", "kind"
        )
        self.cached_objects = self._gauge("cached_objects", "Objects in the watch cache.", "kind")
        self.start_sync_seconds = self._gauge("start_sync_seconds", "Seconds until the caches were full at start.")

        # Reconcile
        self.reconciles = self._counter("reconcile", "Passes by outcome.", "kind", "result")
        self.reconcile_seconds = self._histogram("reconcile_seconds", "Duration of a pass.", "kind")
        self.drift_repairs = self._counter("drift_repairs", "Children put right after somebody else's edit.", "kind")
        self.events = self._counter(
            "events", "Kubernetes Events by fate: posted, repeated (held back), failed.", "fate"
        )

        # Work queue
        self.workqueue_adds = self._counter("workqueue_adds", "Keys added, repetitions of a waiting key excepted.")
        self.workqueue_retries = self._counter("workqueue_retries", "Keys added by backoff.")
        self.workqueue_depth = self._gauge("workqueue_depth", "Keys waiting for a worker.")
        self.workqueue_oldest = self._gauge("workqueue_oldest_seconds", "Seconds the oldest waiting key has waited.")

        # Authorization servers
        self.as_requests = self._counter(
            "as_requests", "Requests to authorization servers; code is `none` where no answer came.", "op", "code"
        )
        self.as_breaker_open = self._gauge(
            "as_breaker_open", "1 while requests to this authorization server are held back.", "authorization_server"
        )
        self.registrations = self._counter("registrations", "Clients registered, updated and deleted.", "op")
        self.registration_uncertain = self._counter(
            "registration_uncertain", "Attempts that may have left a client behind at the authorization server."
        )
        self.orphans = self._gauge(
            "orphans", "Clients in the ledger whose object is gone, at the last sweep, by what can be done.", "fate"
        )
        self.verifications = self._counter("verifications", "Live 401/200/401 proofs by result.", "result")

    def observe(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Make a gauge (one series of it, where it has labels) read its value when it is scraped."""
        gauge.set_function(read)

    def exposition(self) -> bytes:
        """All of it, in the Prometheus text format."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float:
        """The present value of one sample, 0 where it was never touched; `name` without our prefix."""
        return self.registry.get_sample_value(PREFIX + name, labels) or 0.0

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        buckets = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30)
        return Histogram(PREFIX + name, text, labels, registry=self.registry, buckets=buckets)
