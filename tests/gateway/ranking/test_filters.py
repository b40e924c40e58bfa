"""Filters in catalogues that are scored completely, and in those that need retrieval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from gateway.calls import TIMEOUT_S, Filter, request_for
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub


@pytest.mark.parametrize(
    ("item_filter", "qualifies"),
    [
        (Filter(genres_any=["comedy"]), lambda i: "Comedy" in i.genres),
        (Filter(genres_all=["Comedy", "Drama"]), lambda i: {"Comedy", "Drama"} <= set(i.genres)),
        (Filter(genres_none=["War"]), lambda i: "War" not in i.genres),
        (Filter(year_min=1990), lambda i: i.year >= 1990),
        (Filter(year_max=1960), lambda i: 0 < i.year <= 1960),
        (Filter(allowed_item_ids=["i1", "i2", "x"]), lambda i: i.item_id in {"i1", "i2"}),
        (Filter(excluded_item_ids=["i1"]), lambda i: i.item_id != "i1"),
        (Filter(genres_all=["No Such Genre"]), lambda i: False),
    ],
)
async def test_filters_apply_before_the_page_is_cut(
    stub: Any, item_filter: Filter, qualifies: Callable[[types_pb2.Item], bool]
) -> None:
    """A filtered list contains every item that the filter allows, and no others."""
    options: dict[str, Any] = {"include_metadata": True, "include_seen": True, "page_size": 1000}
    all_items = await stub.Recommend(request_for(**options), timeout=TIMEOUT_S)
    assert len(all_items.items) == 120
    some = await stub.Recommend(request_for(filter=item_filter, **options), timeout=TIMEOUT_S)
    expected = [i.item_id for i in all_items.items if qualifies(i.metadata)]
    assert [i.item_id for i in some.items] == expected


async def test_items_are_filtered_by_minimum_predicted_stars(stub: Any) -> None:
    """Items below the minimum are omitted, and the order is kept."""
    all_items = await stub.Recommend(request_for(page_size=1000), timeout=TIMEOUT_S)
    middle = float(np.median([item.predicted_stars for item in all_items.items]))
    some = await stub.Recommend(
        request_for(page_size=1000, min_predicted_stars=middle), timeout=TIMEOUT_S
    )
    expected = [i.item_id for i in all_items.items if i.predicted_stars >= np.float32(middle)]
    assert [i.item_id for i in some.items] == expected


@pytest.mark.parametrize("dense_limit", [1000, 10])
async def test_a_filter_that_excludes_every_item_gives_an_empty_list(
    services: Any, dense_limit: int
) -> None:
    """The list is empty both with and without retrieval."""
    gateway = await services.start_gateway(dense_limit=dense_limit, candidates=20)
    await services.until_full(gateway)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        nothing = Filter(genres_any=["No Such Genre"])
        answer = await stub.Recommend(request_for(filter=nothing), timeout=TIMEOUT_S)
        assert not answer.items
        assert not answer.next_page_token
    await gateway.stop(0.5)


async def test_a_narrow_filter_needs_no_retrieval(services: Any, stub: Any) -> None:
    """All items that the filter allows are scored and listed, however large the catalogue."""
    gateway = await services.start_gateway(dense_limit=10, candidates=20)
    await services.until_full(gateway)
    few = request_for(filter=Filter(allowed_item_ids=["i3", "i50", "i77"]), include_seen=True)
    small = await stub.Recommend(few, timeout=TIMEOUT_S)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        large = await RecommenderServiceStub(channel).Recommend(few, timeout=TIMEOUT_S)
    assert {item.item_id for item in large.items} == {"i3", "i50", "i77"}
    assert [i.item_id for i in large.items] == [i.item_id for i in small.items]
    await gateway.stop(0.5)
