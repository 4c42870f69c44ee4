"""No order of requests, answers, revocations, outages and clocks lets a request in later than the bound.

A state machine of hypothesis plays against `verifier.Verifier` with a clock in hand and an authorization server with a
memory, and looks after each step at every verdict that was given. It chooses, among others, when the server looks at
its own state: at any moment between question and answer.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protectedservice_server.breaker import State
from protectedservice_server.decision import INACTIVE, Facts, Reason, Verdict
from protectedservice_server.policy import AuthorizationServer, Policy, Requirement, Validation
from protectedservice_server.question import Asker, Learnt, Outcome, Unavailable
from protectedservice_server.verifier import Verifier

SCOPES: Final = {"reader": frozenset({"read"}), "admin": frozenset({"read", "admin"}), "brief": frozenset({"read"})}
NEEDS: Final = {"read": Requirement(("read",)), "admin": Requirement(("admin",))}
BRIEF: Final = 7.0
"""Seconds that the token `brief` lives."""

KINDS: Final = st.sampled_from(["reader"] * 4 + ["admin", "brief"])
"""Mostly one, so that much happens to it."""

STEPS: Final = st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.001, 0.499, 0.5, 1.0, 2.0, 4.999, 5.0, 10.0])


def _scopes(token: str) -> frozenset[str]:
    return SCOPES[token.partition(".")[0]]


@dataclass(eq=False)
class Question:
    """One question under way at the authorization server."""

    token: str
    sent_at: float
    sent_step: int
    asker: Asker
    looked: Facts | None = None
    """What the server found when it looked; None: it has not looked yet."""

    def give_up(self) -> None:
        """Nothing is given up here: no question is late."""


@dataclass(eq=False)
class Request:
    """One request and everything about its moment that its verdict is judged by."""

    token: str
    need: str
    arrived: float
    step: int
    breaker: State
    task: asyncio.Task[Verdict]
    judged: bool = False


@dataclass
class Memory:
    """What the authorization server and the world know."""

    revoked_at: dict[str, float] = field(default_factory=dict)
    revoked_at_step: dict[str, int] = field(default_factory=dict)
    told_at_step: dict[str, int] = field(default_factory=dict)
    """When a revocation was first told to the resource server too, as a step of the play."""
    told_again_at_step: dict[str, int] = field(default_factory=dict)
    """When it was told last."""
    answered_inactive_at_step: dict[str, int] = field(default_factory=dict)
    """When the server said so last; what had been sent before is not believed by those who come later."""
    sent: list[Question] = field(default_factory=list)
    failed: list[tuple[str, int, bool]] = field(default_factory=list)
    """Token and step of each question that failed, and whether by the server's fault."""
    refused_at_step: dict[str, int] = field(default_factory=dict)
    """When a request was first told that its token was revoked."""


class Play(RuleBasedStateMachine):
    """`bound` and `stale` are chosen first."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now, self.epoch, self.step = 1000.0, 1_800_000_000.0, 0
        self.memory = Memory()
        self.pending: list[Question] = []
        self.requests: list[Request] = []

    @initialize(bound=st.sampled_from([0.0, 0.0, 0.5, 5.0, 5.0]), stale=st.sampled_from([0.0, 0.0, 10.0]))
    def start(self, bound: float, stale: float) -> None:
        self.bound, self.stale = bound, stale
        # The budget is real time of the loop, which hardly passes here: questions end when the play says so.
        validation = Validation(max_revocation_delay=bound, timeout=3600.0, serve_stale=stale)
        policy = Policy(NEEDS["read"], AuthorizationServer("https://as/introspect"), validation)
        self.tokens: dict[str, str] = {}
        """The newest token of each kind."""
        self.ends: dict[str, float] = {}
        self.issued = 0
        for kind in SCOPES:
            self.issue(kind)
        self.verifier = Verifier(
            policy, self._introspect, clock=lambda: self.now, wall=lambda: self.epoch, observer=self
        )

    @precondition(lambda self: any(token in self.memory.revoked_at for token in self.tokens.values()))
    @rule()
    def issue_anew(self) -> None:
        """Whose token was revoked gets a new one, so that a play can revoke more than once."""
        for kind, token in self.tokens.items():
            if token in self.memory.revoked_at:
                self.issue(kind)

    def issue(self, kind: str) -> None:
        self.issued += 1
        token = self.tokens[kind] = f"{kind}.{self.issued}"
        self.ends[token] = self.epoch + BRIEF if kind == "brief" else math.inf

    def looked_up(self, result: str) -> None:
        """Observer."""

    def introspected(self, result: str, seconds: float) -> None:
        """Observer."""

    def _introspect(self, token: str, asker: Asker) -> Question:
        question = Question(token, self.now, self.step, asker)
        self.memory.sent.append(question)
        self.pending.append(question)
        return question

    def _settle(self) -> None:
        async def settle() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.step += 1
        self.loop.run_until_complete(settle())
        self.step += 1
        self._judge_all()  # before any clock moves

    def _state(self, token: str) -> Facts:
        ends = self.ends[token]
        if token in self.memory.revoked_at or self.epoch >= ends:
            return INACTIVE
        return Facts(active=True, scopes=_scopes(token), sub=token, exp=None if ends == math.inf else ends)

    @rule(kind=KINDS, need=st.sampled_from(["read", "read", "admin"]), looks_at_once=st.booleans(), seconds=STEPS)
    def request(self, kind: str, need: str, looks_at_once: bool, seconds: float) -> None:
        """After `seconds`. The front looks at what is remembered first, and waits only where that is not enough."""
        self._time_passes(seconds)
        self.step += 1
        token = self.tokens[kind]
        remembered = self.verifier.recall(token.encode(), NEEDS[need])
        if remembered is not None:
            self._judge(token, need, self.now, remembered, answered_by_outage=False)
        sent, state = len(self.memory.sent), self.verifier.breaker.state
        joinable = [q for q in self.pending if q.token == token and self.now - q.sent_at < self.bound]
        joinable = [q for q in joinable if q.sent_step > self.memory.told_again_at_step.get(token, -1)]
        joinable = [q for q in joinable if q.sent_step > self.memory.answered_inactive_at_step.get(token, -1)]
        task = self.loop.create_task(self.verifier.verify(token, NEEDS[need]))
        self.requests.append(Request(token, need, self.now, self.step, state, task))
        self._settle()
        # Single flight: whoever may use a question that is under way asks none of his own.
        assert not (joinable and len(self.memory.sent) > sent), "a second question beside one that could be joined"
        assert len(self.memory.sent) <= sent + 1
        if looks_at_once and len(self.memory.sent) > sent:
            self.pending[-1].looked = self._state(token)

    def _time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.epoch += seconds

    @rule(seconds=st.sampled_from([-3600.0, -1.0, 1.0, 6.0]))
    def wall_clock_is_set(self, seconds: float) -> None:
        self.epoch += seconds

    @rule(kind=KINDS, told=st.booleans())
    def revoke(self, kind: str, told: bool) -> None:
        token = self.tokens[kind]
        self.step += 1
        self.memory.revoked_at.setdefault(token, self.now)
        self.memory.revoked_at_step.setdefault(token, self.step)
        if told:
            self.step += 1
            self.memory.told_at_step.setdefault(token, self.step)
            self.memory.told_again_at_step[token] = self.step
            self.verifier.forget(token)
            self._settle()

    @rule(
        kind=KINDS,
        told=st.booleans(),
        before=STEPS,
        after=STEPS,
        ends=st.lists(st.sampled_from(["answer the first", "answer the last", "fail the last"]), max_size=3),
    )
    def revocation_overtakes_a_question(
        self, kind: str, told: bool, before: float, after: float, ends: list[str]
    ) -> None:
        """The beginning of most races: by themselves these steps rarely come together."""
        self.request(kind, "read", True, 0.0)
        self.revoke(kind, told)
        self.request(kind, "read", False, before)
        for end in ends:
            mine = [question for question in self.pending if question.token == self.tokens[kind]]
            if not mine:
                break
            self._end(mine[0 if end == "answer the first" else -1], fails=end == "fail the last")
        self.request(kind, "read", False, after)

    def _end(self, question: Question, *, fails: bool, counts: bool = True) -> None:
        self.pending.remove(question)
        if fails:
            self.memory.failed.append((question.token, self.step, counts))
            outcome: Outcome = Unavailable("connection", counts=counts)
        else:
            outcome = Learnt(question.looked or self._state(question.token))
            if not outcome.facts.active:
                self.memory.answered_inactive_at_step[question.token] = self.step
        self.loop.call_soon(question.asker.told, outcome)
        self._settle()

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def server_answers(self, data: st.DataObject) -> None:
        self._end(data.draw(st.sampled_from(self.pending)), fails=False)

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), counts=st.booleans())
    def question_fails(self, data: st.DataObject, counts: bool) -> None:
        self._end(data.draw(st.sampled_from(self.pending)), fails=True, counts=counts)

    @precondition(lambda self: any(not request.task.done() for request in self.requests))
    @rule(data=st.data())
    def caller_leaves(self, data: st.DataObject) -> None:
        waiting = [request for request in self.requests if not request.task.done()]
        data.draw(st.sampled_from(waiting)).task.cancel()
        self._settle()

    def _judge_all(self) -> None:
        for request in self.requests:
            if request.judged or not request.task.done():
                continue
            request.judged = True
            if not request.task.cancelled():
                self._judge_request(request, request.task.result())
        self.requests = [request for request in self.requests if not request.judged]

    def _judge_request(self, request: Request, verdict: Verdict) -> None:
        failed = [counts for token, at, counts in self.memory.failed if token == request.token and at >= request.step]
        outage = any(failed) or request.breaker is not State.CLOSED
        self._judge(request.token, request.need, request.arrived, verdict, answered_by_outage=outage)
        if verdict.reason is Reason.AS_UNAVAILABLE:
            # A failure is never remembered: it answers those who waited for it, and nobody who comes later.
            assert outage or failed, (
                "503 without a question that failed since the request arrived, and with a closed breaker"
            )
        revoked = self.memory.revoked_at_step.get(request.token)
        if verdict.reason is Reason.INACTIVE and revoked is not None:
            self.memory.refused_at_step.setdefault(request.token, self.step)
        refused = self.memory.refused_at_step.get(request.token, self.step)
        assert not (verdict.reason is Reason.OK and request.step > refused), "let in after it was refused"
        told = self.memory.told_at_step.get(request.token)
        if self.bound + self.stale == 0 and revoked is not None and request.step > revoked:
            assert verdict.reason is not Reason.OK, "0s is exact, also where the clock has not moved in between"
        assert not (verdict.reason is Reason.OK and told is not None and request.step > told), (
            "let in after it was told"
        )

    def _judge(self, token: str, need: str, arrived: float, verdict: Verdict, *, answered_by_outage: bool) -> None:
        revoked_at = self.memory.revoked_at.get(token)
        if verdict.reason is Reason.OK:
            bound = self.bound + (self.stale if answered_by_outage else 0.0)
            assert revoked_at is None or arrived <= revoked_at + bound, "let in later than the bound"
            # The verdict belongs to this request, whoever else asked about the token before.
            assert NEEDS[need].scopes[0] in _scopes(token), "let in without the scope that this request needs"
            assert verdict.facts is not None
            assert verdict.facts.sub == token, "let in by the facts of another token"
            assert self.epoch < self.ends[token], "let in beyond the token's own end"
        elif verdict.reason is Reason.INACTIVE:
            assert revoked_at is not None or self.ends[token] < math.inf, "a good token was called inactive"
        elif verdict.reason is Reason.SCOPE:
            assert NEEDS[need].scopes[0] not in _scopes(token), "a scope that the token has was missed"

    @invariant()
    def what_is_remembered_is_an_answer(self) -> None:
        assert sum(self.verifier.cache.sizes()) <= self.issued
        assert self.bound or self.stale or self.verifier.cache.sizes() == (0, 0), "0s remembers nothing"

    def teardown(self) -> None:
        async def end() -> None:
            tasks: list[asyncio.Task[Any]] = [request.task for request in self.requests]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.verifier.close()

        self.loop.run_until_complete(end())
        self.loop.close()


TestRevocationBound = Play.TestCase
TestRevocationBound.settings = settings(max_examples=300, stateful_step_count=50)
