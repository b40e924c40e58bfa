"""A release that fails in service is withdrawn, and the previous one serves again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.calls import TIMEOUT_S, Rating, Subject
from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Float32, Int32
from marquee_core.ratings import Profiles
from marquee_services.gateway.releases.answer_watch import MIN_ANSWERS, AnswerWatch
from toy import release as toy
from toy.services import Services

# Answers to visitors are always computed.
VISITOR = pb.RecommendRequest(subject=Subject(ratings=[Rating(item_id="i1", stars=5.0)]))


class FailingLater(toy.ToyScorer):
    """Scores normally while the release is loaded, and fails afterwards."""

    is_failing = False
    gives_nan = False

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Fail once the test requests it."""
        scores = super().score(profiles, items)
        if FailingLater.is_failing and FailingLater.gives_nan:
            scores[:, -1] = np.nan
        elif FailingLater.is_failing:
            raise RuntimeError("a defect that the warm-up does not find")
        return scores


@pytest.mark.parametrize("gives_nan", [False, True])
async def test_a_release_whose_requests_fail_is_withdrawn(
    stub: Any, services: Services, monkeypatch: Any, gives_nan: bool
) -> None:
    """The gateway rolls back by itself, the status explains why, and answers are complete again."""
    monkeypatch.setattr(FailingLater, "gives_nan", gives_nan)
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


def test_empty_answers_withdraw_only_releases_that_are_worse_than_before() -> None:
    """Users who have rated everything, and releases with few items, do not cause a withdrawal."""
    watch = AnswerWatch()
    for number in range(2 * MIN_ANSWERS):
        watch.add("first", is_empty=number == 0)
    assert not watch.verdict("first")
    watch.start("first")
    for _ in range(MIN_ANSWERS - 1):
        watch.add("second", is_empty=True)
        assert not watch.verdict("second")
    watch.add("second", is_empty=True)
    assert watch.verdict("second").startswith("withdrawn: 100% of its answers have no items")
    watch.start("second")
    for _ in range(2 * MIN_ANSWERS):
        watch.add("third", is_empty=True)
    assert not watch.verdict("third")


async def test_a_release_with_empty_answers_is_withdrawn(stub: Any, services: Services) -> None:
    """The gateway returns to the previous release."""
    first = services.first.release_id
    second = await services.publish(1)
    await services.until_full()
    releases = services.gateway.releases
    by_id = {release.release_id: release for release in releases.loaded}
    for _ in range(MIN_ANSWERS):
        releases.count_answer(by_id[first], is_empty=False)
        releases.count_answer(by_id[second.release_id], is_empty=True)
    await services.until(lambda: releases.serving.release_id == first)
    status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    assert f"the gateway refused {second.release_id}: withdrawn" in status.pending_release_reason
    assert (await stub.Recommend(VISITOR, timeout=TIMEOUT_S)).source.release_id == first
