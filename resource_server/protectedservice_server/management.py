"""Health, readiness, metrics, the upstream's check and the revocation webhook, on a port that no Service ever names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .bearer import Answer, Header, error
from .http1.exchange import Exchange, Receiver
from .metrics import CONTENT_TYPE, Metrics
from .revocation_webhook import LARGEST_BODY, RevocationWebhook
from .revocation_webhook import PATH as REVOKED
from .upstream_check import PATH as UPSTREAM
from .upstream_check import UpstreamCheck


class Management:
    """A `http1` handler.

    Ready means that policy and credentials are loaded and requests are taken. Whether the authorization server answers
    is no part of it: taking the pods away in its outage would turn a clear 503 into no answer at all.
    """

    def __init__(
        self, metrics: Metrics, webhook: RevocationWebhook | None = None, upstream: UpstreamCheck | None = None
    ) -> None:
        self._metrics = metrics
        self._webhook = webhook
        self._upstream = upstream
        self.ready = False

    def __call__(self, exchange: Exchange) -> Answer | None:
        """One request."""
        path = exchange.target.partition(b"?")[0]
        if path == UPSTREAM and self._upstream is not None:
            self._upstream.ask(exchange)
            return None
        if path != REVOKED.encode() or self._webhook is None:
            return self._answer(path)
        refusal = self._webhook.refusal(exchange.method, exchange.headers)
        if refusal is None:
            exchange.watch(_Body(exchange, self._webhook.answer))
            exchange.accept_body()
        return refusal

    def _answer(self, path: bytes) -> Answer:
        if path == b"/healthz":
            return _text(200, b"alive\n")
        if path == b"/readyz":
            return _text(200, b"ready\n") if self.ready else _text(503, b"starting or draining\n")
        if path == b"/metrics":
            return Answer(200, ((b"content-type", CONTENT_TYPE.encode()),), self._metrics.exposition())
        return error(404, "not_found", "This port has /healthz, /readyz and /metrics")


class _Body(Receiver):
    """Reads a body, as far as anybody wants to look at it, and then answers."""

    def __init__(self, exchange: Exchange, answer: Callable[[bytes], Answer]) -> None:
        self._exchange, self._answer, self._received = exchange, answer, b""

    def request_data(self, data: bytes) -> None:
        if len(self._received) <= LARGEST_BODY:
            self._received += data

    def request_ended(self, trailers: Sequence[Header]) -> None:
        self._exchange.answer(self._answer(self._received))

    def request_stalled(self) -> None:
        self._exchange.keep_alive = False
        self._exchange.answer(error(408, "request_timeout", "The request body stopped coming"))

    def caller_left(self) -> None:
        pass

    def caller_full(self) -> None:
        pass

    def caller_drained(self) -> None:
        pass

    def caller_sent(self, data: bytes) -> None:
        pass


def _text(status: int, body: bytes) -> Answer:
    return Answer(status, ((b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")), body)
