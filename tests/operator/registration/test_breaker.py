"""The breaker's states, driven by a clock that the test holds."""

from __future__ import annotations

import pytest

from protectedservice_operator.errors import ServerUnavailable
from protectedservice_operator.registration.breaker import (
    FAILURES,
    LONGEST_DELAY,
    LONGEST_RETRY_AFTER,
    Breaker,
    State,
)

from .clock import FakeClock


def breaker(clock: FakeClock, **changes: object) -> Breaker:
    arguments: dict[str, object] = {"clock": clock, "jitter": lambda: 0.0} | changes
    return Breaker(**arguments)  # type: ignore[arg-type]  # a builder: each test names what it is about


def fail(subject: Breaker, retry_after: float | None = None) -> None:
    with subject.attempt() as attempt:
        attempt.failed(retry_after)


def succeed(subject: Breaker) -> None:
    with subject.attempt() as attempt:
        attempt.succeeded()


def open_up(subject: Breaker) -> None:
    for _ in range(FAILURES):
        fail(subject)


def refused(subject: Breaker) -> ServerUnavailable:
    with pytest.raises(ServerUnavailable) as caught, subject.attempt():
        pass
    return caught.value


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        pytest.param("", State.CLOSED, id="nothing happened yet"),
        pytest.param("ff", State.CLOSED, id="two failures are not enough"),
        pytest.param("fff", State.OPEN, id="three failures in a row"),
        pytest.param("ffsff", State.CLOSED, id="a success in between starts the count anew"),
        pytest.param("ffaf", State.OPEN, id="an abandoned attempt counts neither way"),
    ],
)
def test_state_after_attempts_that_ended_so(ends: str, state: State) -> None:
    subject = breaker(FakeClock())
    for end in ends:
        with subject.attempt() as attempt:
            if end == "f":
                attempt.failed()
            elif end == "s":
                attempt.succeeded()

    assert subject.state is state
    assert subject.open is (state is not State.CLOSED)


def test_an_open_breaker_refuses_with_the_time_left_and_certainly_nothing_sent() -> None:
    clock = FakeClock()
    subject = breaker(clock)
    open_up(subject)
    clock.now += 0.25

    error = refused(subject)

    assert (error.retry_after, error.uncertain) == (0.75, False)
    assert subject.retry_after == 0.75


def test_after_the_delay_exactly_one_probe_goes() -> None:
    clock = FakeClock()
    subject = breaker(clock)
    open_up(subject)
    clock.now += 1.0
    assert subject.retry_after == 0.0

    with subject.attempt() as probe:
        assert subject.state is State.HALF_OPEN
        assert refused(subject).retry_after == 1.0
        probe.succeeded()

    assert subject.open is False
    assert subject.retry_after is None


def test_delays_double_up_to_the_longest_and_start_over_after_a_success() -> None:
    clock = FakeClock()
    subject = breaker(clock)
    open_up(subject)
    delays = []
    for _ in range(8):
        delays.append(subject.retry_after)
        clock.now += subject.retry_after or 0
        fail(subject)

    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]

    clock.now += LONGEST_DELAY
    succeed(subject)
    open_up(subject)
    assert subject.retry_after == 1


def test_jitter_shortens_a_delay_by_a_quarter_at_most() -> None:
    subject = breaker(FakeClock(), jitter=lambda: 0.999999)
    open_up(subject)

    assert subject.retry_after == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(
    ("asked", "delay"),
    [
        pytest.param(7.0, 7.0, id="opens at once, for as long as asked"),
        pytest.param(0.2, 1.0, id="never shorter than our own delay"),
        pytest.param(86400.0, LONGEST_RETRY_AFTER, id="never longer than five minutes"),
    ],
)
def test_one_answer_with_retry_after_opens(asked: float, delay: float) -> None:
    subject = breaker(FakeClock())
    fail(subject, asked)

    assert subject.retry_after == delay


def test_an_abandoned_probe_frees_its_place_and_changes_no_delay() -> None:
    clock = FakeClock()
    subject = breaker(clock)
    open_up(subject)
    clock.now += 1.0
    with subject.attempt():
        pass

    assert subject.state is State.OPEN
    assert subject.retry_after == 0.0


@pytest.mark.parametrize("late", ["succeeded", "failed"])
def test_an_attempt_from_before_the_breaker_opened_says_nothing_new(late: str) -> None:
    clock = FakeClock()
    subject = breaker(clock)
    with subject.attempt() as slow:
        open_up(subject)
        getattr(slow, late)()

    assert subject.state is State.OPEN
    assert subject.retry_after == 1.0


def test_closing_calls_back_once_and_only_after_an_opening() -> None:
    clock, calls = FakeClock(), []
    subject = breaker(clock, on_close=lambda: calls.append(clock.now))
    succeed(subject)
    assert calls == []

    open_up(subject)
    clock.now += 1.0
    succeed(subject)
    succeed(subject)

    assert calls == [1001.0]
