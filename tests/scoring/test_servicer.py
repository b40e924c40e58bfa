"""The scoring service over real sockets, called as the gateway calls it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

from marquee.v1 import scoring_service_pb2 as pb
from marquee.v1.scoring_service_pb2_grpc import ScoringServiceStub
from marquee_core.retrieval.top import top_indexes
from marquee_services.server.wire import (
    pack_bits,
    pack_floats,
    pack_ints,
    unpack_floats,
    unpack_ints,
)

ITEMS = 120
# Deadline in seconds of calls whose timing is not tested; only a call that hangs reaches it.
TIMEOUT_S = 60.0


@pytest_asyncio.fixture
async def stub(services: Any) -> AsyncIterator[Any]:
    """A stub for the CF service."""
    async with grpc.aio.insecure_channel(services.scoring["cf"].address) as channel:
        yield ScoringServiceStub(channel)


def query(
    user: int | None, rated: tuple[int, ...] = (), candidates: tuple[int, ...] | None = None
) -> Any:
    """Return a query in which all ratings are three stars; None scores the whole catalogue."""
    return pb.UserQuery(
        user_index=user,
        rated_items=pack_ints(np.array(rated, dtype=np.int32)),
        ratings=pack_floats(np.full(len(rated), 3.0)),
        candidates=None if candidates is None else pack_ints(np.array(candidates, dtype=np.int32)),
    )


async def test_a_batch_has_the_scores_of_single_requests(stub: Any, services: Any) -> None:
    """One request may mix known users, visitors, candidates and whole catalogues."""
    release = services.first.release_id
    users = [
        query(3),
        query(None, (1, 2)),
        query(4, (5,), (9, 0, 7)),
        query(3, (), (1,)),
        query(3, (), ()),
    ]
    answer = await stub.ScoreItems(
        pb.ScoreItemsRequest(release_id=release, users=users), timeout=TIMEOUT_S
    )
    assert {model.model for model in answer.models} == {"item_cf", "ease"}
    ends = np.cumsum([ITEMS, ITEMS, 3, 1, 0]).tolist()
    for model in answer.models:
        scores = unpack_floats("scores", model.scores)
        assert len(scores) == ends[-1]
        for user, start, end in zip(users, [0, *ends[:-1]], ends, strict=True):
            alone = await stub.ScoreItems(
                pb.ScoreItemsRequest(release_id=release, users=[user], models=[model.model]),
                timeout=TIMEOUT_S,
            )
            expected = unpack_floats("scores", alone.models[0].scores)
            np.testing.assert_allclose(scores[start:end], expected, atol=1e-6)


async def test_queued_requests_are_scored_in_batches(
    stub: Any, services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request gets the scores of its own users, even if another request is refused."""
    engine = services.scoring["cf"].follower.newest()
    score, batches = type(engine).score, []

    def counted(self: Any, queries: Any, models: Any) -> Any:
        batches.append(len(queries))
        return score(self, queries, models)

    monkeypatch.setattr(type(engine), "score", counted)
    release = services.first.release_id
    requests = [
        pb.ScoreItemsRequest(release_id=release, users=[query(n), query(n, (), (n,))])
        for n in range(20)
    ]
    bad = pb.ScoreItemsRequest(release_id=release, users=[query(10**6)])
    calls = [stub.ScoreItems(request, timeout=TIMEOUT_S) for request in [*requests, bad]]
    answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    assert answers[-1].code() == grpc.StatusCode.INVALID_ARGUMENT
    assert sum(batches) == 40
    assert len(batches) < 20
    for request, answer in zip(requests, answers[:-1], strict=True):
        assert answer == await stub.ScoreItems(request, timeout=TIMEOUT_S)


async def test_the_items_with_the_highest_scores_are_retrieved(stub: Any, services: Any) -> None:
    """Only eligible items are retrieved, with their scores and in order of score."""
    release = services.first.release_id
    eligible = np.arange(ITEMS) % 3 == 0
    request = pb.RetrieveItemsRequest(
        release_id=release, users=[query(3)], count=7, eligible=pack_bits(eligible)
    )
    retrieved = await stub.RetrieveItems(request, timeout=TIMEOUT_S)
    scored = await stub.ScoreItems(
        pb.ScoreItemsRequest(release_id=release, users=[query(3)]), timeout=TIMEOUT_S
    )
    for found, scored_model in zip(retrieved.models, scored.models, strict=True):
        scores = unpack_floats("scores", scored_model.scores)
        best = top_indexes(scores, 7, eligible)
        assert unpack_ints("items", found.items).tolist() == best.tolist()
        assert unpack_floats("scores", found.scores).tolist() == scores[best].tolist()
        assert unpack_ints("counts", found.counts).tolist() == [7]


async def test_a_ranking_is_the_weighted_sum_of_the_scores(stub: Any, services: Any) -> None:
    """The top items of each model are included, and catalogues and candidates may be mixed."""
    release = services.first.release_id
    eligible = np.arange(ITEMS) % 3 == 0
    users = [query(3), query(None, (1, 2)), query(4, (5,), (9, 0, 7)), query(3, (), ())]
    users[0].eligible = pack_bits(eligible)
    ranked = await stub.RankItems(
        pb.RankItemsRequest(
            release_id=release,
            users=users,
            models=["ease", "item_cf"],
            weights=[2.0, -0.5],
            best_count=5,
        ),
        timeout=TIMEOUT_S,
    )
    scored = await stub.ScoreItems(
        pb.ScoreItemsRequest(release_id=release, users=users), timeout=TIMEOUT_S
    )
    scores = {model.model: unpack_floats("scores", model.scores) for model in scored.models}
    expected = 2.0 * scores["ease"] - 0.5 * scores["item_cf"]
    np.testing.assert_allclose(unpack_floats("scores", ranked.scores), expected, atol=1e-5)
    for model in ranked.models:
        found = unpack_ints("items", model.items).tolist()
        counts = unpack_ints("counts", model.counts).tolist()
        assert counts == [5, 5, 3, 0]
        assert not model.abstains
        own = scores[model.model]
        assert found[:5] == top_indexes(own[:ITEMS], 5, eligible).tolist()
        assert found[5:10] == top_indexes(own[ITEMS : 2 * ITEMS], 5).tolist()
        best = np.array([9, 0, 7])[np.argsort(-own[2 * ITEMS :])].tolist()
        assert found[10:] == best


@pytest.mark.parametrize("new_only", [False, True])
async def test_the_top_items_are_those_of_the_ranking(
    stub: Any, services: Any, new_only: bool
) -> None:
    """The items have their sums, the models that propose them, and the biases of the users."""
    engine = services.scoring["cf"].follower.newest()
    eligible = np.arange(ITEMS) % 3 == 0
    users = [query(3), query(None, (1, 2)), query(4, (5,))]
    users[1].eligible = pack_bits(eligible)
    for user in users:
        user.new_only = new_only
    request = pb.RankItemsRequest(
        release_id=services.first.release_id,
        users=users,
        models=["ease", "item_cf"],
        weights=[2.0, 0.5],
        best_count=5,
        gateway_models=["popularity"],
        gateway_weights=[0.3],
        stars_models=["item_cf"],
        stars_count=4,
        top_count=30,
    )
    ranked = await stub.RankItems(request, timeout=TIMEOUT_S)
    request.top_count = 0
    whole = await stub.RankItems(request, timeout=TIMEOUT_S)
    assert not ranked.scores
    assert ranked.best == whole.best
    assert unpack_ints("counts", ranked.top.counts).tolist()[0] == 30
    sums = unpack_floats("scores", whole.scores).reshape(3, ITEMS)
    own = [np.split(unpack_ints("items", model.items), 3) for model in whole.models]
    start = 0
    for place, user in enumerate(users):
        allowed = eligible.copy() if user.eligible else np.ones(ITEMS, np.bool_)
        index = user.user_index if user.HasField("user_index") else -1
        rated, stars = (
            unpack_ints("rated_items", user.rated_items),
            unpack_floats("ratings", user.ratings),
        )
        profile = engine.data.matrix.profile(index, rated, stars)
        if new_only:
            allowed[profile.items] = False
            allowed[engine.data.matrix.item_counts == 0] = False
        total = sums[place] + np.float32(0.3) * engine.gateway_scores["popularity"]
        best = top_indexes(total, 30, allowed)
        end = start + len(best)
        assert unpack_ints("items", ranked.top.items)[start:end].tolist() == best.tolist()
        scores = unpack_floats("scores", ranked.top.scores)[start:end]
        np.testing.assert_allclose(scores, sums[place][best], atol=1e-5)
        proposers = unpack_ints("proposers", ranked.top.proposers)[start:end].tolist()
        for item, bits in zip(best.tolist(), proposers, strict=True):
            assert bits == sum((item in own[model][place]) << model for model in (0, 1))
        bias = unpack_floats("user_biases", ranked.top.user_biases)[place]
        assert bias == pytest.approx(engine.data.baseline.user_bias(profile)[0], abs=1e-6)
        start = end
    assert start == len(unpack_ints("items", ranked.top.items))


async def test_an_abstaining_model_is_left_out_of_the_sum(
    stub: Any, services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the users that the model cannot score are ranked without it.

    Without a ranker, the best items of the sum are complete; without a rating predictor, which the
    gateway replaces, they are not.
    """
    engine = services.scoring["cf"].follower.newest()

    def disable(name: str) -> None:
        scorer = engine.scorers[name]
        score = scorer.score

        def unable(profiles: Any, items: Any = None) -> Any:
            scores = score(profiles, items)
            scores[profiles.needs_fold_in] = np.nan
            return scores

        monkeypatch.setattr(scorer, "score", unable)

    disable("ease")
    request = pb.RankItemsRequest(
        release_id=services.first.release_id,
        users=[query(3), query(None, (1, 2))],
        models=["item_cf", "ease"],
        weights=[1.0, 1.0],
        best_count=1,
    )
    ranked = await stub.RankItems(request, timeout=TIMEOUT_S)
    abstains = {m.model: unpack_ints("abstains", m.abstains).tolist() for m in ranked.models}
    assert abstains == {"item_cf": [], "ease": [1]}
    del request.models[1], request.weights[1]
    alone = await stub.RankItems(request, timeout=TIMEOUT_S)
    first, second = (unpack_floats("scores", r.scores)[ITEMS:] for r in (ranked, alone))
    np.testing.assert_allclose(first, second, atol=1e-6)
    request.models.append("ease")
    request.weights.append(1.0)
    request.top_count = 7
    short = await stub.RankItems(request, timeout=TIMEOUT_S)
    assert unpack_ints("counts", short.top.counts).tolist() == [7, 7]
    assert unpack_ints("abstains", short.models[1].abstains).tolist() == [1]
    monkeypatch.undo()
    disable("item_cf")
    short = await stub.RankItems(request, timeout=TIMEOUT_S)
    assert unpack_ints("counts", short.top.counts).tolist() == [7, 0]
    assert unpack_ints("abstains", short.models[0].abstains).tolist() == [1]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"models": []}, "INVALID_ARGUMENT"),
        ({"models": ["ease", "ease"], "weights": [1, 1]}, "INVALID_ARGUMENT"),
        ({"weights": []}, "INVALID_ARGUMENT"),
        ({"weights": [float("nan")]}, "INVALID_ARGUMENT"),
        ({"best_count": -1}, "INVALID_ARGUMENT"),
        ({"models": ["mf"]}, "NOT_FOUND"),
        ({"users": [pb.UserQuery(eligible=b"abc")]}, "INVALID_ARGUMENT"),
        ({"top_count": -1}, "INVALID_ARGUMENT"),
        ({"top_count": 1, "users": [query(1, (), (2,))]}, "INVALID_ARGUMENT"),
        ({"top_count": 1, "models": ["ease"] * 32, "weights": [1.0] * 32}, "INVALID_ARGUMENT"),
    ],
)
async def test_invalid_rankings_are_refused(
    stub: Any, services: Any, fields: dict[str, Any], code: str
) -> None:
    """Weights for models that the backend does not have are an error."""
    valid = {"users": [query(1)], "models": ["ease"], "weights": [1.0], "best_count": 1}
    request = pb.RankItemsRequest(release_id=services.first.release_id, **{**valid, **fields})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.RankItems(request, timeout=TIMEOUT_S)
    assert caught.value.code().name == code


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.ScoreItemsRequest(release_id="another", users=[query(1)]), "NOT_FOUND"),
        (pb.ScoreItemsRequest(users=[query(1)], models=["mf"]), "NOT_FOUND"),
        (pb.ScoreItemsRequest(), "INVALID_ARGUMENT"),
        (pb.ScoreItemsRequest(users=[query(10_000)]), "INVALID_ARGUMENT"),
        (pb.ScoreItemsRequest(users=[query(1, (ITEMS,))]), "INVALID_ARGUMENT"),
        (pb.ScoreItemsRequest(users=[query(1, (2, 2))]), "INVALID_ARGUMENT"),
        (pb.ScoreItemsRequest(users=[query(1, (), (-1,))]), "INVALID_ARGUMENT"),
        (pb.ScoreItemsRequest(users=[pb.UserQuery(candidates=b"abc")]), "INVALID_ARGUMENT"),
    ],
)
async def test_invalid_requests_are_refused(
    stub: Any, services: Any, request_: Any, code: str
) -> None:
    """Unknown releases, models and indexes and malformed arrays are errors of the caller."""
    request_.release_id = request_.release_id or services.first.release_id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ScoreItems(request_, timeout=TIMEOUT_S)
    assert caught.value.code().name == code


async def test_evidence_and_similarities_cover_all_requested_items(
    stub: Any, services: Any
) -> None:
    """Each candidate is explained, and an item is compared with all items."""
    release = services.first.release_id
    explained = await stub.ExplainItems(
        pb.ExplainItemsRequest(release_id=release, user=query(3, (), (5, 6)), evidence_count=2),
        timeout=TIMEOUT_S,
    )
    assert [len(unpack_ints("rated", item.rated_items)) for item in explained.items] == [2, 2]
    for item in explained.items:
        by_model = {model.model: model for model in item.models}
        assert list(by_model) == ["item_cf", "ease"]
        assert by_model["item_cf"].rated_items.items == item.rated_items
        assert by_model["item_cf"].rated_items.contributions == item.contributions
    one = pb.ExplainItemsRequest(
        release_id=release, user=query(3, (), (5,)), evidence_count=2, models=["ease"]
    )
    [item] = (await stub.ExplainItems(one, timeout=TIMEOUT_S)).items
    assert [model.model for model in item.models] == ["ease"]
    assert not item.rated_items
    compared = await stub.CompareItems(
        pb.CompareItemsRequest(release_id=release, item_index=5), timeout=TIMEOUT_S
    )
    for model in compared.models:
        row = unpack_floats("similarities", model.similarities)
        assert len(row) == ITEMS
        assert row[5] == pytest.approx(1.0)
    eligible = np.arange(ITEMS) % 2 == 0
    few = await stub.CompareItems(
        pb.CompareItemsRequest(
            release_id=release, item_index=5, count=7, eligible=pack_bits(eligible)
        ),
        timeout=TIMEOUT_S,
    )
    rows = {m.model: unpack_floats("similarities", m.similarities) for m in compared.models}
    for model in few.models:
        items = unpack_ints("items", model.items)
        assert len(items) == 7
        assert eligible[items].all()
        np.testing.assert_array_equal(
            unpack_floats("similarities", model.similarities), rows[model.model][items]
        )
