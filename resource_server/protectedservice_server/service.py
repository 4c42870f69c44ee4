"""The service port: every request is checked, decided and then answered, or passed on to the upstream.

A request whose token is remembered is decided on the spot, within the call that brought its head. Only the others wait,
each in a task of its own, for the authorization server. `asgi.Gate` does the same in front of somebody's application.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from .asgi import monotonic
from .bearer import Answer, error, refuse, token_of
from .breaker import Breaker
from .decision import Facts, Reason
from .demo import Demonstration
from .http1.exchange import Exchange
from .http1.ticker import Ticker
from .introspection import Introspection
from .metrics import Metrics
from .policy import CHECK_PATH, Policy, Requirement
from .proxy import Proxy
from .request_target import RefusedTarget, matched
from .verifier import Verdict, Verifier

_OK: Final = Reason.OK


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
        self._recall = self._verifier.recall
        metrics.watch_cache(self._verifier.cache.sizes)
        self._proxy = None if policy.upstream is None else Proxy(policy.upstream, metrics.upstream_answered, ticker)
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

    def refused(self) -> None:
        """Count a request that was no valid HTTP."""
        self._metrics.decided(Reason.MALFORMED)

    def __call__(self, exchange: Exchange) -> None:
        """Decide about one request. Nothing is passed on that was not decided."""
        try:
            path, target = matched(exchange.target)
        except RefusedTarget as refusal:
            self._metrics.decided(Reason.MALFORMED)
            exchange.answer(error(400, "invalid_request", f"Refused: {refusal}"))
            return
        requirement = self._policy.requirement_for(exchange.method, path)
        if requirement is None:
            self._metrics.decided(Reason.OPEN)
            self._admit(exchange, path, target, None)
            return
        token = token_of(exchange.authorization)
        if type(token) is Reason:
            self._metrics.decided(token)
            exchange.answer(refuse(token, requirement))
            return
        verdict = self._recall(token, requirement)
        if verdict is not None:
            self._settle(exchange, path, target, requirement, verdict)
            return
        task = asyncio.create_task(self._ask(exchange, path, target, requirement, token))
        exchange.on_left = task.cancel
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

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
        if reason is not _OK:
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


def _check(method: str) -> Answer:
    """What the operator's proof asks for: nothing is forwarded."""
    if method not in ("GET", "HEAD"):
        return error(405, "method_not_allowed", "Use GET", (b"allow", b"GET, HEAD"))
    return Answer(204, ((b"cache-control", b"no-store"),), b"")
