"""Predicted ratings of given items."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.calls import TIMEOUT_S, Subject, request_for
from marquee.v1 import recommender_service_pb2 as pb


async def test_predicted_ratings_keep_the_order_of_the_request(stub: Any) -> None:
    """Unknown items keep their position and have no prediction."""
    ids = ["i50", "gone", "i3", "i119"]
    request = pb.PredictRatingsRequest(subject=Subject(user_id="u7"), item_ids=ids)
    answer = await stub.PredictRatings(request, timeout=TIMEOUT_S)
    assert [p.item_id for p in answer.predictions] == ids
    assert [p.HasField("stars") for p in answer.predictions] == [True, False, True, True]
    all_items = await stub.Recommend(
        request_for(page_size=1000, include_seen=True), timeout=TIMEOUT_S
    )
    stars = {item.item_id: item.predicted_stars for item in all_items.items}
    for prediction in answer.predictions:
        if prediction.HasField("stars"):
            assert prediction.stars == pytest.approx(stars[prediction.item_id], abs=1e-5)


async def test_a_request_with_only_unknown_items_is_answered(stub: Any) -> None:
    """Each unknown item is in the answer, without a prediction."""
    request = pb.PredictRatingsRequest(subject=Subject(user_id="u7"), item_ids=["x", "y"])
    answer = await stub.PredictRatings(request, timeout=TIMEOUT_S)
    assert [p.item_id for p in answer.predictions] == ["x", "y"]
    assert not any(p.HasField("stars") for p in answer.predictions)
    assert "mf" in {w.model for w in answer.source.models}
