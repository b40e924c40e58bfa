"""The adaptive limit: when it shrinks and grows, and what it refuses. Time is simulated."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from marquee_services.errors import Busy
from marquee_services.server.adaptive_limit import AdaptiveLimit


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Returns the time in seconds."""
        return self.now


def new_limit(clock: Clock, least: float = 2, most: float = 64) -> AdaptiveLimit:
    """A limit that tolerates twice the least latency until latencies without load are known."""
    return AdaptiveLimit(least, most, tolerance=2.0, acceptable_s=0.001, initial=8, clock=clock)


async def run(limit: AdaptiveLimit, clock: Clock, calls: int, seconds: float) -> None:
    """Makes so many calls at once, each of which takes so many seconds, and skips refused ones."""
    async with AsyncExitStack() as stack:
        for _ in range(calls):
            with suppress(Busy):
                if limit.in_progress + 1 <= limit.limit:
                    await stack.enter_async_context(limit.admit("call"))
        clock.now += seconds


async def test_the_limit_follows_the_latency() -> None:
    """It shrinks when calls take longer than tolerated, and grows again when they do not."""
    clock = Clock()
    limit = new_limit(clock)
    for _ in range(20):
        await run(limit, clock, 10, 0.06)
    grown = limit.limit
    assert grown > 8
    for _ in range(100):
        limit.refused_at = clock()  # As long as calls are refused, no latency is one without load.
        await run(limit, clock, int(limit.limit), 0.6)
    assert limit.limit < 5
    clock.now += 2
    for _ in range(400):
        await run(limit, clock, int(limit.limit), 0.06)
    assert limit.limit > grown


async def test_what_is_tolerated_depends_on_the_percentile_without_load() -> None:
    """Where single calls often take long, calls under load may take as long on average."""
    clock = Clock()
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


async def test_answers_must_cost_less_when_refusing_does_not_help() -> None:
    """If they stay slow with the least limit, until no call has been refused for a second."""
    clock = Clock()
    limit = new_limit(clock)
    for _ in range(20):
        await run(limit, clock, 1, 0.06)
    for _ in range(100):
        limit.refused_at = clock()
        await run(limit, clock, int(limit.limit), 0.6)
    assert limit.limit == 2
    assert limit.is_exhausted
    async with limit.admit("call", is_complete=False):
        clock.now += 0.01  # Fast, but not whole: what whole answers take stays known.
    limit.refused_at = clock()
    assert limit.is_exhausted
    clock.now += 1.1
    assert not limit.is_exhausted


async def test_calls_that_do_not_use_the_limit_do_not_raise_it() -> None:
    """A quiet hour says nothing about what the server can bear."""
    clock = Clock()
    limit = new_limit(clock)
    for _ in range(200):
        await run(limit, clock, 1, 0.06)
    assert limit.limit == 8


async def test_a_short_burst_waits_and_a_lasting_queue_is_refused() -> None:
    """Calls beyond the limit are answered in a burst; if the queue lasts, they are refused."""
    clock = Clock()
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


async def test_the_queue_is_bounded() -> None:
    """A burst that many calls would have to wait for is overload, and beyond it none waits."""
    limit = new_limit(Clock())
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


async def test_a_call_that_would_come_too_late_is_refused_under_load_only() -> None:
    """While calls are refused, one with less time left than calls take is refused as well."""
    clock = Clock()
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


async def test_under_overload_the_newest_goes_first_and_the_oldest_is_refused() -> None:
    """Those that wait are begun while they are young, and refused when they have waited enough."""
    clock = Clock()
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


async def test_with_few_calls_in_flight_there_is_no_overload() -> None:
    """However long calls wait, those of a caller who waits for each are begun in their order."""
    clock = Clock()
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


async def test_a_place_taken_early_is_used_or_given_up() -> None:
    """A call that waited before its request was read begins at once, whatever it turns out to cost.

    Its place is free again if it needs none, or if the request does not arrive soon.
    """
    limit = new_limit(Clock())
    async with limit.early_slot("call"):
        assert limit.in_progress == 1
        async with limit.admit("call", cost=3):
            assert limit.in_progress == 3
        assert limit.in_progress == 0
    async with limit.early_slot("call"):
        pass
    assert limit.in_progress == 0
    async with limit.early_slot("call"):
        while limit.in_progress:  # It is not used.
            await asyncio.sleep(0.01)
        async with limit.admit("call"):
            assert limit.in_progress == 1
    assert limit.in_progress == 0


async def test_a_caller_who_gives_up_leaves_no_trace() -> None:
    """A call that is cancelled while it waits, or as its turn comes, does not hold the limit."""
    limit = new_limit(Clock())
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
