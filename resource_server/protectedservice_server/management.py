"""Health, readiness, metrics and the revocation webhook, on a port of their own that no Service ever names."""

from __future__ import annotations

from .asgi import Receive, Scope, Send, respond
from .bearer import Answer, error
from .metrics import CONTENT_TYPE, Metrics
from .revocation_webhook import LARGEST_BODY, RevocationWebhook
from .revocation_webhook import PATH as REVOKED


class Management:
    """An ASGI application.

    Ready means that policy and credentials are loaded and requests are taken. Whether the authorization server answers
    is no part of it: taking the pods away in its outage would turn a clear 503 into no answer at all.
    """

    def __init__(self, metrics: Metrics, webhook: RevocationWebhook | None = None) -> None:
        self._metrics = metrics
        self._webhook = webhook
        self.ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == REVOKED and self._webhook is not None:
            answer = self._webhook.refusal(scope["method"], scope["headers"])
            if answer is None:
                answer = self._webhook.answer(await _body(receive))
        else:
            answer = self._answer(scope["path"])
        await respond(scope, send, answer)

    def _answer(self, path: str) -> Answer:
        if path == "/healthz":
            return _text(200, b"alive\n")
        if path == "/readyz":
            return _text(200, b"ready\n") if self.ready else _text(503, b"starting or draining\n")
        if path == "/metrics":
            return Answer(200, ((b"content-type", CONTENT_TYPE.encode()),), self._metrics.exposition())
        return error(404, "not_found", "This port has /healthz, /readyz and /metrics")


async def _body(receive: Receive) -> bytes:
    """The request's body, as far as anybody wants to look at it."""
    body, more = b"", True
    while more and len(body) <= LARGEST_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _text(status: int, body: bytes) -> Answer:
    return Answer(status, ((b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")), body)
