"""The whole service as one ASGI application: front checks, the gate, behind it the upstream or the demonstration."""

from __future__ import annotations

import logging
import re
import traceback
from typing import Final

from .asgi import Gate, Message, Receive, Scope, Send, respond
from .bearer import error
from .decision import Reason
from .demo import Demonstration
from .forward import Forward
from .identity import Identity
from .introspection import Introspection
from .metrics import Metrics
from .policy import Policy

logger = logging.getLogger(__name__)

# RFC 3986 authority without user information: what a Host header may hold (RFC 9112 section 3.2).
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


class Application:
    """Built once per process. `close` it when no request is left."""

    def __init__(self, policy: Policy, introspection: Introspection, metrics: Metrics) -> None:
        self._metrics = metrics
        self._forward: Forward | None = None
        if policy.upstream is not None:
            self._forward = Forward(policy.upstream, Identity(policy.upstream, policy.rules), metrics.upstream_answered)
        self._gate = Gate(
            self._forward if self._forward is not None else Demonstration(policy),
            policy=policy,
            credentials=introspection,
            metrics=metrics,
        )

    def forget(self, token: str) -> None:
        """Use nothing of what is known of this token (see `Verifier.forget`)."""
        self._gate.verifier.forget(token)

    async def close(self) -> None:
        """Close the connections to upstream and authorization server."""
        await self._gate.close()
        if self._forward is not None:
            await self._forward.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. What nobody foresaw is answered 500, or cut off where the answer has begun."""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        with self._metrics.in_progress.track_inprogress():
            try:
                await self._checked(scope, receive, sending)
            except Exception as bug:
                # Where and what kind, but not its text: that may quote the request.
                frames = traceback.format_tb(bug.__traceback__)
                logger.error(
                    "A request failed in a way that was not foreseen",
                    extra={"cause": type(bug).__name__, "frames": frames},
                )
                if not begun:
                    await respond(scope, send, error(500, "server_error", "The server failed"))

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1") or not all(map(_HOST.fullmatch, hosts)):
            self._metrics.decided(Reason.MALFORMED)
            await respond(scope, send, error(400, "invalid_request", "Exactly one valid Host header is needed"))
            return
        if scope["http_version"] not in ("1.0", "1.1"):
            self._metrics.decided(Reason.MALFORMED)
            await respond(scope, send, error(400, "invalid_request", "Only HTTP/1.1 and HTTP/1.0 are spoken here"))
            return
        await self._gate(scope, receive, send)
