"""The token bucket and the places: what waits, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from protectedservice_operator.registration.limits import Limits

from .clock import FakeClock


async def take(limits: Limits, times: int) -> None:
    for _ in range(times):
        async with limits.turn():
            pass


async def test_a_burst_goes_at_once_and_the_next_waits_for_its_token() -> None:
    clock = FakeClock()
    limits = Limits(clock=clock, sleep=clock.sleep)

    await take(limits, 40)
    assert clock.slept == []

    await take(limits, 2)
    assert clock.slept == pytest.approx([0.05, 0.05])


async def test_the_bucket_never_holds_more_than_a_burst() -> None:
    clock = FakeClock()
    limits = Limits(rate=10, burst=2, clock=clock, sleep=clock.sleep)
    clock.now += 3600

    await take(limits, 3)

    assert clock.slept == pytest.approx([0.1])


async def test_a_hundred_calls_take_as_long_as_the_rate_says() -> None:
    clock = FakeClock()
    limits = Limits(rate=20, burst=40, clock=clock, sleep=clock.sleep)
    start = clock.now

    await take(limits, 100)

    assert clock.now - start == pytest.approx(60 / 20)


async def test_a_cancelled_waiter_gives_its_token_back() -> None:
    clock = FakeClock()
    never = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if not never.is_set():
            await never.wait()
        await clock.sleep(seconds)

    limits = Limits(rate=10, burst=1, clock=clock, sleep=sleep)
    await take(limits, 1)
    waiting = asyncio.create_task(take(limits, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    never.set()
    await take(limits, 1)

    assert clock.slept == pytest.approx([0.1])  # 0.2 if the cancelled one had kept its token


async def test_no_more_than_concurrency_hold_a_place() -> None:
    limits = Limits(concurrency=3)
    inside, most, go = 0, 0, asyncio.Event()

    async def call() -> None:
        nonlocal inside, most
        async with limits.turn():
            inside += 1
            most = max(most, inside)
            await go.wait()
            inside -= 1

    tasks = [asyncio.create_task(call()) for _ in range(8)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert inside == 3
    go.set()
    await asyncio.gather(*tasks)

    assert most == 3
