"""The verifier as ASGI middleware: the gate in front of an application.

In an application of one's own (Starlette, FastAPI; Django and others by wrapping `application`)::

    app = FastAPI()
    app.add_middleware(Gate, policy="policy.yaml", credentials="credentials/")

    @app.get("/orders")
    async def orders(request: Request) -> list[Order]:
        facts = request.scope[FACTS]  # who calls: client_id, sub, scopes, ...

Such a policy file has neither `demo` nor `upstream`; the rest is as in `policy_file.py`. Every path needs a token,
unless a rule says otherwise. Nothing is passed on that was not decided: WebSockets are refused, unknown kinds of scope
are an error. The connection to the authorization server is opened with the first request and closed with the lifespan,
where the server has one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from . import policy_file
from .bearer import Answer, Header, error, refuse, token_of
from .breaker import Breaker
from .decision import Reason
from .introspection import Introspection, reader
from .metrics import Metrics
from .policy import CHECK_PATH, Access, Policy, Requirement
from .protected_resource import ProtectedResource
from .request_target import RefusedTarget, check_query, matched_path
from .verifier import Verifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE: Final[Header] = (b"connection", b"close")

FACTS: Final = "protectedservice.facts"
"""Where in the scope the application finds `decision.Facts` of the token; absent on open paths."""


monotonic: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds that never step back and go on while the machine sleeps: a token must not outlive its bound by a nap."""


class Gate:
    """Lets a request through to `app` iff its token meets the policy; everything else it answers itself.

    `policy` and `credentials` are a file and a folder, or what has been read from them already.

    Raises:
        PolicyError, CredentialsError, TrustError: on construction, with every fault of the file or the folder.
    """

    def __init__(
        self,
        app: Application,
        *,
        policy: Policy | str | Path,
        credentials: Introspection | str | Path,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self.policy = (
            policy if isinstance(policy, Policy) else policy_file.parse(Path(policy).read_text("utf-8"), embedded=True)
        )
        self._protected_resource = ProtectedResource(self.policy)
        self.metrics = metrics if metrics is not None else Metrics()
        self._introspection = (
            credentials if isinstance(credentials, Introspection) else reader(self.policy, Path(credentials))
        )
        self.verifier = Verifier(
            self.policy,
            self._introspection,
            clock=clock,
            wall=wall,
            observer=self.metrics,
            breaker=Breaker(clock, self.metrics.breaker_changed),
        )
        self.metrics.watch_cache(self.verifier.cache.sizes)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            self._settle_in()
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before the handshake: the server answers 403
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            raise RuntimeError(f"the gate cannot decide about a scope of type {kind!r}")

    async def close(self) -> None:
        """Give up what is under way and close the connections to the authorization server."""
        self._settle_in()
        self.verifier.close()
        await self._introspection.close()

    def _settle_in(self) -> None:
        """Leave behind what belongs to a loop that has ended: test clients run each request in one of its own."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                self.verifier.restart()
                self._introspection.restart()
            self._loop = loop

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self.close()
            await send(message)

        await self._app(scope, receive, closing)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason, answer = await self._decide(scope)
        self.metrics.decided(reason)
        if answer is not None:
            await respond(scope, send, answer)
            return
        await self._app(scope, receive, send)

    async def _decide(self, scope: Scope) -> tuple[Reason, Answer | None]:
        """Why, and the answer; None: the request goes on to the application, with the facts in its scope."""
        scope.pop(FACTS, None)
        try:
            # Servers that give no raw_path have decoded already; then only what they left can be looked at.
            path = matched_path(scope.get("raw_path") or scope["path"].encode())
            check_query(scope.get("query_string", b""))
            own = self._protected_resource.answer(scope["method"], path)
            if own is not None:
                return Reason.OPEN, own
            need = self.policy.requirement_for(scope["method"], path)
        except RefusedTarget as refusal:
            return Reason.MALFORMED, error(400, "invalid_request", f"Refused: {refusal}")
        if need is Access.PUBLIC:
            return Reason.OPEN, None
        if need is Access.DENY:
            return Reason.DENIED, refuse(Reason.DENIED, self.policy.requirement)
        token = token_of([value for name, value in scope["headers"] if name.lower() == b"authorization"])
        if isinstance(token, Reason):
            return token, refuse(token, need)
        return await self._judge(scope, path, token, need)

    async def _judge(
        self, scope: Scope, path: str, token: str, requirement: Requirement
    ) -> tuple[Reason, Answer | None]:
        verdict = await self.verifier.verify(token, requirement)
        if verdict.reason is not Reason.OK:
            return verdict.reason, refuse(verdict.reason, requirement, verdict.retry_after)
        if path == CHECK_PATH:
            if scope["method"] not in ("GET", "HEAD"):
                return Reason.OK, error(405, "method_not_allowed", "Use GET", (b"allow", b"GET, HEAD"))
            return Reason.OK, Answer(204, ((b"cache-control", b"no-store"),), b"")
        scope[FACTS] = verdict.facts
        return Reason.OK, None


async def respond(scope: Scope, send: Send, answer: Answer) -> None:
    """Send a whole answer; to HEAD its headers only.

    The connection ends with it where what follows cannot be told apart: a client that waits for `100 Continue` may send
    its body now or not (RFC 9110 section 10.1.1), and parsers stop behind an offered upgrade.
    """
    headers: list[Header] = list(answer.headers)
    if answer.status != 204:
        headers.append((b"content-length", str(len(answer.body)).encode("ascii")))
    names = {name.lower() for name, _ in scope["headers"]}
    if names & {b"expect", b"upgrade"} and CLOSE not in headers:
        headers.append(CLOSE)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})
