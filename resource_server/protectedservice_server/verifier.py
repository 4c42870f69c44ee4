"""Token in, verdict out: through cache, single flight and an introspection. Every front end uses this one.

Sans-I/O at heart: the clocks and the question to the authorization server are arguments; nothing here opens a socket.

The promise (`maxRevocationDelay`, B seconds): a request that arrives later than B after a revocation is refused. Proof:
a request that arrived at t is let in only on an answer whose question was sent at s > t - B. The server looked at its
own state not before s. If the token was revoked at r < t - B, then s > r, and the answer says inactive. With B = 0 an
answer counts only if its question was sent at t or later: nothing is remembered, and no call that was sent is joined.

With `serveStale` (S seconds) an answer counts up to S longer, s > t - B - S, where it said that the token is good and
nobody can be asked: the question of this very request failed by the authorization server's fault, or the breaker is
open. The promise is then B + S, for as long as the outage lasts. An inactive answer ends it for its token, and so does
whoever says that the token was revoked (`forget`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol

import msgspec

from .breaker import Breaker, State
from .cache import Cache, key_of
from .decision import Facts, Reason, decide
from .policy import Policy, Requirement

logger = logging.getLogger(__name__)

_OK: Final = Reason.OK

MOST_CALLS: Final = 64
"""Questions under way at once. More only queue up inside the authorization server, where they cost it memory."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """An answer about a token."""

    facts: Facts
    blames_token: bool = False
    """The server refused to look at the token. Anybody can send such a one, so it says nothing about the server."""


class Unavailable(Exception):
    """No answer that can be trusted. `kind` is one word for the metric and the log: never text of another system.

    Attributes:
        counts: whether it says anything about the authorization server, and so to the breaker. What only one token or
            our own queue is to blame for must not: anybody can send such tokens, and many.
    """

    reason: Reason = Reason.AS_UNAVAILABLE

    def __init__(self, kind: str, retry_after: float | None = None, *, counts: bool = True) -> None:
        super().__init__(kind)
        self.kind = kind
        self.retry_after = retry_after
        self.counts = counts


class RefusedUs(Unavailable):
    """The authorization server does not accept this server's own credentials, fresh from their files."""

    reason = Reason.AS_REFUSED_US

    def __init__(self) -> None:
        super().__init__("refused_us")


Introspect = Callable[[str], Awaitable[Learnt]]
"""Asks about one token. Raises: Unavailable."""


class _Forgotten(Exception):
    """The token was said to be revoked after the question was sent: its answer may speak of the time before."""


class Observer(Protocol):
    """Who wants to count what happens."""

    def looked_up(self, result: str) -> None:
        """A token was found in the cache (`hit`), joined a call under way (`joined`), or neither (`miss`).

        Afterwards, where nobody could be asked: what was known before was used (`stale`).
        """

    def introspected(self, result: str, seconds: float) -> None:
        """A question ended: `active`, `inactive`, `blamed`, or the kind of failure."""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What was decided about a request; `facts` are there iff `reason` is OK."""

    reason: Reason
    facts: Facts | None = None
    retry_after: int = 1


@dataclass(slots=True)
class _Call:
    """A question under way. `sent_at` is None until it is really sent; a `probe` decides whether the breaker closes."""

    probe: bool
    queued: bool = False
    """Whether its task has begun: one that is cancelled before that would not tidy up behind itself."""
    waiters: int = 0
    sent_at: float | None = None
    void: bool = False
    """Its answer must not be used."""
    overtaken: bool = False
    """Its answer must not be remembered: a question sent no earlier was answered inactive."""
    task: asyncio.Task[Facts] | None = field(default=None, repr=False)


class Verifier:
    """Decides about tokens for one policy and one authorization server.

    `clock` is monotonic, `wall` counts seconds since 1970.
    """

    def __init__(
        self,
        policy: Policy,
        introspect: Introspect,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        observer: Observer,
        cache: Cache | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self._bound = policy.validation.max_revocation_delay
        self._budget = policy.validation.timeout
        self._issuer = policy.authorization_server.issuer
        self._introspect = introspect
        self._clock = clock
        self._wall = wall
        self._observer = observer
        self.cache = cache if cache is not None else Cache(self._bound, policy.validation.serve_stale)
        self.breaker = breaker if breaker is not None else Breaker(clock)
        self._calls: dict[bytes, _Call] = {}
        """The latest question about each token: the one that may be joined."""
        self._under_way: dict[bytes, list[_Call]] = {}
        """All questions about each token."""
        self._slots = asyncio.Semaphore(MOST_CALLS)
        self._last_refusal = Reason.AS_UNAVAILABLE
        self._failing: str | None = None

    def recall(self, token: bytes, requirement: Requirement) -> Verdict | None:
        """The verdict for a request that carries `token` and has arrived now, from what is remembered; None: `verify`.

        What is remembered may be used by whoever asks: the bound is measured from now, as in `verify`. Any bytes may be
        asked about: those that are no token are not remembered.
        """
        facts = self.cache.get(sha256(token).digest(), self._clock())  # key_of; a call less on the hot path
        if facts is None:
            return None
        self._observer.looked_up("hit")
        reason = decide(facts, requirement, self._issuer, self._wall())
        return Verdict(reason, facts if reason is _OK else None)

    async def verify(self, token: str, requirement: Requirement) -> Verdict:
        """The verdict for a request that carries `token` and has arrived now."""
        arrived = self._clock()
        key = key_of(token)
        facts = self.cache.get(key, arrived)
        if facts is not None:
            self._observer.looked_up("hit")
        while facts is None:
            try:
                facts = await self._learn(key, token, arrived)
            except _Forgotten:
                continue  # asked anew, after the revocation
            except Unavailable as failure:
                facts = self._stale(key, arrived, failure)
                if facts is None:
                    return Verdict(failure.reason, retry_after=max(1, math.ceil(failure.retry_after or 1.0)))
        return self._judged(facts, requirement)

    def _judged(self, facts: Facts, requirement: Requirement) -> Verdict:
        reason = decide(facts, requirement, self._issuer, self._wall())
        return Verdict(reason, facts if reason is Reason.OK else None)

    def forget(self, token: str) -> None:
        """Somebody says that `token` was revoked: use nothing of what is known of it, or was asked before now.

        Requests that wait for such an answer ask anew: the server has the last word.
        """
        key = key_of(token)
        self.cache.forget(key)
        for call in self._under_way.get(key, ()):
            call.void = call.void or call.sent_at is not None
        joinable = self._calls.get(key)
        if joinable is not None and joinable.void:
            del self._calls[key]

    def _stale(self, key: bytes, arrived: float, failure: Unavailable) -> Facts | None:
        """What may be used all the same. An outage is the server's: not our own queue's, nor our credentials'."""
        if failure.reason is not Reason.AS_UNAVAILABLE or not failure.counts:
            return None
        facts = self.cache.stale(key, arrived)
        if facts is not None:
            self._observer.looked_up("stale")
        return facts

    async def close(self) -> None:
        """Give up the questions under way."""
        tasks = [call.task for calls in self._under_way.values() for call in calls if call.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _learn(self, key: bytes, token: str, arrived: float) -> Facts:
        call = self._calls.get(key)
        if call is not None and call.task is not None and self._may_join(call, arrived):
            self._observer.looked_up("joined")
        else:
            self._observer.looked_up("miss")
            wait = self.breaker.wait()
            if wait is not None:
                failure = Unavailable("breaker_open", wait)
                failure.reason = self._last_refusal
                raise failure
            call = _Call(probe=self.breaker.state is State.HALF_OPEN)
            self._calls[key] = call
            self._under_way.setdefault(key, []).append(call)
            call.task = asyncio.create_task(self._ask(key, token, call))
            call.task.add_done_callback(_retrieve)
        call.waiters += 1
        try:
            # Shielded: a caller that goes away must not take the answer from the others.
            return await asyncio.shield(call.task)
        finally:
            call.waiters -= 1
            if call.queued and not call.waiters and call.sent_at is None:
                # Else callers who come and go leave more questions behind, with their tokens, than can be asked.
                self._withdraw(key, call)

    def _withdraw(self, key: bytes, call: _Call) -> None:
        """Do not ask a question that was not sent yet, and that nobody waits for."""
        if self._calls.get(key) is call:
            del self._calls[key]
        if call.task is not None:
            call.task.cancel()  # nothing, where it has ended

    def _may_join(self, call: _Call, arrived: float) -> bool:
        return call.sent_at is None or arrived - call.sent_at < self._bound

    async def _ask(self, key: bytes, token: str, call: _Call) -> Facts:
        """Ask, report to the breaker, remember. Runs as a task of its own, once for all who wait.

        Raises:
            Unavailable: no answer; not remembered.
            _Forgotten: the answer must not be used.
        """
        call.queued = True
        began = self._clock()
        learnt_of_server = False
        try:
            try:
                async with asyncio.timeout(self._budget), self._slots:
                    # Everything about this answer counts from here: before the first byte leaves.
                    call.sent_at, wall = self._clock(), self._wall()
                    learnt = await self._introspect(token)
            except TimeoutError:
                if call.sent_at is None:  # the wait was for our own places: that says nothing about the server
                    raise Unavailable("saturated", counts=False) from None
                raise Unavailable("timeout") from None
            learnt_of_server = not learnt.blames_token
            self._heard(learnt, began)
            self._remember(key, learnt.facts, call, wall)
            return learnt.facts
        except Unavailable as failure:
            learnt_of_server = failure.counts
            if failure.counts:
                self._failed(failure, began)
            else:
                self._observer.introspected(failure.kind, self._clock() - began)
            raise
        finally:
            if call.probe and not learnt_of_server:
                self.breaker.abandoned()
            self._ended(key, call)

    def _remember(self, key: bytes, facts: Facts, call: _Call, wall: float) -> None:
        """Keep an answer for others, unless what came after its question speaks against it.

        Raises:
            _Forgotten: its own waiters must not use it either.
        """
        if call.void or call.sent_at is None:
            raise _Forgotten
        if not facts.active:
            for other in self._under_way[key]:
                other.overtaken = other.overtaken or (other.sent_at is not None and other.sent_at <= call.sent_at)
        elif call.overtaken:
            return
        left = math.inf if facts.exp is None else facts.exp - wall
        self.cache.put(key, facts, call.sent_at, left)

    def _ended(self, key: bytes, call: _Call) -> None:
        if self._calls.get(key) is call:
            del self._calls[key]
        others = [other for other in self._under_way[key] if other is not call]
        if others:
            self._under_way[key] = others
        else:
            del self._under_way[key]

    def _heard(self, learnt: Learnt, began: float) -> None:
        result = "blamed" if learnt.blames_token else "active" if learnt.facts.active else "inactive"
        self._observer.introspected(result, self._clock() - began)
        if learnt.blames_token:
            return
        self.breaker.succeeded()
        if self._failing is not None:
            logger.info("The authorization server answers again", extra={"after": self._failing})
            self._failing = None

    def _failed(self, failure: Unavailable, began: float) -> None:
        self._observer.introspected(failure.kind, self._clock() - began)
        self._last_refusal = failure.reason
        was = self.breaker.state
        self.breaker.failed(failure.retry_after)
        if self._failing != failure.kind or (self.breaker.state is State.OPEN and was is State.CLOSED):
            # Once a change, not once a request: an outage at full load would otherwise fill the disk.
            text = (
                "The authorization server refuses this server's own credentials: check the credentials folder"
                if failure.reason is Reason.AS_REFUSED_US
                else "The authorization server does not answer as it should: tokens not remembered are answered 503"
            )
            logger.warning(text, extra={"kind": failure.kind, "breaker": self.breaker.state.name.lower()})
        self._failing = failure.kind


def _retrieve(task: asyncio.Task[Facts]) -> None:
    """Look at the outcome, so that a failure after the last waiter has gone is not reported as lost."""
    if not task.cancelled():
        task.exception()
