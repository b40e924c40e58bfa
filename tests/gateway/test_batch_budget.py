"""The budget that batches share: its limit, its order, and when batches pause."""

from __future__ import annotations

import asyncio

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.gateway.batch_budget import BatchBudget, subject_cost


def cost(page_size: int, *, reasons: bool = False) -> int:
    """The cost of a subject."""
    options = pb.RecommendOptions(include_reasons=reasons)
    return subject_cost(pb.BatchRecommendRequest(page_size=page_size, options=options))


def test_the_cost_grows_with_the_page_and_with_reasons() -> None:
    """A default page costs 1, one of 1,000 items about 20 times that, and reasons multiply it."""
    assert cost(0) == cost(20) == 1
    assert cost(1000) > 15 * cost(20)
    assert cost(100, reasons=True) > 2 * cost(100)


async def test_all_batches_share_one_budget() -> None:
    """The budget is never exceeded, except by a single subject that costs more."""
    budget = BatchBudget(4, lambda _seconds: False)
    now: dict[int, int] = {}
    most, order = 0, list[int]()

    async def subject(number: int, cost: int) -> None:
        nonlocal most
        async with budget.slot(cost):
            now[number] = cost
            order.append(number)
            assert sum(now.values()) <= 4 or len(now) == 1
            most = max(most, len(now))
            for _ in range(5):
                await asyncio.sleep(0)
            del now[number]

    costs = [1, 1, 2, 20, 1, 3, 2]
    await asyncio.gather(*(subject(number, cost) for number, cost in enumerate(costs)))
    assert order == list(range(len(costs)))
    assert most > 1


async def test_batches_pause_only_while_there_are_single_calls() -> None:
    """With single calls a batch pauses for as long as its turn took; without, it only yields."""
    busy, pauses = False, list[float]()
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    budget = BatchBudget(4, lambda _seconds: busy)
    asyncio.sleep = recorded  # type: ignore[assignment]
    try:
        await budget.give_way()
        assert not pauses
        busy = True
        await budget.give_way()
    finally:
        asyncio.sleep = sleep
    assert len(pauses) == 1
    assert 0 < pauses[0] <= 0.05
