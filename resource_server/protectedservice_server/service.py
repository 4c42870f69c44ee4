"""The service port: every request is checked, decided and then answered, or passed on to the upstream.

A request whose token is remembered is decided on the spot, within the call that brought its head. Only the others wait
for the authorization server. `asgi.Gate` does the same in front of somebody's application.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, cast

from .asgi import monotonic
from .bearer import Answer, error, refuse, token_of
from .breaker import Breaker
from .cache import key_of
from .decision import Facts, Reason, Verdict
from .demo import demonstration
from .http1.exchange import Exchange
from .http1.ticker import Ticker
from .identity import Identity
from .introspection import Introspection
from .metrics import Metrics
from .policy import CHECK_PATH, Access, Need, Policy, Requirement
from .protected_resource import ProtectedResource
from .proxy import Proxy
from .question import Waiter
from .request_target import RefusedTarget, check_query, matched_path, split
from .verifier import Verifier

_OK: Final = Reason.OK

_LONGEST_REMEMBERED: Final = 256
"""Bytes of a target that is worth remembering; most are shorter, and many callers ask for the same ones."""
_MOST_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class _Way:
    """What the policy makes of a method and a target. It depends on nothing else, and so is worked out once."""

    path: str
    target: bytes
    """The bytes that were matched, for the upstream."""
    need: Need
    own: Answer | None
    """The whole answer, where no upstream is asked."""
    is_check: bool
    """Whether it is the operator's proof that asks."""


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
        self._requests = metrics.requests
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
        self._ways: dict[tuple[str, bytes], _Way] = {}

    async def close(self) -> None:
        """Give up what is under way, and close the connections to upstream and authorization server."""
        self._verifier.close()
        await self._introspection.close()
        if self._proxy is not None:
            await self._proxy.close()

    def forget(self, token: str) -> None:
        """Use nothing of what is known of this token (see `Verifier.forget`)."""
        self._verifier.forget(token)

    @property
    def reach(self) -> Callable[[], Awaitable[None]] | None:
        """Connects to the upstream and parts again (`Proxy.reach`); None where there is no upstream."""
        return None if self._proxy is None else self._proxy.reach

    def refused(self) -> None:
        """Count a request that was no valid HTTP."""
        self._metrics.decided(Reason.MALFORMED)

    def __call__(self, exchange: Exchange) -> Answer | None:
        """Decide about one request. Nothing is passed on that was not decided."""
        way = self._ways.get((exchange.method, exchange.target))
        if way is None:
            try:
                way = self._look_at(exchange.method, exchange.target)
            except RefusedTarget as refusal:
                self._metrics.decided(Reason.MALFORMED)
                return error(400, "invalid_request", f"Refused: {refusal}")
        need = way.need
        if type(need) is not Requirement:
            return self._without_token(exchange, way, cast(Access, need))
        values = exchange.authorization
        key = b""
        if len(values) == 1 and values[0][:7] == b"Bearer ":
            # What was never asked about is not remembered, whatever it is: only of the others the form is looked at.
            key = sha256(values[0][7:]).digest()  # cache.key_of
            verdict = self._verifier.recall(key, need)
            if verdict is not None:
                return self.settle(exchange, way, need, verdict)
        return self._ask(exchange, way, need, key)

    def _ask(self, exchange: Exchange, way: _Way, need: Requirement, key: bytes) -> Answer | None:
        """Wait for the authorization server; `key` is that of what usually is the token, if there is one."""
        values = exchange.authorization
        token = token_of(values)
        if type(token) is Reason:
            self._metrics.decided(token)
            return refuse(token, need)
        if not key or len(token) != len(values[0]) - 7:  # written in another way: it was not looked for yet
            key = key_of(token)
            verdict = self._verifier.recall(key, need)
            if verdict is not None:
                return self.settle(exchange, way, need, verdict)
        waiter = _Waiting(self, self._verifier, exchange, way)
        exchange.on_left = waiter.leave
        verdict = self._verifier.ask(key, token, need, waiter)
        if verdict is None:
            return None
        exchange.on_left = None
        return self.settle(exchange, way, need, verdict)

    def _look_at(self, method: str, target: bytes) -> _Way:
        """Raises RefusedTarget."""
        raw_path, query = split(target)
        path = matched_path(raw_path)
        check_query(query)
        own = self._protected_resource.answer(method, path)
        need = Access.PUBLIC if own is not None else self._policy.requirement_for(method, path)
        way = _Way(path, raw_path + query, need, own, path == CHECK_PATH)
        if len(target) <= _LONGEST_REMEMBERED:
            if len(self._ways) >= _MOST_REMEMBERED:
                self._ways.clear()
            self._ways[method, target] = way
        return way

    def _without_token(self, exchange: Exchange, way: _Way, access: Access) -> Answer | None:
        if access is Access.DENY:
            self._metrics.decided(Reason.DENIED)
            return refuse(Reason.DENIED, self._policy.requirement)
        self._metrics.decided(Reason.OPEN)
        return way.own if way.own is not None else self._admit(exchange, way, None)

    def settle(self, exchange: Exchange, way: _Way, requirement: Requirement, verdict: Verdict) -> Answer | None:
        """What becomes of a request of which the token was decided: its answer; None: it is passed on."""
        reason = verdict.reason
        self._requests[reason] += 1
        if reason is not _OK:
            return refuse(reason, requirement, verdict.retry_after)
        if way.is_check:
            return _check(exchange.method)
        if self._proxy is None:  # as in _admit; a call less on the hot path
            return demonstration(exchange.method, way.path, way.need, verdict.facts)
        self._proxy.forward(exchange, way.target, verdict.facts)
        return None

    def _admit(self, exchange: Exchange, way: _Way, facts: Facts | None) -> Answer | None:
        if self._proxy is None:
            return demonstration(exchange.method, way.path, way.need, facts)
        self._proxy.forward(exchange, way.target, facts)
        return None


class _Waiting(Waiter):
    """A request that waits for the authorization server."""

    __slots__ = ("_exchange", "_service", "_verifier", "_way")

    def __init__(self, service: Service, verifier: Verifier, exchange: Exchange, way: _Way) -> None:
        self._service = service
        self._verifier = verifier
        self._exchange = exchange
        self._way = way

    def leave(self) -> None:
        """Its caller has gone away."""
        self._exchange.on_left = None  # each knows the other; parted, both go without the garbage collector
        self._verifier.leave(self)

    def told(self, verdict: Verdict) -> None:
        exchange = self._exchange
        exchange.on_left = None
        answer = self._service.settle(exchange, self._way, self.requirement, verdict)
        if answer is not None:
            exchange.answer(answer)

    def crashed(self, bug: Exception) -> None:
        self._exchange.on_left = None
        self._exchange.crash(bug)


def _check(method: str) -> Answer:
    """What the operator's proof asks for: nothing is forwarded."""
    if method not in ("GET", "HEAD"):
        return error(405, "method_not_allowed", "Use GET", (b"allow", b"GET, HEAD"))
    return Answer(204, ((b"cache-control", b"no-store"),), b"")
