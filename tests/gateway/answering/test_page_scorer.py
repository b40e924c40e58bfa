"""The pages of one list are consistent."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, Filter, request_for
from gateway.ranking.test_router import let_only_cf_rank
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.gateway.answering import page_scorer


@pytest.mark.parametrize(
    ("dense_limit", "diversity", "shortlists"),
    [(1000, 0.0, False), (1000, 0.4, False), (10, 0.0, False), (10, 0.4, False), (10, 0.0, True)],
)
async def test_pages_neither_repeat_nor_skip_while_releases_change(
    services: Any,
    dense_limit: int,
    diversity: float,
    shortlists: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All pages come from the list of the first page, even if another release is promoted."""
    gateway = await services.start_gateway(dense_limit=dense_limit, candidates=20)
    await services.until_full(gateway)
    if shortlists:
        let_only_cf_rank(gateway, monkeypatch)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        whole = await stub.Recommend(
            request_for(page_size=1000, diversity=diversity), timeout=TIMEOUT_S
        )
        request = request_for(page_size=7, diversity=diversity)
        ids: list[str] = []
        lists = set()
        while True:
            page = await stub.Recommend(request, timeout=TIMEOUT_S)
            lists.add(page.recommendation_id)
            assert page.items[0].rank == len(ids) + 1
            ids += [item.item_id for item in page.items]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
            if len(ids) == 14:
                await services.publish(1)
                await services.until_full(gateway)
        assert len(lists) == 1
        assert ids == [item.item_id for item in whole.items]
        assert page.source.release_id == services.first.release_id
    await gateway.stop(0.5)


@pytest.mark.parametrize("shortlists", [False, True])
async def test_a_list_contains_every_eligible_item_of_a_large_catalogue(
    services: Any, stub: Any, shortlists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not end where the models retrieve no more items, here at 25 of 120 items each."""
    monkeypatch.setattr(page_scorer, "MAX_RETRIEVED", 25)
    gateway = await services.start_gateway(dense_limit=10, candidates=20)
    await services.until_full(gateway)
    if shortlists:
        let_only_cf_rank(gateway, monkeypatch)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        large: Any = RecommenderServiceStub(channel)
        for options in ({}, {"include_seen": True}, {"filter": Filter(genres_any=["War"])}):
            request = request_for(page_size=1000, **options)
            found = await large.Recommend(request, timeout=TIMEOUT_S)
            expected = await stub.Recommend(request, timeout=TIMEOUT_S)
            ids = [item.item_id for item in found.items]
            assert len(ids) == len(set(ids))
            assert set(ids) == {item.item_id for item in expected.items}
    await gateway.stop(0.5)
