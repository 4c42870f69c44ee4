"""The breaker with a clock in hand."""

from __future__ import annotations

import pytest

from protectedservice_server.breaker import FAILURES_TO_OPEN, LONGEST_SERVER_WAIT, LONGEST_WAIT, Breaker, State


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock, retry_after: float | None = None) -> tuple[Breaker, list[State]]:
    states: list[State] = []
    breaker = Breaker(clock, states.append)
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.wait() is None
        breaker.failed(retry_after)
    return breaker, states


def test_it_opens_after_failures_in_a_row_only(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            breaker.failed()
        assert breaker.state is State.CLOSED
        breaker.succeeded()


def test_while_open_it_tells_how_long_to_wait(clock: Clock) -> None:
    breaker, _ = opened(clock)
    clock.now += 0.25

    assert breaker.wait() == pytest.approx(0.75)


def test_after_the_wait_exactly_one_may_probe(clock: Clock) -> None:
    breaker, states = opened(clock)
    clock.now += 1

    assert [breaker.wait() is None for _ in range(3)] == [True, False, False]
    assert states == [State.OPEN, State.HALF_OPEN]


def test_a_good_probe_closes_it(clock: Clock) -> None:
    breaker, states = opened(clock)
    clock.now += 1
    breaker.wait()
    breaker.succeeded()

    assert breaker.wait() is None
    assert states == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_bad_probes_double_the_wait_up_to_its_limit(clock: Clock) -> None:
    breaker, _ = opened(clock)
    waits = []
    for _ in range(6):
        wait = breaker.wait()
        assert wait is not None
        waits.append(wait)
        clock.now += wait
        breaker.wait()
        breaker.failed()

    assert waits == [1, 2, 4, 8, LONGEST_WAIT, LONGEST_WAIT]


def test_an_abandoned_probe_lets_the_next_one_probe(clock: Clock) -> None:
    breaker, _ = opened(clock)
    clock.now += 1
    breaker.wait()
    breaker.abandoned()

    assert breaker.wait() is None


@pytest.mark.parametrize(("asked", "expected"), [(7.0, 7.0), (3600.0, LONGEST_SERVER_WAIT), (0.0, 1.0)])
def test_the_server_s_own_wait_is_kept_within_reason(clock: Clock, asked: float, expected: float) -> None:
    breaker, _ = opened(clock, asked)

    assert breaker.wait() == pytest.approx(expected)


def test_a_straggler_does_not_prolong_the_wait(clock: Clock) -> None:
    breaker, _ = opened(clock)
    clock.now += 0.9
    breaker.failed()

    assert breaker.wait() == pytest.approx(0.1)
