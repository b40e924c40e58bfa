"""Reasons of recommended items."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.calls import TIMEOUT_S, request_for


async def test_reasons_add_up_to_the_score(stub: Any) -> None:
    """The models' contributions to an item sum to its score; evidence comes with them."""
    answer = await stub.Recommend(request_for(include_reasons=True), timeout=TIMEOUT_S)
    for item in answer.items:
        shares = [r.model_share for r in item.reasons if r.HasField("model_share")]
        assert sum(share.contribution for share in shares) == pytest.approx(item.score, abs=1e-5)
        kinds = {reason.WhichOneof("evidence") for reason in item.reasons}
        assert kinds == {"model_share", "rated_item", "similar_users"}
