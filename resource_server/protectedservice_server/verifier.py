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
from collections.abc import Callable
from typing import Final, Protocol

from .breaker import Breaker, State
from .cache import Cache, key_of
from .decision import Facts, Reason, Verdict, decide
from .http1.unforeseen import log_bug
from .policy import Policy, Requirement
from .question import Introspect, Learnt, Outcome, Question, Questions, Unavailable, Waiter

logger = logging.getLogger(__name__)

_OK: Final = Reason.OK
_CLOSED: Final = State.CLOSED


class Observer(Protocol):
    """Who wants to count what happens."""

    def looked_up(self, result: str) -> None:
        """A token was found in the cache (`hit`), joined a call under way (`joined`), or neither (`miss`).

        Afterwards, where nobody could be asked: what was known before was used (`stale`).
        """

    def introspected(self, result: str, seconds: float) -> None:
        """A question ended: `active`, `inactive`, `blamed`, or the kind of failure."""


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
        self._remembers = self._bound + policy.validation.serve_stale > 0
        self._issuer = policy.authorization_server.issuer
        self._introspect = introspect
        self._clock = clock
        self._wall = wall
        self._observer = observer
        self.cache = cache if cache is not None else Cache(self._bound, policy.validation.serve_stale)
        self.breaker = breaker if breaker is not None else Breaker(clock)
        self._budget = policy.validation.timeout
        self._questions = Questions(self._budget, self._send)
        self._last_refusal = Reason.AS_UNAVAILABLE
        self._failing: str | None = None

    def recall(self, key: bytes, requirement: Requirement) -> Verdict | None:
        """The verdict for a request that carries the token of `key` and has arrived now, from what is remembered.

        None: `ask`. What is remembered may be used by whoever asks: the bound is measured from now. The key may be of
        any bytes: those that are no token are not remembered.
        """
        facts = self.cache.get(key, self._clock())
        if facts is None:
            return None
        self._observer.looked_up("hit")
        reason = decide(facts, requirement, self._issuer, self._wall())
        return Verdict(reason, facts if reason is _OK else None)

    def ask(self, key: bytes, token: str, requirement: Requirement, waiter: Waiter) -> Verdict | None:
        """The same for what is not remembered: `waiter` is told, unless it has to `leave`.

        It may be told before this returns. The verdict, where it is known now.
        """
        waiter.arrived, waiter.requirement = self._clock(), requirement
        return self._wait(key, token, waiter)

    async def verify(self, token: str, requirement: Requirement) -> Verdict:
        """Both at once, for those who can await it."""
        key = key_of(token)
        verdict = self.recall(key, requirement)
        if verdict is not None:
            return verdict
        waiter = _Awaited(asyncio.get_running_loop().create_future())
        verdict = self.ask(key, token, requirement, waiter)
        if verdict is not None:
            return verdict
        try:
            return await waiter.verdict
        finally:
            self.leave(waiter)

    def leave(self, waiter: Waiter) -> None:
        """`waiter` has gone away; that takes the answer from nobody else. It was told already: nothing happens."""
        question = waiter.question
        if waiter not in question.waiters:
            return
        del question.waiters[waiter]
        if question.joinable and question.sent_at is None and not question.waiters:
            # Else callers who come and go leave more questions behind, with their tokens, than can be asked.
            if question.probe:
                self.breaker.abandoned()
            self._questions.end(question)

    def forget(self, token: str) -> None:
        """Somebody says that `token` was revoked: use nothing of what is known of it, or was asked before now.

        Requests that wait for such an answer ask anew: the server has the last word.
        """
        key = key_of(token)
        self.cache.forget(key)
        for question in self._questions.by_key.get(key, ()):
            if question.sent_at is not None:
                question.void, question.joinable = True, False

    def restart(self) -> None:
        """Forget the questions of an event loop that has ended: nobody is left to be told. What was learnt stays."""
        self._questions = Questions(self._budget, self._send)
        self.breaker.abandoned()

    def close(self) -> None:
        """Give up the questions under way. Who waits is refused, for want of an answer."""
        self._questions.close()

    def _judged(self, facts: Facts, requirement: Requirement) -> Verdict:
        reason = decide(facts, requirement, self._issuer, self._wall())
        return Verdict(reason, facts if reason is _OK else None)

    def _wait(self, key: bytes, token: str, waiter: Waiter) -> Verdict | None:
        """Join the latest question or ask one. The verdict, where nobody may be asked."""
        about = self._questions.by_key.get(key)
        if about is not None and self._may_join(question := next(reversed(about)), waiter.arrived):
            self._observer.looked_up("joined")
            question.waiters[waiter] = None
            waiter.question = question
            return None
        self._observer.looked_up("miss")
        breaker, probe = self.breaker, False
        if breaker.state is not _CLOSED:
            wait = breaker.wait()
            if wait is not None:
                failure = Unavailable("breaker_open", wait)
                failure.reason = self._last_refusal
                return self._without_answer(key, waiter, failure)
            probe = True
        question = waiter.question = Question(key, token, self._clock(), probe, self._ended, {waiter: None})
        try:
            self._questions.begin(question)
        except Exception:
            if probe:
                self.breaker.abandoned()
            raise
        return None

    def _may_join(self, question: Question, arrived: float) -> bool:
        return question.joinable and (question.sent_at is None or arrived - question.sent_at < self._bound)

    def _without_answer(self, key: bytes, waiter: Waiter, failure: Exception) -> Verdict:
        """By what is known of before, where it may be used all the same; else a refusal.

        Raises:
            Exception: `failure`, if it is a fault of our own.
        """
        if not isinstance(failure, Unavailable):
            raise failure
        # An outage is the server's: not our own queue's, nor our credentials'.
        if failure.reason is Reason.AS_UNAVAILABLE and failure.counts:
            facts = self.cache.stale(key, waiter.arrived)
            if facts is not None:
                self._observer.looked_up("stale")
                return self._judged(facts, waiter.requirement)
        return Verdict(failure.reason, retry_after=max(1, math.ceil(failure.retry_after or 1.0)))

    def _send(self, question: Question) -> None:
        # Everything about the answer counts from here: before the first byte leaves.
        question.sent_at, question.sent_wall = self._clock(), self._wall()
        try:
            question.asking = self._introspect(question.token, question)
        except Exception as bug:
            if question in self._questions:  # else it was told before
                question.told(bug)

    def _ended(self, question: Question, outcome: Outcome) -> None:
        """Report to the breaker, remember, and tell all who wait."""
        try:
            if isinstance(outcome, Learnt):
                self._heard(outcome, question.began)
                if self._remembers:
                    self._remember(question, outcome.facts)
            elif isinstance(outcome, Unavailable):
                self._failed(outcome, question.began)
        except Exception as bug:
            outcome = bug
        if question.probe and not _speaks_of_server(outcome):
            self.breaker.abandoned()
        self._questions.end(question)
        waiters = question.waiters
        while waiters:
            waiter, _ = waiters.popitem()
            try:
                if not isinstance(outcome, Learnt):
                    verdict: Verdict | None = self._without_answer(question.key, waiter, outcome)
                elif question.void:  # it may speak of the time before the revocation: asked anew
                    verdict = self._wait(question.key, question.token, waiter)
                else:
                    verdict = self._judged(outcome.facts, waiter.requirement)
                if verdict is not None:
                    waiter.told(verdict)
            except Exception as bug:
                self._crash(waiter, bug)

    def _crash(self, waiter: Waiter, bug: Exception) -> None:
        try:
            waiter.crashed(bug)
        except Exception as another:  # it must not take the answer from those behind it
            log_bug("A request failed in a way that was not foreseen", another)

    def _remember(self, question: Question, facts: Facts) -> None:
        """Keep an answer for others, unless what came after its question speaks against it."""
        if question.void or question.sent_at is None:
            return
        if not facts.active:
            for other in self._questions.by_key[question.key]:
                if other.sent_at is not None:  # the server may have looked at it before this one, though sent later
                    other.overtaken, other.joinable = True, False
        elif question.overtaken:
            return
        left = math.inf if facts.exp is None else facts.exp - question.sent_wall
        self.cache.put(question.key, facts, question.sent_at, left)

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
        if not failure.counts:
            return
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


def _speaks_of_server(outcome: Outcome) -> bool:
    """Whether it says anything about the authorization server, and so to the breaker."""
    if isinstance(outcome, Learnt):
        return not outcome.blames_token
    return isinstance(outcome, Unavailable) and outcome.counts


class _Awaited(Waiter):
    """Waits as a future does."""

    __slots__ = ("verdict",)

    def __init__(self, verdict: asyncio.Future[Verdict]) -> None:
        self.verdict = verdict

    def told(self, verdict: Verdict) -> None:
        if not self.verdict.done():
            self.verdict.set_result(verdict)

    def crashed(self, bug: Exception) -> None:
        if not self.verdict.done():
            self.verdict.set_exception(bug)
