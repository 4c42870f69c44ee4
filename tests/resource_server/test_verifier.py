"""The heart, with clocks and an authorization server in hand. No sockets, no waiting."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protectedservice_server import question
from protectedservice_server.breaker import FAILURES_TO_OPEN
from protectedservice_server.cache import key_of
from protectedservice_server.decision import INACTIVE, Facts, Reason, Verdict
from protectedservice_server.policy import AuthorizationServer, Policy, Requirement, Validation
from protectedservice_server.question import MOST_ASKED, Asker, Learnt, RefusedUs, Unavailable, Waiter
from protectedservice_server.verifier import Verifier

NEEDED = Requirement(("read",))
GOOD = Facts(active=True, scopes=frozenset({"read"}))
TOKEN = "a-known-token"


@dataclass(eq=False)
class Pending:
    """A question under way."""

    asker: Asker
    given_up: bool = False
    broken: bool = False

    def give_up(self) -> None:
        self.given_up = True
        if self.broken:
            raise ZeroDivisionError


class Failing(Waiter):
    """Cannot take its verdict."""

    def __init__(self) -> None:
        self.bugs: list[Exception] = []

    def told(self, verdict: Verdict) -> None:
        raise ZeroDivisionError

    def crashed(self, bug: Exception) -> None:
        self.bugs.append(bug)


class Unfit(Failing):
    """Nor can it be told so."""

    def crashed(self, bug: Exception) -> None:
        super().crashed(bug)
        raise ZeroDivisionError


class Leaving(Waiter):
    """Makes another one leave when it is told."""

    other: Leaving

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.verdicts: list[Reason] = []

    def told(self, verdict: Verdict) -> None:
        self.verifier.leave(self.other)
        self.verdicts.append(verdict.reason)

    def crashed(self, bug: Exception) -> None:
        raise AssertionError("nobody is to crash") from bug


@dataclass
class World:
    """Clocks, and an authorization server that answers when it is told to."""

    bound: float = 5.0
    stale: float = 0.0
    budget: float = 2.0
    now: float = 1000.0
    epoch: float = 1_800_000_000.0
    asked: list[str] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    broken: bool = False
    lookups: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    tells: Learnt | None = None

    def __post_init__(self) -> None:
        policy = Policy(
            NEEDED,
            AuthorizationServer("https://as/introspect"),
            Validation(max_revocation_delay=self.bound, timeout=self.budget, serve_stale=self.stale),
        )
        self.verifier = Verifier(
            policy, self._introspect, clock=lambda: self.now, wall=lambda: self.epoch, observer=self
        )

    def looked_up(self, result: str) -> None:
        self.lookups.append(result)

    def introspected(self, result: str, seconds: float) -> None:
        self.results.append(result)

    def _introspect(self, token: str, asker: Asker) -> Pending:
        if self.tells is not None:
            asker.told(self.tells)
        if self.broken:
            raise ZeroDivisionError
        self.asked.append(token)
        self.pending.append(Pending(asker))
        return self.pending[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.epoch += seconds

    async def request(self, token: str = TOKEN) -> asyncio.Task[Verdict]:
        """Start a request and let it run as far as it can."""
        task = asyncio.create_task(self.verifier.verify(token, NEEDED))
        await settle()
        return task

    async def answer(self, answer: Facts | Learnt | Exception, which: int = 0) -> None:
        """Answer a question that is under way."""
        self.pending.pop(which).asker.told(Learnt(answer) if isinstance(answer, Facts) else answer)
        await settle()

    async def learn(self, answer: Facts | Learnt | Exception, token: str = TOKEN) -> Verdict:
        """One request, asked about and answered at once."""
        task = await self.request(token)
        await self.answer(answer)
        return await task


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(8):
        await asyncio.sleep(0)


async def test_an_answer_is_used_again_within_the_bound_of_its_question() -> None:
    world = World(bound=5.0)
    first = await world.request()
    world.advance(1.0)  # the answer takes a second: its age counts from the question
    await world.answer(GOOD)
    world.advance(3.999)
    second = await world.request()

    assert (await first).reason is Reason.OK
    assert (await second).facts is GOOD
    assert world.lookups == ["miss", "hit"]
    assert len(world.asked) == 1


async def test_an_answer_is_not_used_at_the_bound() -> None:
    world = World(bound=5.0)
    await world.learn(GOOD)
    world.advance(5.0)
    second = await world.request()

    assert not second.done()
    await world.answer(INACTIVE)
    assert (await second).reason is Reason.INACTIVE


async def test_an_answer_is_not_used_beyond_the_token_s_own_end() -> None:
    world = World(bound=60.0)
    await world.learn(Facts(active=True, scopes=frozenset({"read"}), exp=world.epoch + 3))
    world.advance(3.0)
    second = await world.request()

    assert not second.done()
    await world.answer(INACTIVE)
    await second


async def test_a_token_that_ends_while_its_answer_travels_is_refused() -> None:
    world = World()
    task = await world.request()
    world.advance(1.5)
    await world.answer(Facts(active=True, scopes=frozenset({"read"}), exp=world.epoch - 1))

    assert (await task).reason is Reason.EXPIRED


async def test_times_are_looked_at_on_each_request_even_on_a_hit() -> None:
    world = World(bound=60.0)
    await world.learn(Facts(active=True, scopes=frozenset({"read"}), exp=world.epoch + 30, nbf=world.epoch - 1))
    world.epoch += 40  # the wall clock was set; the monotonic one knows nothing of it
    late = await world.request()
    world.epoch -= 60
    early = await world.request()

    assert (await late).reason is Reason.EXPIRED
    assert (await early).reason is Reason.NOT_YET_VALID
    assert world.lookups == ["miss", "hit", "hit"]


async def test_what_is_remembered_are_facts_and_not_the_verdict() -> None:
    world = World()
    await world.learn(GOOD)
    other = await world.verifier.verify(TOKEN, Requirement(("write",)))

    assert other.reason is Reason.SCOPE
    assert other.facts is None
    assert len(world.asked) == 1


async def test_an_inactive_answer_is_remembered_for_two_seconds() -> None:
    world = World(bound=60.0)
    await world.learn(INACTIVE)
    world.advance(1.999)
    hit = await world.request()
    world.advance(0.001)
    miss = await world.request()

    assert (await hit).reason is Reason.INACTIVE
    assert not miss.done()
    await world.answer(GOOD)
    assert (await miss).reason is Reason.OK


async def test_200_requests_with_one_unknown_token_are_one_question() -> None:
    world = World()
    tasks = [await world.request() for _ in range(200)]
    await world.answer(GOOD)
    reasons = {(await task).reason for task in tasks}

    assert reasons == {Reason.OK}
    assert len(world.asked) == 1
    assert world.lookups == ["miss"] + ["joined"] * 199


async def test_its_failure_answers_all_who_wait_and_is_not_remembered() -> None:
    world = World()
    tasks = [await world.request() for _ in range(200)]
    await world.answer(Unavailable("status_5xx", 7.0))
    verdicts = [await task for task in tasks]
    again = await world.learn(GOOD)

    assert {verdict.reason for verdict in verdicts} == {Reason.AS_UNAVAILABLE}
    assert {verdict.retry_after for verdict in verdicts} == {7}
    assert again.reason is Reason.OK
    assert len(world.asked) == 2


async def test_a_question_is_joined_only_by_requests_within_the_bound_of_its_sending() -> None:
    world = World(bound=5.0)
    first = await world.request()
    world.advance(4.999)
    joins = await world.request()
    world.advance(0.001)
    asks = await world.request()

    assert len(world.asked) == 2
    await world.answer(GOOD)
    assert (await first).reason is Reason.OK
    assert (await joins).reason is Reason.OK
    assert not asks.done()
    await world.answer(INACTIVE)
    assert (await asks).reason is Reason.INACTIVE


async def test_a_late_answer_to_an_early_question_does_not_replace_a_later_one() -> None:
    world = World(bound=5.0)
    early = await world.request()
    world.advance(5.0)
    late = await world.request()
    await world.answer(INACTIVE, which=1)
    await world.answer(GOOD)
    after = await world.request()

    assert [(await task).reason for task in (early, late, after)] == [Reason.OK, Reason.INACTIVE, Reason.INACTIVE]


@pytest.mark.parametrize("stale", [0.0, 60.0])
async def test_an_inactive_answer_ends_what_a_question_of_before_may_still_say_though_it_was_sent_later(
    stale: float,
) -> None:
    world = World(bound=0.5, stale=stale)
    early = await world.request()
    world.advance(0.5)
    late = await world.request()  # the server looks at this one first, and then the token is revoked
    await world.answer(INACTIVE)
    after = await world.request()
    assert len(world.asked) == 3  # it does not join the late one
    await world.answer(GOOD)
    last = await world.request()

    assert ((await early).reason, (await late).reason) == (Reason.INACTIVE, Reason.OK)
    assert world.verifier.cache.sizes()[0] == 0
    await world.answer(Unavailable("connection") if stale else INACTIVE)
    assert {(await task).reason for task in (after, last)} == {Reason.AS_UNAVAILABLE if stale else Reason.INACTIVE}


async def test_an_inactive_answer_to_an_early_question_ends_what_a_later_one_has_brought() -> None:
    world = World(bound=0.5, stale=60.0)
    early = await world.request()
    world.advance(0.5)
    late = await world.request()
    await world.answer(GOOD, which=1)
    await world.answer(INACTIVE)
    after = await world.request()

    assert ((await early).reason, (await late).reason) == (Reason.INACTIVE, Reason.OK)
    assert not after.done()  # they contradict each other: the server is asked
    await world.answer(Unavailable("connection"))
    assert (await after).reason is Reason.AS_UNAVAILABLE


async def test_with_a_bound_of_zero_each_request_has_its_own_question() -> None:
    world = World(bound=0.0)
    first = await world.request()
    second = await world.request()
    await world.answer(GOOD)

    assert (await first).reason is Reason.OK
    assert not second.done()
    await world.answer(INACTIVE)
    assert (await second).reason is Reason.INACTIVE
    assert (await world.learn(GOOD)).reason is Reason.OK
    assert len(world.asked) == 3
    assert world.verifier.cache.sizes() == (0, 0)


async def test_with_a_bound_of_zero_a_question_that_is_not_sent_yet_serves_all_who_have_arrived() -> None:
    world = World(bound=0.0)
    before = [await world.request(f"t{number}") for number in range(MOST_ASKED)]
    together = [await world.request() for _ in range(10)]
    for _ in range(MOST_ASKED + 1):
        await world.answer(GOOD)

    assert {(await task).reason for task in (*before, *together)} == {Reason.OK}
    assert world.asked.count(TOKEN) == 1


async def test_a_caller_that_goes_away_does_not_take_the_answer_from_the_others() -> None:
    world = World()
    leaving = await world.request()
    staying = await world.request()
    leaving.cancel()
    await settle()
    await world.answer(GOOD)

    assert leaving.cancelled()
    assert (await staying).reason is Reason.OK


async def test_an_answer_for_which_nobody_waits_any_more_is_still_remembered() -> None:
    world = World()
    leaving = await world.request()
    leaving.cancel()
    await settle()
    await world.answer(GOOD)
    later = await world.request()

    assert (await later).reason is Reason.OK
    assert len(world.asked) == 1


async def test_a_question_that_takes_longer_than_its_budget_is_an_outage() -> None:
    world = World(budget=0.001)

    verdict = await world.verifier.verify(TOKEN, NEEDED)

    assert verdict.reason is Reason.AS_UNAVAILABLE
    assert world.results == ["timeout"]
    assert world.pending[0].given_up


async def test_each_question_has_its_own_time_and_one_timer_keeps_it_for_all() -> None:
    loop = asyncio.get_running_loop()
    world = World(budget=0.02)
    for number in range(3):
        began = loop.time()
        await world.verifier.verify(f"t{number}", NEEDED)
        # uvloop counts whole milliseconds, and asyncio's timers may fire a tick of the clock early.
        assert loop.time() - began >= 0.018
    assert world.results == ["timeout"] * 3

    overlapping = World(budget=0.02)
    first = await overlapping.request("first")
    began = loop.time()
    await asyncio.wait([first], timeout=0.01)
    second = await overlapping.request("second")
    async with asyncio.timeout(10):
        assert [(await task).reason for task in (first, second)] == [Reason.AS_UNAVAILABLE] * 2
    assert loop.time() - began >= 0.026


async def test_those_that_never_had_a_place_are_late_without_being_sent_and_say_nothing_about_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(question, "monotonic", lambda: now)
    world = World(budget=0.01)
    tasks = [await world.request(f"t{number}") for number in range(3 * MOST_ASKED)]
    now += 0.01
    async with asyncio.timeout(10):
        verdicts = [await task for task in tasks]

    assert {verdict.reason for verdict in verdicts} == {Reason.AS_UNAVAILABLE}
    assert len(world.asked) == MOST_ASKED
    assert sorted(world.results) == ["saturated"] * 2 * MOST_ASKED + ["timeout"] * MOST_ASKED


async def test_a_question_that_cannot_be_given_up_keeps_none_behind_it_from_its_deadline() -> None:
    world = World(budget=0.01)
    tasks = [await world.request(token) for token in ("first", "second", "third")]
    world.pending[1].broken = True
    async with asyncio.timeout(10):
        verdicts = [await task for task in tasks]
        verdicts.append(await world.verifier.verify("later", NEEDED))

    assert [verdict.reason for verdict in verdicts] == [Reason.AS_UNAVAILABLE] * 4


async def test_a_question_that_cannot_even_be_asked_is_a_fault_of_our_own_at_once_or_after_a_wait() -> None:
    world = World()
    first = [await world.request(f"t{number}") for number in range(MOST_ASKED)]
    queued = [await world.request(f"queued{number}") for number in range(2000)]  # more than calls may be nested
    world.broken = True
    at_once = await world.request("at once")
    await world.answer(GOOD)

    results = await asyncio.gather(*queued, at_once, return_exceptions=True)
    assert {type(result) for result in results} == {ZeroDivisionError}
    assert (await first[0]).reason is Reason.OK
    assert len(world.verifier._questions) == MOST_ASKED - 1


async def test_a_caller_that_cannot_take_its_verdict_takes_it_from_nobody_else() -> None:
    world = World()
    before = await world.request()
    unable = Failing(), Unfit()
    for waiter in unable:
        assert world.verifier.ask(key_of(TOKEN), TOKEN, NEEDED, waiter) is None
    after = await world.request()
    await world.answer(GOOD)

    assert {(await before).reason, (await after).reason} == {Reason.OK}
    assert [type(bug) for waiter in unable for bug in waiter.bugs] == [ZeroDivisionError] * 2


async def test_who_tells_and_then_fails_has_told() -> None:
    world = World()
    world.tells = Learnt(GOOD)
    world.broken = True

    assert (await world.verifier.verify(TOKEN, NEEDED)).reason is Reason.OK
    assert len(world.verifier._questions) == 0


async def test_failures_in_a_row_stop_the_asking_and_one_probe_starts_it_again() -> None:
    world = World()
    for number in range(FAILURES_TO_OPEN):
        await world.learn(Unavailable("connection"), f"t{number}")
    refused = await world.verifier.verify("another", NEEDED)
    world.advance(1.0)
    probe = await world.request("probe")
    beside = await world.verifier.verify("beside", NEEDED)
    await world.answer(GOOD)
    after = await world.learn(GOOD, "after")

    assert (refused.reason, refused.retry_after) == (Reason.AS_UNAVAILABLE, 1)
    assert (await probe).reason is Reason.OK
    assert beside.reason is Reason.AS_UNAVAILABLE
    assert after.reason is Reason.OK
    assert len(world.asked) == FAILURES_TO_OPEN + 2


async def test_a_wait_for_our_own_places_says_nothing_about_the_server() -> None:
    world = World(budget=0.01)
    world.verifier._questions._places = 0  # a flood of other tokens has taken every place
    for number in range(2 * FAILURES_TO_OPEN):
        verdict = await world.verifier.verify(f"t{number}", NEEDED)
        assert verdict.reason is Reason.AS_UNAVAILABLE
    world.verifier._questions._places = 1

    assert (await world.learn(GOOD)).reason is Reason.OK


async def test_an_open_breaker_does_not_touch_what_is_remembered() -> None:
    world = World(bound=60.0)
    await world.learn(GOOD)
    for number in range(FAILURES_TO_OPEN):
        await world.learn(Unavailable("connection"), f"t{number}")

    assert (await world.verifier.verify(TOKEN, NEEDED)).reason is Reason.OK


async def test_refused_credentials_keep_their_own_reason_while_the_breaker_is_open() -> None:
    world = World()
    for number in range(FAILURES_TO_OPEN):
        await world.learn(RefusedUs(), f"t{number}")

    assert (await world.verifier.verify("another", NEEDED)).reason is Reason.AS_REFUSED_US


async def test_tokens_that_the_server_refuses_to_look_at_do_not_open_the_breaker() -> None:
    world = World()
    for number in range(3 * FAILURES_TO_OPEN):
        verdict = await world.learn(Learnt(INACTIVE, blames_token=True), f"eyJ{number}")
        assert verdict.reason is Reason.INACTIVE

    assert (await world.learn(GOOD)).reason is Reason.OK


async def test_such_a_token_as_a_probe_neither_closes_the_breaker_nor_blocks_the_next_probe() -> None:
    world = World()
    for number in range(FAILURES_TO_OPEN):
        await world.learn(Unavailable("connection"), f"t{number}")
    world.advance(1.0)
    await world.learn(Learnt(INACTIVE, blames_token=True), "eyJ")
    verdict = await world.learn(Unavailable("connection"), "next")
    refused = await world.verifier.verify("another", NEEDED)

    assert verdict.reason is Reason.AS_UNAVAILABLE
    assert (refused.reason, refused.retry_after) == (Reason.AS_UNAVAILABLE, 2)


async def test_a_fault_of_our_own_is_not_an_answer_and_frees_the_probe() -> None:
    world = World()
    task = await world.request()
    await world.answer(ZeroDivisionError())

    with pytest.raises(ZeroDivisionError):
        await task
    assert (await world.learn(GOOD)).reason is Reason.OK


async def test_an_outage_is_logged_once_and_its_end_too_without_any_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World()
    for number in range(FAILURES_TO_OPEN - 1):
        await world.learn(Unavailable("connection"), f"{TOKEN}{number}")
    await world.learn(GOOD)

    assert [record.levelname for record in caplog.records if record.name.startswith("protectedservice")] == [
        "WARNING",
        "INFO",
    ]
    assert TOKEN not in caplog.text


async def test_closing_gives_up_what_is_under_way() -> None:
    world = World()
    tasks = [await world.request(f"t{number}") for number in range(MOST_ASKED + 1)]
    world.verifier.close()

    assert {(await task).reason for task in tasks} == {Reason.AS_UNAVAILABLE}
    assert len(world.asked) == MOST_ASKED  # none that had waited for a place was sent at the end
    assert all(question.given_up for question in world.pending)


# --- serveStale ---


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(5.0, Reason.OK), (64.9, Reason.OK), (65.0, Reason.AS_UNAVAILABLE), (70.0, Reason.AS_UNAVAILABLE)],
)
async def test_in_an_outage_a_good_answer_is_used_for_the_bound_and_as_much_longer_as_allowed(
    seconds: float, reason: Reason
) -> None:
    world = World(bound=5.0, stale=60.0)
    await world.learn(GOOD)
    world.advance(seconds)
    verdict = await world.learn(Unavailable("connection"))

    assert verdict.reason is reason
    assert world.lookups == ["miss", "miss", *(["stale"] if reason is Reason.OK else [])]


async def test_it_is_used_with_an_open_breaker_too_without_a_question() -> None:
    world = World(bound=5.0, stale=60.0)
    await world.learn(GOOD)
    world.advance(6.0)
    for number in range(FAILURES_TO_OPEN):
        await world.learn(Unavailable("connection"), f"t{number}")
    asked = len(world.asked)

    assert (await world.verifier.verify(TOKEN, NEEDED)).reason is Reason.OK
    assert (await world.verifier.verify("unknown", NEEDED)).reason is Reason.AS_UNAVAILABLE
    assert len(world.asked) == asked


async def test_while_the_server_answers_the_bound_is_what_it_was() -> None:
    world = World(bound=5.0, stale=60.0)
    await world.learn(GOOD)
    world.advance(5.0)

    assert (await world.learn(INACTIVE)).reason is Reason.INACTIVE


@pytest.mark.parametrize("failure", [RefusedUs(), Unavailable("malformed", counts=False)])
async def test_a_failure_that_is_no_outage_brings_nothing_back(failure: Unavailable) -> None:
    world = World(bound=5.0, stale=60.0)
    await world.learn(GOOD)
    world.advance(6.0)

    assert (await world.learn(failure)).reason is failure.reason


async def test_a_token_that_was_said_to_be_inactive_stays_out_in_the_outage() -> None:
    world = World(bound=0.0, stale=60.0)
    await world.learn(GOOD)
    await world.learn(INACTIVE)

    assert (await world.learn(Unavailable("connection"))).reason is Reason.AS_UNAVAILABLE


@pytest.mark.parametrize("between", [0.0, 0.1])
async def test_an_answer_of_before_that_comes_after_the_inactive_one_is_not_kept_for_the_outage(between: float) -> None:
    world = World(bound=0.0, stale=60.0)
    early = await world.request()
    world.advance(between)
    late = await world.request()
    await world.answer(INACTIVE, which=1)
    await world.answer(GOOD)

    assert ((await early).reason, (await late).reason) == (Reason.OK, Reason.INACTIVE)
    assert (await world.learn(Unavailable("connection"))).reason is Reason.AS_UNAVAILABLE


async def test_the_token_s_own_end_holds_in_the_outage_too() -> None:
    world = World(bound=1.0, stale=60.0)
    await world.learn(Facts(active=True, scopes=frozenset({"read"}), exp=world.epoch + 10))
    world.advance(9.0)
    within = await world.learn(Unavailable("connection"))
    world.advance(1.0)

    assert within.reason is Reason.OK
    assert (await world.learn(Unavailable("connection"))).reason is Reason.AS_UNAVAILABLE


async def test_the_scopes_are_looked_at_as_ever() -> None:
    world = World(bound=1.0, stale=60.0)
    await world.learn(Facts(active=True, scopes=frozenset({"other"})))
    world.advance(2.0)

    assert (await world.learn(Unavailable("connection"))).reason is Reason.SCOPE


# --- a revocation that somebody tells ---


async def test_what_is_known_of_a_token_that_is_told_is_used_no_more() -> None:
    world = World(bound=60.0, stale=60.0)
    await world.learn(GOOD)
    await world.learn(GOOD, "another")
    world.verifier.forget(TOKEN)
    again = await world.learn(INACTIVE)

    assert again.reason is Reason.INACTIVE
    assert (await world.verifier.verify("another", NEEDED)).reason is Reason.OK


async def test_it_is_not_brought_back_by_an_outage() -> None:
    world = World(bound=60.0, stale=60.0)
    await world.learn(GOOD)
    world.verifier.forget(TOKEN)

    assert (await world.learn(Unavailable("connection"))).reason is Reason.AS_UNAVAILABLE


async def test_a_call_under_way_is_not_believed_and_all_who_wait_for_it_ask_anew_together() -> None:
    world = World(bound=60.0)
    waiting = [await world.request() for _ in range(3)]
    world.verifier.forget(TOKEN)
    late = await world.request()
    asked = len(world.asked)
    await world.answer(GOOD)

    assert not any(task.done() for task in (*waiting, late))
    assert (asked, len(world.asked)) == (2, 2)  # the late one at once, and those who waited with it
    await world.answer(INACTIVE)
    assert {(await task).reason for task in (*waiting, late)} == {Reason.INACTIVE}
    assert (await world.request()).done()
    assert world.verifier.cache.sizes() == (0, 1)


async def test_a_token_that_was_told_wrongly_is_good_again_after_one_question() -> None:
    world = World(bound=60.0)
    await world.learn(GOOD)
    world.verifier.forget(TOKEN)

    assert (await world.learn(GOOD)).reason is Reason.OK
    assert (await world.verifier.verify(TOKEN, NEEDED)).reason is Reason.OK
    assert len(world.asked) == 2


async def test_every_call_under_way_is_void_where_none_is_shared() -> None:
    world = World(bound=0.0)
    tasks = [await world.request() for _ in range(2)]
    world.advance(0.1)
    tasks.append(await world.request())
    world.verifier.forget(TOKEN)
    for _ in range(3):
        await world.answer(GOOD)
    while world.pending:
        await world.answer(INACTIVE)

    assert {(await task).reason for task in tasks} == {Reason.INACTIVE}


async def test_telling_of_a_token_that_nobody_knows_does_nothing() -> None:
    world = World()
    world.verifier.forget("unknown")

    assert (await world.learn(GOOD)).reason is Reason.OK


_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.sampled_from([0.0, 0.001, 0.5, 1.0, 2.0, 4.999, 5.0, 7.0])),
        st.tuples(st.just("request"), st.just(0.0)),
        st.tuples(st.just("look"), st.integers(0, 5)),
        st.tuples(st.just("answer"), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("revoke"), st.just(0.0)),
        st.tuples(st.just("tell"), st.just(0.0)),
        st.tuples(st.just("step"), st.sampled_from([-3600.0, -1.0, 1.0])),
    ),
    max_size=50,
)


@dataclass
class Play:
    """Plays events against the verifier and remembers what the promise is about."""

    world: World
    revoked_at: float | None = None
    refused: bool = False  # an inactive answer has come
    told: bool = False  # and the verifier was told
    closed: set[int] = field(default_factory=set)  # requests that nothing may let in any more
    looked: dict[Any, Facts] = field(default_factory=dict)  # by question; held, so that no other one gets its id
    requests: list[tuple[float, asyncio.Task[Verdict]]] = field(default_factory=list)

    def later_than(self, arrived: float, bound: float) -> bool:
        return self.revoked_at is not None and arrived > self.revoked_at + bound

    def _state(self) -> Facts:
        return GOOD if self.revoked_at is None else INACTIVE

    async def event(self, name: str, value: float) -> None:
        world = self.world
        if name == "advance":
            world.advance(value)
        elif name == "step":  # somebody sets the wall clock
            world.epoch += value
        elif name == "request":
            if self.told or self.refused:
                self.closed.add(len(self.requests))
            self.requests.append((world.now, await world.request()))
        elif name == "revoke":
            self.revoked_at = world.now if self.revoked_at is None else self.revoked_at
        elif name == "tell":
            if self.revoked_at is not None:
                self.told = True
                self.closed |= {number for number, (_, task) in enumerate(self.requests) if not task.done()}
                world.verifier.forget(TOKEN)
        elif name == "leave" and self.requests:
            self.requests[int(value) % len(self.requests)][1].cancel()
        elif world.pending:
            which = int(value) % len(world.pending)
            # The server may look at its own state at any moment between question and answer.
            facts = self.looked.setdefault(world.pending[which], self._state())
            if name != "look":
                self.refused = self.refused or (name == "answer" and not facts.active)
                await world.answer(facts if name == "answer" else Unavailable("connection"), which)

    async def end(self) -> list[tuple[int, float, Verdict]]:
        while self.world.pending:
            await self.event("answer", 0)
        await settle()
        requests = [(number, at, task) for number, (at, task) in enumerate(self.requests) if not task.cancelled()]
        return [(number, at, task.result()) for number, at, task in requests]


def in_loop(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner() as runner:
        runner.run(play())


@settings(max_examples=600)
@given(bound=st.sampled_from([0.0, 0.5, 5.0]), stale=st.sampled_from([0.0, 0.0, 2.0, 10.0]), events=_EVENTS)
def test_no_interleaving_lets_a_request_in_that_arrived_later_than_the_bound_after_the_revocation(
    bound: float, stale: float, events: list[tuple[str, float]]
) -> None:
    async def play() -> None:
        game = Play(World(bound=bound, stale=stale, budget=60.0))
        for name, value in events:
            await game.event(name, value)
        for number, arrived, verdict in await game.end():
            too_late = game.revoked_at is not None and arrived > game.revoked_at + bound + stale
            assert not (too_late and verdict.reason is Reason.OK)
            # Whoever was told of the revocation, or asked and heard of it, does not forget that in an outage.
            assert not (number in game.closed and verdict.reason is Reason.OK)
            # And what was never revoked is never told to be.
            assert game.revoked_at is not None or verdict.reason in (Reason.OK, Reason.AS_UNAVAILABLE)
        # All the time beyond the bound was an outage's.
        late = [at for _, at, v in await game.end() if v.reason is Reason.OK and game.later_than(at, bound)]
        assert len(late) <= game.world.lookups.count("stale")

    in_loop(play)


def test_the_bound_is_reached_with_and_without_an_outage_so_that_the_search_above_can_find_what_it_forbids() -> None:
    async def play() -> None:
        world = World(bound=5.0, stale=10.0)
        await world.learn(GOOD)
        game = Play(world)
        await game.event("revoke", 0.0)
        world.advance(14.999)
        task = await world.request()
        await world.answer(Unavailable("connection"))

        assert (await task).reason is Reason.OK

    in_loop(play)


async def test_a_question_that_waits_for_its_place_goes_with_the_last_of_its_callers() -> None:
    world = World()
    asking = [await world.request(f"t{number}") for number in range(MOST_ASKED)]
    alone, first, second = [await world.request(token) for token in ("alone", "shared", "shared")]
    for gone in (alone, first):
        gone.cancel()
    await settle()
    held = len(world.verifier._questions)
    again = await world.request("alone")
    for _ in range(MOST_ASKED):
        await world.answer(GOOD)
    await world.answer(GOOD)
    await world.answer(GOOD)

    assert held == MOST_ASKED + 1
    assert sorted(world.asked[MOST_ASKED:]) == ["alone", "shared"]
    assert {(await task).reason for task in (*asking, second, again)} == {Reason.OK}
    assert len(world.verifier._questions) == 0


async def test_callers_who_leave_while_the_failure_of_such_a_question_is_told_do_not_disturb() -> None:
    world = World(budget=0.01)
    world.verifier._questions._places = 0  # all places are taken
    both = Leaving(world.verifier), Leaving(world.verifier)
    both[0].other, both[1].other = both[1], both[0]
    for waiter in both:
        assert world.verifier.ask(key_of(TOKEN), TOKEN, NEEDED, waiter) is None
    async with asyncio.timeout(10):
        while not world.results:  # noqa: ASYNC110 what it waits for is a timer of the verifier's
            await asyncio.sleep(0)

    assert [waiter.verdicts for waiter in both] in ([[Reason.AS_UNAVAILABLE], []], [[], [Reason.AS_UNAVAILABLE]])
    assert len(world.verifier._questions) == 0


async def test_a_question_that_is_printed_shows_no_token() -> None:
    world = World()
    task = await world.request()
    shown = repr(world.pending[0].asker)
    await world.answer(GOOD)

    assert "Question" in shown
    assert TOKEN not in shown
    assert (await task).reason is Reason.OK


async def test_a_question_that_was_sent_outlives_its_callers() -> None:
    world = World()
    gone = await world.request()
    gone.cancel()
    await settle()
    await world.answer(GOOD)

    assert (await world.request()).result().reason is Reason.OK
    assert len(world.asked) == 1


async def test_a_probe_that_goes_with_its_caller_leaves_the_next_one_to_probe() -> None:
    world = World()
    for number in range(FAILURES_TO_OPEN):
        await world.learn(Unavailable("status_5xx"), f"t{number}")
    world.verifier._questions._places = 0  # all places are taken
    world.advance(60.0)
    gone = await world.request("probe")
    gone.cancel()
    await settle()
    world.verifier._questions._places = 1

    assert (await world.learn(GOOD)).reason is Reason.OK
