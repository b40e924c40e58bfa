"""Other tasks run between the steps in which a long page is assembled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, request_for
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.gateway.answering import recommend
from marquee_services.gateway.answering.item_bytes import serialized_items
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates


async def test_no_two_steps_share_a_turn_of_the_event_loop(
    services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single call beside a batch waits for about a dozen turns, so each turn must be short."""
    turns, turn_of_steps = 0, list[int]()

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def recorded(step: Callable[..., Any]) -> Callable[..., Any]:
        def record(*arguments: Any) -> Any:
            turn_of_steps.append(turns)
            return step(*arguments)

        return record

    monkeypatch.setattr(recommend, "_SLICE", 10)
    monkeypatch.setattr(recommend, "serialized_items", recorded(serialized_items))
    monkeypatch.setattr(RankedCandidates, "proposers", recorded(RankedCandidates.proposers))
    monkeypatch.setattr(RankedCandidates, "known_scores", recorded(RankedCandidates.known_scores))
    gateway = await services.start_gateway()
    await services.until_full(gateway)
    counting = asyncio.create_task(count_turns())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        answer = await RecommenderServiceStub(channel).Recommend(
            request_for(page_size=50), timeout=TIMEOUT_S
        )
    counting.cancel()
    assert len(answer.items) == 50
    # The scores of the page, the models that proposed its items, and five slices of items.
    assert len(turn_of_steps) == 7
    assert len(set(turn_of_steps)) == 7
    await gateway.stop(0.5)
