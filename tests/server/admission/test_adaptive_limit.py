"""The adaptive limit: when it shrinks and grows, and which calls it refuses. Time is simulated."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from marquee_services.errors import Busy, Draining
from marquee_services.server.admission.adaptive_limit import AdaptiveLimit
from toy.clock import Clock


def new_limit(clock: Clock, least: float = 2, most: float = 64) -> AdaptiveLimit:
    """Return a limit that tolerates twice the lowest latency until unloaded ones are known."""
    return AdaptiveLimit(least, most, tolerance=2.0, acceptable_s=0.001, initial=8, clock=clock)


async def run(limit: AdaptiveLimit, clock: Clock, calls: int, seconds: float) -> None:
    """Make concurrent calls that each take so many seconds, and ignore refused ones."""
    async with AsyncExitStack() as stack:
        for _ in range(calls):
            with suppress(Busy):
                if limit.in_progress + 1 <= limit.limit:
                    await stack.enter_async_context(limit.admit("call"))
        clock.now += seconds


async def test_the_limit_follows_the_latency() -> None:
    """The limit shrinks when calls take longer than tolerated, and grows again when they do not."""
    clock = Clock(100.0)
    limit = new_limit(clock)
    for _ in range(20):
        await run(limit, clock, 10, 0.06)
    grown = limit.limit
    assert grown > 8
    for _ in range(100):
        limit.refused_at = clock()  # While calls are refused, no latency counts as unloaded.
        await run(limit, clock, int(limit.limit), 0.6)
    assert limit.limit < 5
    clock.now += 2
    for _ in range(400):
        await run(limit, clock, int(limit.limit), 0.06)
    assert limit.limit > grown


async def test_the_tolerated_latency_depends_on_the_unloaded_percentile() -> None:
    """If single calls often take long, the mean under load may be as high."""
    clock = Clock(100.0)
    limits = [new_limit(clock), new_limit(clock)]
    for number in range(100):
        await run(limits[0], clock, 1, 0.06)
        await run(limits[1], clock, 1, 0.06 if number % 10 else 0.6)
    for _ in range(50):
        for limit in limits:
            limit.refused_at = clock()
            await run(limit, clock, int(limit.limit), 0.3)
    steady, unsteady = (limit.limit for limit in limits)
    assert steady == 2
    assert unsteady > 8


async def test_answers_get_cheaper_if_refusals_do_not_suffice() -> None:
    """Answers get cheaper if they stay slow at the minimum limit, until refusals stop."""
    clock = Clock(100.0)
    limit = new_limit(clock)
    for _ in range(20):
        await run(limit, clock, 1, 0.06)
    for _ in range(100):
        limit.refused_at = clock()
        await run(limit, clock, int(limit.limit), 0.6)
    assert limit.limit == 2
    assert limit.is_exhausted
    async with limit.admit("call", is_complete=False):
        clock.now += 0.01  # Fast but not complete: the latency of complete answers is kept.
    limit.refused_at = clock()
    assert limit.is_exhausted
    clock.now += 1.1
    assert not limit.is_exhausted


async def test_calls_that_do_not_use_the_limit_do_not_raise_it() -> None:
    """A quiet hour is no evidence of what the server can handle."""
    clock = Clock(100.0)
    limit = new_limit(clock)
    for _ in range(200):
        await run(limit, clock, 1, 0.06)
    assert limit.limit == 8


async def test_a_short_burst_is_queued_and_a_lasting_one_refused() -> None:
    """Calls beyond the limit are answered in a short burst, and refused if the queue persists."""
    clock = Clock(100.0)
    limit = new_limit(clock)
    gate, answered = asyncio.Event(), list[int]()

    async def call(number: int) -> None:
        async with limit.admit("call"):
            await gate.wait()
            answered.append(number)

    burst = [asyncio.create_task(call(n)) for n in range(12)]
    await asyncio.sleep(0)
    clock.now += 0.05
    assert (limit.in_progress, limit.waiting) == (8, 4)
    gate.set()
    await asyncio.gather(*burst)
    assert answered == list(range(12))
    gate.clear()
    lasting = [asyncio.create_task(call(n)) for n in range(12)]
    await asyncio.sleep(0)
    clock.now += 0.2
    late = asyncio.create_task(call(12))
    results = await asyncio.gather(*lasting[8:], return_exceptions=True)
    assert limit.is_overloaded
    assert all(isinstance(result, Busy) and result.retry_after_s > 0 for result in results)
    gate.set()
    await asyncio.gather(*lasting[:8], late)
    assert limit.in_progress == 0


async def test_queued_calls_end_at_once_when_the_server_drains() -> None:
    """Calls that wait, and later ones that would have to, end; calls in progress finish."""
    limit = new_limit(Clock(100.0))
    gate = asyncio.Event()

    async def call() -> None:
        async with limit.admit("call"):
            await gate.wait()

    started = [asyncio.create_task(call()) for _ in range(8)]
    queued = [asyncio.create_task(call()) for _ in range(4)]
    await asyncio.sleep(0)
    limit.drain()
    late = asyncio.create_task(call())
    results = await asyncio.gather(*queued, late, return_exceptions=True)
    assert all(isinstance(result, Draining) for result in results)
    gate.set()
    await asyncio.gather(*started)
    assert (limit.in_progress, limit.waiting, limit.refused) == (0, 0, 0)
    # Without overload, calls that need not wait are answered: they reach no server sooner.
    await call()


async def test_an_overloaded_server_that_drains_starts_no_call() -> None:
    """Its callers get an answer sooner from another server."""
    limit = new_limit(Clock(100.0))
    gate = asyncio.Event()

    async def call() -> None:
        async with limit.admit("call"):
            await gate.wait()

    calls = [asyncio.create_task(call()) for _ in range(8 + 64 + 1)]
    await asyncio.sleep(0)
    assert limit.is_overloaded
    limit.drain()
    gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert limit.in_progress == 0
    assert limit.must_wait
    with pytest.raises(Draining):
        await call()


async def test_the_queue_is_bounded() -> None:
    """A burst that exceeds the bound of the queue is overload, and further calls are refused."""
    limit = new_limit(Clock(100.0))
    gate = asyncio.Event()

    async def call() -> None:
        async with limit.admit("call"):
            await gate.wait()

    calls = [asyncio.create_task(call()) for _ in range(8 + 64)]
    await asyncio.sleep(0)
    assert not limit.is_overloaded
    calls += [asyncio.create_task(call()) for _ in range(1_000)]
    await asyncio.sleep(0)
    assert limit.is_overloaded
    assert (limit.in_progress, limit.waiting) == (8, 1_024)
    assert limit.refused == len(calls) - 8 - 1_024
    gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == limit.refused
    assert results.count(None) == len(calls) - limit.refused


async def test_calls_that_would_time_out_are_refused_only_under_load() -> None:
    """While calls are refused, so is a call with less time left than a typical call takes."""
    clock = Clock(100.0)
    limit = new_limit(clock)
    for _ in range(20):
        await run(limit, clock, 4, 0.06)
    async with limit.admit("call", seconds_left=0.01):
        pass
    limit.refused_at = clock()
    with pytest.raises(Busy):
        await limit.admit("call", seconds_left=0.01).__aenter__()
    async with limit.admit("call", seconds_left=10):
        pass


async def test_under_overload_the_newest_call_is_admitted_first() -> None:
    """Queued calls are admitted while recent, and refused once they have waited too long."""
    clock = Clock(100.0)
    limit = new_limit(clock, least=1, most=1)
    gates, begun = [asyncio.Event() for _ in range(8)], list[int]()

    async def call(number: int) -> None:
        async with limit.admit("call"):
            begun.append(number)
            await gates[number].wait()

    old = [asyncio.create_task(call(number)) for number in range(5)]
    await asyncio.sleep(0)
    clock.now += 0.12
    young = [asyncio.create_task(call(number)) for number in range(5, 8)]
    results = await asyncio.gather(*old[1:], return_exceptions=True)
    assert all(isinstance(result, Busy) for result in results)
    gates[0].set()
    await old[0]
    clock.now += 0.02
    gates[7].set()
    await young[2]
    assert begun == [0, 7, 6]
    clock.now += 0.05
    gates[6].set()
    with pytest.raises(Busy):
        await young[0]
    await young[1]
    assert begun == [0, 7, 6]


async def test_few_calls_in_flight_are_never_overload() -> None:
    """However long they wait, calls of callers that wait for each answer are admitted in order."""
    clock = Clock(100.0)
    limit = AdaptiveLimit(
        1, 64, tolerance=2.0, acceptable_s=0.001, min_in_flight=6, initial=1, clock=clock
    )
    gate, begun = asyncio.Event(), list[int]()

    async def call(number: int) -> None:
        async with limit.admit("call", cost=4):
            begun.append(number)
            await gate.wait()

    calls = []
    for number in range(6):
        calls.append(asyncio.create_task(call(number)))
        await asyncio.sleep(0)
        clock.now += 1
    assert not limit.is_overloaded
    gate.set()
    await asyncio.gather(*calls)
    assert begun == list(range(6))
    assert limit.refused == 0


async def test_an_early_slot_is_used_or_released() -> None:
    """A call admitted before its request was read starts immediately, whatever its cost.

    Its slot is released if it needs none, or if the request does not arrive soon.
    """
    limit = new_limit(Clock(100.0))
    async with limit.early_slot("call"):
        assert limit.in_progress == 1
        async with limit.admit("call", cost=3):
            assert limit.in_progress == 3
        assert limit.in_progress == 0
    async with limit.early_slot("call"):
        pass
    assert limit.in_progress == 0
    async with limit.early_slot("call"):
        while limit.in_progress:  # The slot is not used.
            await asyncio.sleep(0.01)
        async with limit.admit("call"):
            assert limit.in_progress == 1
    assert limit.in_progress == 0


async def test_a_cancelled_call_does_not_occupy_the_limit() -> None:
    """A call that is cancelled while queued, or as it is admitted, does not occupy the limit."""
    limit = new_limit(Clock(100.0))
    gate = asyncio.Event()

    async def call() -> None:
        async with limit.admit("call"):
            await gate.wait()

    tasks = [asyncio.create_task(call()) for _ in range(16)]
    await asyncio.sleep(0)
    tasks[8].cancel()
    gate.set()
    await asyncio.sleep(0)
    tasks[9].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert limit.in_progress == 0
    async with limit.admit("call"):
        assert limit.in_progress == 1
