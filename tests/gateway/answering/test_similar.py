"""Similar items."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, error_of
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.gateway.answering import similar
from marquee_services.gateway.backends.replica import Replica


async def test_similar_items_exclude_the_item_itself(stub: Any) -> None:
    """The models that represent items are blended, and the most similar item comes first."""
    request = pb.SimilarItemsRequest(item_id="i5", page_size=10, include_metadata=True)
    answer = await stub.SimilarItems(request, timeout=TIMEOUT_S)
    assert len(answer.items) == 10
    assert "i5" not in [item.item_id for item in answer.items]
    assert {w.model for w in answer.source.models} == {"item_cf", "ease", "mf"}
    values = [item.similarity for item in answer.items]
    assert values == sorted(values, reverse=True)
    code, reason, _ = await error_of(
        stub.SimilarItems(pb.SimilarItemsRequest(item_id="gone"), timeout=TIMEOUT_S)
    )
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")
    request.page_size = 1000
    everything = await stub.SimilarItems(request, timeout=TIMEOUT_S)
    # Items with a similarity of 0 or less are omitted, however long the page.
    assert 10 < len(everything.items) < 119
    assert all(item.similarity > 0 for item in everything.items)


@pytest.mark.parametrize("genres", [[], ["War"]])
async def test_the_most_similar_items_of_a_large_catalogue_are_those_of_a_small_one(
    services: Any, stub: Any, genres: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models then return only their most similar items, here fewer than the catalogue has."""
    monkeypatch.setattr(similar, "_MIN_SIMILAR", 40)
    returned: list[int] = []
    compare = Replica.compare

    async def counted(*arguments: Any) -> Any:
        found = await compare(*arguments)
        returned.extend(len(one.values) for one in found.values())
        return found

    monkeypatch.setattr(Replica, "compare", counted)
    gateway = await services.start_gateway(dense_limit=10)
    await services.until_full(gateway)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        large: Any = RecommenderServiceStub(channel)
        request = pb.SimilarItemsRequest(
            item_id="i5", page_size=4, filter=types_pb2.ItemFilter(genres_any=genres)
        )
        few = await large.SimilarItems(request, timeout=TIMEOUT_S)
    await gateway.stop(0.5)
    assert max(returned) < 119
    returned.clear()
    expected = await stub.SimilarItems(request, timeout=TIMEOUT_S)
    assert min(returned) > 119
    assert len(few.items) == 4
    assert [item.item_id for item in few.items] == [item.item_id for item in expected.items]
    for item, other in zip(few.items, expected.items, strict=True):
        assert item.similarity == pytest.approx(other.similarity, abs=1e-6)
        assert item.proposed_by == other.proposed_by
