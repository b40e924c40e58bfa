"""The pages of one list are consistent."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, request_for
from gateway.ranking.test_router import let_only_cf_rank
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub


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
