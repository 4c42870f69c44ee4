"""The service port: every request is checked, decided and then answered, or passed on to the upstream.

A request whose token is remembered is decided on the spot, within the call that brought its head. Only the others wait,
each in a task of its own, for the authorization server. `asgi.Gate` does the same in front of somebody's application.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .asgi import monotonic
from .bearer import Answer, error, refuse, token_of
from .breaker import Breaker
from .decision import Facts, Reason
from .demo import Demonstration
from .http1.exchange import Exchange
from .http1.ticker import Ticker
from .identity import Identity
from .introspection import Introspection
from .metrics import Metrics
from .policy import CHECK_PATH, Access, Policy, Requirement
from .protected_resource import ProtectedResource
from .proxy import Proxy
from .request_target import RefusedTarget, check_query, matched_path, split
from .verifier import Verdict, Verifier


class Service:
    """A `http1` handler, built once per process. `close` it when no request is left."""

    def __init__(
        self,
        policy: Policy,
        introspection: Introspection,
        metrics: Metrics,
        ticker: Ticker,
        *,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._metrics = metrics
        self._introspection = introspection
        self._verifier = Verifier(
            policy,
            introspection,
            clock=clock,
            wall=wall,
            observer=metrics,
            breaker=Breaker(clock, metrics.breaker_changed),
        )
        metrics.watch_cache(self._verifier.cache.sizes)
        upstream = policy.upstream
        self._proxy = (
            None
            if upstream is None
            else Proxy(upstream, Identity(upstream, policy.rules), metrics.upstream_answered, ticker)
        )
        self._protected_resource = ProtectedResource(policy)
        self._demonstration = Demonstration(policy)
        self._waiting: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up what is under way, and close the connections to upstream and authorization server."""
        for task in tuple(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await self._verifier.close()
        await self._introspection.close()
        if self._proxy is not None:
            await self._proxy.close()

    def forget(self, token: str) -> None:
        """Use nothing of what is known of this token (see `Verifier.forget`)."""
        self._verifier.forget(token)

    def refused(self) -> None:
        """Count a request that was no valid HTTP."""
        self._metrics.decided(Reason.MALFORMED)

    def __call__(self, exchange: Exchange) -> None:
        """Decide about one request. Nothing is passed on that was not decided."""
        try:
            raw_path, query = split(exchange.target)
            path = matched_path(raw_path)
            check_query(query)
            own = self._protected_resource.answer(exchange.method, path)
            need = Access.PUBLIC if own is not None else self._policy.requirement_for(exchange.method, path)
        except RefusedTarget as refusal:
            self._metrics.decided(Reason.MALFORMED)
            exchange.answer(error(400, "invalid_request", f"Refused: {refusal}"))
            return
        target = raw_path + query
        if isinstance(need, Access):
            self._without_token(exchange, path, target, need, own)
            return
        token = token_of(exchange.authorization)
        if isinstance(token, Reason):
            self._metrics.decided(token)
            exchange.answer(refuse(token, need))
            return
        verdict = self._verifier.recall(token, need)
        if verdict is not None:
            self._settle(exchange, path, target, need, verdict)
            return
        task = asyncio.create_task(self._ask(exchange, path, target, need, token))
        exchange.on_left = lambda: _cancel(task)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def _without_token(self, exchange: Exchange, path: str, target: bytes, access: Access, own: Answer | None) -> None:
        if access is Access.DENY:
            self._metrics.decided(Reason.DENIED)
            exchange.answer(refuse(Reason.DENIED, self._policy.requirement))
            return
        self._metrics.decided(Reason.OPEN)
        if own is not None:
            exchange.answer(own)
        else:
            self._admit(exchange, path, target, None)

    async def _ask(self, exchange: Exchange, path: str, target: bytes, requirement: Requirement, token: str) -> None:
        try:
            verdict = await self._verifier.verify(token, requirement)
            exchange.on_left = None
            self._settle(exchange, path, target, requirement, verdict)
        except Exception as bug:
            exchange.crash(bug)

    def _settle(self, exchange: Exchange, path: str, target: bytes, requirement: Requirement, verdict: Verdict) -> None:
        reason = verdict.reason
        self._metrics.decided(reason)
        if reason is not Reason.OK:
            exchange.answer(refuse(reason, requirement, verdict.retry_after))
        elif path == CHECK_PATH:
            exchange.answer(_check(exchange.method))
        else:
            self._admit(exchange, path, target, verdict.facts)

    def _admit(self, exchange: Exchange, path: str, target: bytes, facts: Facts | None) -> None:
        if self._proxy is not None:
            self._proxy.forward(exchange, target, facts)
        else:
            exchange.answer(self._demonstration.answer(exchange.method, path, facts))


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _check(method: str) -> Answer:
    """What the operator's proof asks for: nothing is forwarded."""
    if method not in ("GET", "HEAD"):
        return error(405, "method_not_allowed", "Use GET", (b"allow", b"GET, HEAD"))
    return Answer(204, ((b"cache-control", b"no-store"),), b"")
