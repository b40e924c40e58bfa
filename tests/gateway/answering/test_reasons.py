"""Reasons for recommended items."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from gateway.calls import TIMEOUT_S, Rating, Subject, request_for
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.scoring_service_pb2 import ExplainItemsResponse
from marquee_services.gateway.answering.evidence import ModelEvidence

VISITOR = Subject(ratings=[Rating(item_id=f"i{n}", stars=stars) for n, stars in ((1, 5), (8, 2))])


def shares_of(item: pb.RecommendedItem) -> dict[str, pb.Reason.ModelShare]:
    """Return the model shares of an item by model."""
    shares = [r.model_share for r in item.reasons if r.HasField("model_share")]
    return {share.model: share for share in shares}


def rated_of(item: pb.RecommendedItem) -> list[pb.Reason.RatedItem]:
    """Return the rated items among the reasons for an item."""
    return [r.rated_item for r in item.reasons if r.HasField("rated_item")]


async def test_reasons_add_up_to_the_score(stub: Any) -> None:
    """The contributions of the models sum to the score, and evidence is included."""
    answer = await stub.Recommend(request_for(include_reasons=True), timeout=TIMEOUT_S)
    for item in answer.items:
        shares = [r.model_share for r in item.reasons if r.HasField("model_share")]
        assert sum(share.contribution for share in shares) == pytest.approx(item.score, abs=1e-5)
        kinds = {reason.WhichOneof("evidence") for reason in item.reasons}
        assert kinds == {"model_share", "rated_item", "similar_users"}


async def test_rated_items_sum_to_the_shares_of_the_models(stub: Any) -> None:
    """With few ratings all are listed, and those of a model sum to the explained part of its share.

    The rest is the model's output for a user without ratings, which is the baseline's stars.
    """
    request = pb.RecommendRequest(
        subject=VISITOR, options=pb.RecommendOptions(include_reasons=True)
    )
    answer = await stub.Recommend(request, timeout=TIMEOUT_S)
    assert len(answer.items) == 20
    for item in answer.items:
        shares = shares_of(item)
        sums: dict[str, float] = defaultdict(float)
        for rated in rated_of(item):
            share = shares[rated.model]
            sums[rated.model] += rated.score_contribution
            weight = share.contribution / share.output
            assert rated.score_contribution == pytest.approx(weight * rated.contribution, abs=1e-5)
        assert set(sums) == {"item_cf", "ease", "mf"}
        baseline = shares["baseline"].output
        for model, total in sums.items():
            share = shares[model]
            assert share.decomposition == pb.Reason.DECOMPOSITION_RATED_ITEMS
            assert share.explained == pytest.approx(total, abs=1e-5)
            rest = share.contribution - share.explained
            assert rest == pytest.approx(0.0 if model == "ease" else baseline, abs=1e-5)
        for model in ("baseline", "popularity", "intercept"):
            assert shares[model].decomposition == pb.Reason.DECOMPOSITION_IMPERSONAL
            assert shares[model].explained == 0.0


async def test_the_most_influential_rated_items_are_listed(stub: Any) -> None:
    """Five rated items are listed, ordered by their sum over the models."""
    answer = await stub.Recommend(request_for(include_reasons=True), timeout=TIMEOUT_S)
    for item in answer.items:
        totals: dict[str, float] = defaultdict(float)
        for rated in rated_of(item):
            totals[rated.item_id] += rated.score_contribution
        sizes = [abs(total) for total in totals.values()]
        assert len(sizes) == 5
        assert sizes == sorted(sizes, reverse=True)


async def test_a_single_model_provides_all_evidence(stub: Any) -> None:
    """Only the model that ranks is explained, in the unit of its output."""
    answer = await stub.Recommend(
        request_for(include_reasons=True, model="ease"), timeout=TIMEOUT_S
    )
    for item in answer.items:
        assert set(shares_of(item)) == {"ease", "intercept"}
        assert {rated.model for rated in rated_of(item)} == {"ease"}
        for rated in rated_of(item):
            assert rated.score_contribution == pytest.approx(rated.contribution)


async def test_models_of_a_lost_backend_have_no_share(stub: Any, services: Any) -> None:
    """The rest of the ensemble explains the answer, which is marked as degraded."""
    await services.scoring["cf"].stop()
    request = pb.RecommendRequest(
        subject=VISITOR, options=pb.RecommendOptions(include_reasons=True)
    )
    answer = await stub.Recommend(request, timeout=TIMEOUT_S)
    assert answer.source.degraded
    for item in answer.items:
        shares = shares_of(item)
        assert set(shares) == {"mf", "baseline", "popularity", "intercept"}
        assert {rated.model for rated in rated_of(item)} == {"mf"}


def test_a_model_missing_from_the_evidence_is_not_decomposed() -> None:
    """If a backend omits a model from its evidence, that model's scores cannot be decomposed."""
    message = ExplainItemsResponse.ItemEvidence()
    message.models.add(model="ease").rated_items.total = 0.5
    message.models.add(model="user_cf").similar_users.count = 3
    found = ModelEvidence.of_backend(["ease", "user_cf", "mf"], message)
    assert (found["ease"].rated_total, found["ease"].similar_users) == (0.5, None)
    assert found["user_cf"].rated_total is None
    assert found["user_cf"].similar_users is not None
    assert found["mf"] == ModelEvidence()
