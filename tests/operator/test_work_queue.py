"""The rules by which keys wait, sleep and come back; and what workers make of each outcome."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field

import pytest

from protectedservice_operator.errors import (
    AdministratorMustAct,
    ClusterUnavailable,
    Conflict,
    Outcome,
    UserMustEdit,
    Wait,
)
from protectedservice_operator.metrics import Metrics
from protectedservice_operator.resource import Key
from protectedservice_operator.work_queue import BACKOFF_LAST, Lane, QueueClosed, WorkQueue
from protectedservice_operator.workers import Workers

A, B, C = (Key("ProtectedService", "tenant", name) for name in "abc")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return max(a, 1.0) if a == 1 else (a + b) / 2


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def queue(clock: Clock, metrics: Metrics) -> WorkQueue:
    return WorkQueue(clock, rng=NoJitter(), metrics=metrics)


async def test_a_key_added_twice_is_got_once(queue: WorkQueue) -> None:
    queue.add(A)
    queue.add(A)

    assert len(queue) == 1
    assert await queue.get() == A
    assert len(queue) == 0


async def test_keys_come_in_the_order_they_were_added(queue: WorkQueue) -> None:
    queue.add(B)
    queue.add(A)

    assert [await queue.get(), await queue.get()] == [B, A]


async def test_events_come_before_the_work_of_a_start(queue: WorkQueue) -> None:
    queue.add(A, Lane.LOW)
    queue.add(B)

    assert [await queue.get(), await queue.get()] == [B, A]


async def test_a_waiting_key_moves_up_when_an_event_concerns_it(queue: WorkQueue) -> None:
    queue.add(A, Lane.LOW)
    queue.add(B, Lane.LOW)
    queue.add(B)

    assert [await queue.get(), await queue.get()] == [B, A]
    assert len(queue) == 0


async def test_a_key_in_work_is_not_handed_out_again_until_it_is_done(queue: WorkQueue) -> None:
    queue.add(A)
    await queue.get()
    queue.add(A)
    queue.add(B)

    assert await queue.get() == B
    queue.done(A)
    assert await queue.get() == A


async def test_a_key_that_nobody_added_meanwhile_is_gone_when_done(queue: WorkQueue) -> None:
    queue.add(A)
    queue.done(await queue.get())

    assert len(queue) == 0
    assert not queue.in_work


async def test_a_worker_that_waits_is_woken_by_an_added_key(queue: WorkQueue) -> None:
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)

    assert await waiting == A


async def test_every_waiting_worker_gets_a_key_when_as_many_are_added(queue: WorkQueue) -> None:
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in (A, B, C):
        queue.add(key)

    assert set(await asyncio.gather(*waiting)) == {A, B, C}


async def test_a_delayed_key_comes_when_its_time_has(queue: WorkQueue, clock: Clock) -> None:
    queue.add_after(A, 5)
    queue.add_after(B, 1)
    assert (len(queue), queue.sleeping, queue.next_due()) == (0, 2, 1)
    clock.now += 1

    assert await queue.get() == B
    clock.now += 4
    assert await queue.get() == A
    assert queue.sleeping == 0


async def test_the_earlier_of_two_delays_counts(queue: WorkQueue, clock: Clock) -> None:
    queue.add_after(A, 60)
    queue.add_after(A, 2)
    queue.add_after(A, 30)

    assert queue.next_due() == 2
    clock.now += 2
    assert await queue.get() == A
    queue.done(A)
    clock.now += 100
    queue.add(B)
    assert await queue.get() == B
    assert len(queue) == 0


async def test_a_delay_of_nothing_is_now(queue: WorkQueue) -> None:
    queue.add_after(A, 0)

    assert await queue.get() == A


async def test_a_worker_asleep_is_woken_by_the_clock_of_the_loop() -> None:
    queue = WorkQueue(asyncio.get_running_loop().time)
    queue.add_after(A, 0.01)

    assert await asyncio.wait_for(queue.get(), 5) == A


def test_the_backoff_doubles_up_to_its_limit_and_starts_anew_once_the_key_is_well(queue: WorkQueue) -> None:
    delays = [queue.add_rate_limited(A) for _ in range(14)]
    queue.forget(A)

    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == BACKOFF_LAST == 300
    assert queue.add_rate_limited(A) == 0.2


def test_the_backoff_of_one_key_is_not_that_of_another(queue: WorkQueue) -> None:
    for _ in range(5):
        queue.add_rate_limited(A)

    assert queue.add_rate_limited(B) == 0.2


def test_retry_after_of_the_other_side_wins_over_a_shorter_backoff(queue: WorkQueue) -> None:
    assert queue.add_rate_limited(A, at_least=30) == 30
    assert queue.next_due() == 30


def test_keys_that_fail_together_do_not_come_back_together(clock: Clock) -> None:
    queue = WorkQueue(clock, rng=random.Random(1))  # noqa: S311 (a fixed sequence is the point)
    delays = {queue.add_rate_limited(Key("ProtectedService", "tenant", str(n))) for n in range(100)}
    asked = {queue.add_rate_limited(Key("ProtectedService", "other", str(n)), at_least=30) for n in range(100)}

    assert len(delays) == len(asked) == 100
    assert min(delays) >= 0.1
    assert max(delays) <= 0.3
    assert min(asked) >= 30


async def test_after_shutdown_workers_are_told_and_nothing_is_added(queue: WorkQueue) -> None:
    waiting = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.shutdown()
    queue.add(A)
    queue.add_after(B, 1)

    for task in waiting:
        with pytest.raises(QueueClosed):
            await task
    assert (len(queue), queue.sleeping) == (0, 0)


async def test_the_oldest_waiting_key_tells_how_far_behind_the_workers_are(queue: WorkQueue, clock: Clock) -> None:
    assert queue.oldest() == 0
    queue.add(A, Lane.LOW)
    clock.now += 7
    queue.add(B)

    assert queue.oldest() == 7


async def test_adds_and_retries_are_counted(queue: WorkQueue, metrics: Metrics) -> None:
    queue.add(A)
    queue.add(A)
    queue.add_rate_limited(B)

    assert metrics.value("workqueue_adds_total") == 1
    assert metrics.value("workqueue_retries_total") == 1


@dataclass
class Script:
    """A reconcile that does what it is told, in order."""

    outcomes: list[float | BaseException | None] = field(default_factory=list)
    passes: list[Key] = field(default_factory=list)

    async def reconcile(self, key: Key) -> float | None:
        self.passes.append(key)
        await asyncio.sleep(0)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def workers(queue: WorkQueue, script: Script, metrics: Metrics, clock: Clock) -> Workers:
    return Workers(queue, script, metrics, clock, count=2)


async def test_a_pass_that_is_done_comes_back_only_when_it_asked_to(
    workers: Workers, queue: WorkQueue, script: Script
) -> None:
    script.outcomes = [None, 30.0]
    queue.add(A)
    await workers.work_one()
    assert queue.sleeping == 0

    queue.add(A)
    await workers.work_one()
    assert queue.next_due() == 30


@pytest.mark.parametrize("outcome", [Wait("Later", "x", retry_after=200.0), AdministratorMustAct("Act", "x")])
async def test_a_pass_that_waits_for_a_deadline_comes_back_at_it(
    workers: Workers, queue: WorkQueue, script: Script, outcome: Outcome
) -> None:
    outcome.at_latest = 20.0
    script.outcomes = [outcome]
    queue.add(A)

    await workers.work_one()

    assert queue.next_due() == 20


async def test_a_pass_that_is_done_ends_the_backoff(workers: Workers, queue: WorkQueue, script: Script) -> None:
    script.outcomes = [Wait("Later", "x"), None]
    queue.add(A)
    await workers.work_one()
    queue.add(A)
    await workers.work_one()

    assert queue.failures(A) == 0


async def test_a_conflict_is_gathered_anew_at_once_and_backs_off_when_it_repeats(
    workers: Workers, queue: WorkQueue, script: Script, metrics: Metrics
) -> None:
    script.outcomes = [Conflict("Conflict", "x"), Conflict("Conflict", "x")]
    queue.add(A)
    await workers.work_one()
    assert len(queue) == 1

    await workers.work_one()
    assert (len(queue), queue.next_due()) == (0, 0.2)
    assert metrics.value("reconcile_total", kind="ProtectedService", result="conflict") == 2


@pytest.mark.parametrize(
    ("outcome", "seconds", "result"),
    [
        pytest.param(Wait("Later", "x"), 0.2, "wait", id="wait: backoff"),
        pytest.param(Wait("Later", "x", retry_after=9), 9, "wait", id="wait: the other side's Retry-After"),
        pytest.param(ClusterUnavailable("X", "x"), 0.2, "wait", id="the Kubernetes API is away: backoff"),
        pytest.param(UserMustEdit("X", "x"), 3600, "user_must_edit", id="the user must edit: an hour"),
        pytest.param(
            AdministratorMustAct("X", "x"), 60, "administrator_must_act", id="an administrator must: a minute"
        ),
        pytest.param(RuntimeError("x"), 0.2, "bug", id="a bug: backoff"),
    ],
)
async def test_each_outcome_has_its_next_look(
    workers: Workers,
    queue: WorkQueue,
    script: Script,
    metrics: Metrics,
    outcome: Exception,
    seconds: float,
    result: str,
) -> None:
    script.outcomes = [outcome]
    queue.add(A)
    await workers.work_one()

    assert queue.next_due() == seconds
    assert metrics.value("reconcile_total", kind="ProtectedService", result=result) == 1


async def test_an_edit_that_the_user_must_make_ends_the_backoff(
    workers: Workers, queue: WorkQueue, script: Script
) -> None:
    script.outcomes = [Wait("Later", "x"), UserMustEdit("X", "x")]
    queue.add(A)
    await workers.work_one()
    queue.add(A)
    await workers.work_one()

    assert queue.failures(A) == 0


async def test_a_bug_shows_its_traceback_and_the_worker_lives(
    workers: Workers, queue: WorkQueue, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.outcomes = [RuntimeError("boom")]
    queue.add(A)
    queue.add(B)
    await workers.work_one()
    await workers.work_one()

    assert "Traceback" in caplog.text
    assert "ProtectedService tenant/a" in caplog.text
    assert script.passes == [A, B]


async def test_an_outage_says_once_per_key_that_it_waits(
    workers: Workers, queue: WorkQueue, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    script.outcomes = [Wait("Away", "no answer") for _ in range(5)]
    for _ in range(5):
        queue.add(A)
        await workers.work_one()

    assert len([record for record in caplog.records if "no answer" in record.getMessage()]) == 1


async def test_workers_never_pass_over_one_key_twice_at_a_time() -> None:
    queue = WorkQueue(asyncio.get_running_loop().time)
    under_way: set[Key] = set()
    enough = asyncio.Event()
    overlaps: list[Key] = []
    passes: list[Key] = []

    class Watchful:
        async def reconcile(self, key: Key) -> float | None:
            if key in under_way:
                overlaps.append(key)
            under_way.add(key)
            passes.append(key)
            queue.add(key)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            under_way.discard(key)
            if len(passes) >= 50:
                enough.set()
            return None

    workers = Workers(queue, Watchful(), Metrics(), asyncio.get_running_loop().time, count=4)
    queue.add(A)
    queue.add(B)
    workers.start()
    await asyncio.wait_for(enough.wait(), 10)
    await workers.stop(grace=10)

    assert overlaps == []
    assert {A, B} == set(passes)


async def test_stopping_lets_a_pass_under_way_end(queue: WorkQueue, metrics: Metrics, clock: Clock) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    ended = []

    class Slow:
        async def reconcile(self, key: Key) -> float | None:
            begun.set()
            await may_end.wait()
            ended.append(key)
            return None

    workers = Workers(queue, Slow(), metrics, clock, count=2)
    queue.add(A)
    workers.start()
    await begun.wait()
    stopping = asyncio.create_task(workers.stop(grace=30))
    await asyncio.sleep(0)
    may_end.set()
    await stopping

    assert ended == [A]
    assert workers.dead == 0


async def test_a_pass_that_does_not_end_in_time_is_cancelled_when_stopping(
    queue: WorkQueue, metrics: Metrics, clock: Clock
) -> None:
    begun, cancelled = asyncio.Event(), []

    class Stuck:
        async def reconcile(self, key: Key) -> float | None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(key)
                raise
            return None

    workers = Workers(queue, Stuck(), metrics, clock, count=1)
    queue.add(A)
    workers.start()
    await begun.wait()
    await workers.stop(grace=0.01)

    assert cancelled == [A]
