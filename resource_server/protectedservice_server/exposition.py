"""The numbers of `metrics` as Prometheus' families; `Collector` can be registered in an application's own registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector
from prometheus_client.utils import floatToGoString

from .metrics import Histogram, Metrics


class Collector(PrometheusCollector):
    """Reads `metrics` at each scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """All families."""
        metrics = self._metrics
        yield _counter(
            "protectedservice_requests",
            "Requests by what was decided",
            "reason",
            {reason.value: count for reason, count in metrics.requests.items()},
        )
        yield _counter("protectedservice_cache_lookups", "Tokens looked up, by result", "result", metrics.lookups)
        yield CounterMetricFamily(
            "protectedservice_single_flight_joins",
            "Requests that waited for a question another request had asked",
            value=metrics.lookups["joined"],
        )
        entries = GaugeMetricFamily("protectedservice_cache_entries", "Tokens remembered, by table", labels=["table"])
        for table, size in zip(("active", "inactive"), metrics.cache_sizes(), strict=True):
            entries.add_metric([table], size)
        yield entries
        yield _histogram(
            "protectedservice_introspection_seconds",
            "Introspections, by result, waiting for a free slot included",
            metrics.introspections,
        )
        yield GaugeMetricFamily(
            "protectedservice_breaker_state", "0 closed, 1 half-open, 2 open", value=metrics.breaker.value
        )
        yield _histogram(
            "protectedservice_upstream_seconds",
            "Seconds until the upstream's headers, by result (a class of status, unreachable, slow)",
            metrics.upstream,
        )
        yield GaugeMetricFamily(
            "protectedservice_connections", "Open connections of callers", value=metrics.connections()
        )
        yield GaugeMetricFamily(
            "protectedservice_requests_in_progress", "Requests that are not answered yet", value=metrics.in_progress()
        )
        yield CounterMetricFamily(
            "protectedservice_overloads",
            "Connections refused or ended for want of places, or of room for what was sent and not let in yet",
            value=metrics.overloads(),
        )
        yield GaugeMetricFamily(
            "protectedservice_backlog_bytes", "Bytes kept of requests that nobody has let in", value=metrics.backlog()
        )


def exposition(metrics: Metrics) -> bytes:
    """Everything, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Collector(metrics))
    return generate_latest(registry)


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, results: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["result"])
    for result, histogram in results.items():
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            total += count
            buckets.append((floatToGoString(bound), total))  # type: ignore[no-untyped-call]
        family.add_metric([result], buckets, histogram.sum)
    return family
