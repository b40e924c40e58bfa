"""A release that fails while it serves is withdrawn, and the one before serves again."""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.calls import TIMEOUT_S, Rating, Subject
from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Float32, Int32
from marquee_core.ratings import Profiles
from toy import release as toy
from toy.services import Services

# Answers to visitors are always computed.
VISITOR = pb.RecommendRequest(subject=Subject(ratings=[Rating(item_id="i1", stars=5.0)]))


class FailingLater(toy.ToyScorer):
    """Scores well while the release is loaded, and fails from then on."""

    is_failing = False

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Fails once the test says so."""
        if FailingLater.is_failing:
            raise RuntimeError("a defect that the warm-up does not find")
        return super().score(profiles, items)


async def test_a_release_whose_requests_fail_is_withdrawn(
    stub: Any, services: Services, monkeypatch: Any
) -> None:
    """The gateway goes back by itself, the status says why, and answers are whole again."""
    first = services.first.release_id
    seen: list[str] = []

    def load(folder: Any, data: Any) -> toy.ToyScorer:
        vectors = np.load(folder / "vectors.npy")
        kind = FailingLater if seen else toy.ToyScorer
        return kind(vectors, data, toy.TOY_MODELS["cf"]["item_cf"])

    monkeypatch.setitem(toy.TOY_LOADERS["cf"], "item_cf", load)
    seen.append(first)
    second = await services.publish(1)
    await services.until_full()
    FailingLater.is_failing = True
    try:
        while services.gateway.releases.serving.release_id != first:
            await stub.Recommend(VISITOR, timeout=TIMEOUT_S)
        answer = await stub.Recommend(VISITOR, timeout=TIMEOUT_S)
        assert answer.source.release_id == first
        assert not answer.source.degraded
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
        assert f"cf refused {second.release_id}: withdrawn" in status.pending_release_reason
    finally:
        FailingLater.is_failing = False
    third = await services.publish(2)
    await services.until_full()
    assert services.gateway.releases.serving.release_id == third.release_id
