"""Similar items."""

from __future__ import annotations

from typing import Any

import grpc

from gateway.calls import TIMEOUT_S, error_of
from marquee.v1 import recommender_service_pb2 as pb


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
