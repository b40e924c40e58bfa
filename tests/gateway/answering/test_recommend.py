"""Recommend over real sockets: full pages, blended scores, cold starts and single models."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, error_of, request_for
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2


async def test_a_known_user_gets_a_full_page_of_unseen_items(stub: Any, services: Any) -> None:
    """The page is full and sorted, and the source names the release and its models."""
    answer = await stub.Recommend(request_for(include_metadata=True), timeout=TIMEOUT_S)
    assert [item.rank for item in answer.items] == list(range(1, 21))
    assert answer.subject_kind == types_pb2.SUBJECT_KIND_KNOWN
    assert answer.source.release_id == services.first.release_id
    assert not answer.source.degraded
    assert {w.model for w in answer.source.models} >= {"item_cf", "ease", "mf", "popularity"}
    release = services.gateway.releases.serving
    seen = set(release.catalogue.items.ids(release.data.matrix.seen(release.users.index("u7"))))
    assert seen
    assert not seen & {item.item_id for item in answer.items}
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert all(1 <= item.predicted_stars <= 5 for item in answer.items)
    assert any(item.proposed_by for item in answer.items)
    assert answer.items[0].metadata.title.startswith("Film Number")
    assert answer.source.server_time_us > 0


async def test_metadata_is_that_of_the_item_however_often_it_is_requested(
    stub: Any, services: Any
) -> None:
    """GetItem, the first answer and an answer to another user agree, in pages of any length."""
    found_of: dict[str, list[types_pb2.Item]] = {}
    for user, size in (("u7", 1000), ("u7", 20), ("u8", 1000)):
        request = request_for(user, page_size=size, include_metadata=True)
        answer = await stub.Recommend(request, timeout=TIMEOUT_S)
        for item in answer.items:
            found_of.setdefault(item.item_id, []).append(item.metadata)
    assert len(found_of) > 100
    for item_id, found in found_of.items():
        one = (await stub.GetItem(pb.GetItemRequest(item_id=item_id), timeout=TIMEOUT_S)).item
        one.ClearField("attributes")
        assert all(metadata == one for metadata in found)


async def test_the_score_blends_the_scores_of_the_backends(stub: Any, services: Any) -> None:
    """Blending scores from three services equals blending them in one process."""
    answer = await stub.Recommend(request_for(page_size=1000), timeout=TIMEOUT_S)
    release = services.gateway.releases.serving
    profile = release.data.matrix.profiles([release.users.index("u7")])
    outputs = {
        "baseline": release.data.baseline.score(profile)[0],
        "popularity": release.popularity,
    }
    for scoring in services.scoring.values():
        for name, scorer in scoring.follower.newest().scorers.items():
            outputs[name] = scorer.score(profile)[0]
    blends = release.ensemble.blends(("cf", "inference"))
    for item in answer.items:
        index = release.catalogue.items.index(item.item_id)
        score = sum(w * outputs[m][index] for m, w in blends.ranking.weights.items()) + 0.125
        stars = sum(w * outputs[m][index] for m, w in blends.rating.weights.items())
        assert item.score == pytest.approx(score, abs=1e-5)
        assert item.predicted_stars == pytest.approx(min(max(stars, 1), 5), abs=1e-5)


async def test_an_unknown_user_gets_the_cold_start_answer(stub: Any) -> None:
    """The answer is neither an error nor degraded, and all unknown users get the same items."""
    answer = await stub.Recommend(request_for("nobody"), timeout=TIMEOUT_S)
    assert answer.subject_kind == types_pb2.SUBJECT_KIND_COLD_START
    assert not answer.source.degraded
    assert len(answer.items) == 20
    again = await stub.Recommend(request_for("somebody-else"), timeout=TIMEOUT_S)
    assert [i.item_id for i in answer.items] == [i.item_id for i in again.items]


async def test_a_request_may_select_a_single_model(stub: Any) -> None:
    """Only that model has a weight, and its scores rank the items."""
    answer = await stub.Recommend(request_for(model="mf"), timeout=TIMEOUT_S)
    assert [w.model for w in answer.source.models] == ["mf"]
    affinity = await stub.Recommend(request_for(model="ease"), timeout=TIMEOUT_S)
    assert affinity.items[0].score != affinity.items[0].predicted_stars
    for release_id, model, reason in (
        ("", "no_such_model", "MODEL_NOT_FOUND"),
        ("20000101T000000Z-0", "", "RELEASE_NOT_FOUND"),
    ):
        request = request_for(model=model, release_id=release_id)
        code, found, _ = await error_of(stub.Recommend(request, timeout=TIMEOUT_S))
        assert (code, found) == (grpc.StatusCode.NOT_FOUND, reason)
