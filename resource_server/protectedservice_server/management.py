"""Health, readiness and metrics, on a port of their own that no Service ever names."""

from __future__ import annotations

from .bearer import Answer, error
from .http1.exchange import Exchange
from .metrics import CONTENT_TYPE, Metrics


class Management:
    """A `http1` handler.

    Ready means that policy and credentials are loaded and requests are taken. Whether the authorization server answers
    is no part of it: taking the pods away in its outage would turn a clear 503 into no answer at all.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.ready = False

    def __call__(self, exchange: Exchange) -> None:
        exchange.answer(self._answer(exchange.target.partition(b"?")[0]))

    def _answer(self, path: bytes) -> Answer:
        if path == b"/healthz":
            return _text(200, b"alive\n")
        if path == b"/readyz":
            return _text(200, b"ready\n") if self.ready else _text(503, b"starting or draining\n")
        if path == b"/metrics":
            return Answer(200, ((b"content-type", CONTENT_TYPE.encode()),), self._metrics.exposition())
        return error(404, "not_found", "This port has /healthz, /readyz and /metrics")


def _text(status: int, body: bytes) -> Answer:
    return Answer(status, ((b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")), body)
