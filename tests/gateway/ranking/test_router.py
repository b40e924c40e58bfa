"""Ranking before predicting stars agrees with scoring every item with every model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from gateway.calls import TIMEOUT_S, Filter, Rating, Subject
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.arrays import Bool, Float32
from marquee_core.release.ensemble import Blend
from marquee_services.gateway.backends.backend import Backend
from marquee_services.gateway.backends.failures import BackendError, Failure
from marquee_services.gateway.backends.replica import Replica
from marquee_services.gateway.ranking.filters import filter_mask
from marquee_services.gateway.ranking.subjects import ResolvedSubject, resolve_subject
from toy.services import Services

SUBJECTS = [
    Subject(user_id="u7"),
    Subject(user_id="u7", ratings=[Rating(item_id="i5", stars=1)]),
    Subject(ratings=[Rating(item_id="i3", stars=5), Rating(item_id="i9", stars=1)]),
    Subject(liked_item_ids=[f"i{n}" for n in range(30)]),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"include_seen": True},
    {"filter": Filter(genres_any=["War"], year_min=1960)},
    {"filter": Filter(allowed_item_ids=["i2"])},
    {"min_predicted_stars": 3.2},
    {"min_predicted_stars": 4.9},
]


def all_scores(services: Services, subject: ResolvedSubject) -> dict[str, Float32]:
    """Return the scores of all items by every model of the release."""
    release = services.gateway.releases.serving
    outputs = {
        "baseline": release.data.baseline.score(subject.profile)[0],
        "popularity": release.popularity,
    }
    for scoring in services.scoring.values():
        for name, scorer in scoring.follower.newest().scorers.items():
            outputs[name] = scorer.score(subject.profile)[0]
    return outputs


def top_items_of(scores: Float32, eligible: Bool) -> set[int]:
    """Return the 20 best eligible items of a model, or none if it scores several items equally."""
    pool = np.flatnonzero(eligible)
    if len(pool) > 1 and np.ptp(scores[pool]) == 0:
        return set()
    return set(pool[np.argsort(-scores[pool], kind="stable")][:20].tolist())


@pytest.fixture
def only_cf_ranks(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the CF service rank for the usual gateway."""
    let_only_cf_rank(services.gateway, monkeypatch)


def let_only_cf_rank(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the models of the inference service from the ranking blend of a gateway."""
    backends = frozenset(("cf", "inference"))
    blends: Any = gateway.releases.serving.ensemble.by_backends
    weights = {
        name: weight for name, weight in blends[backends].ranking.weights.items() if name != "mf"
    }
    pair = replace(blends[backends], ranking=Blend(weights, 0.0))
    monkeypatch.setitem(blends, backends, pair)


@pytest.mark.parametrize("dense_limit", [1000, 10])
@pytest.mark.parametrize("ranking_backends", ["both rank", "only cf ranks"])
async def test_a_page_equals_that_of_scoring_every_item(
    services: Services,
    dense_limit: int,
    ranking_backends: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Items, scores, stars and proposers are the same, with and without retrieval.

    If only one backend ranks, it returns shortlists.
    """
    gateway = await services.start_gateway(
        dense_limit=dense_limit, candidates=60, answer_cache_mib=0
    )
    await services.until_full(gateway)
    if ranking_backends == "only cf ranks":
        let_only_cf_rank(gateway, monkeypatch)
    release = gateway.releases.serving
    blends = release.ensemble.blends(("cf", "inference"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        for subject in SUBJECTS:
            for fields in OPTIONS:
                options = pb.RecommendOptions(**fields)
                answer = await stub.Recommend(
                    pb.RecommendRequest(subject=subject, options=options), timeout=TIMEOUT_S
                )
                resolved = resolve_subject(release, subject)
                outputs = all_scores(services, resolved)
                eligible, _ = filter_mask(release, options.filter)
                if not options.include_seen:
                    eligible[resolved.profile.items] = False
                ranking = blends.ranking.apply(outputs)
                stars = np.clip(blends.rating.apply(outputs), 1, 5)
                shown = eligible & (stars >= options.min_predicted_stars)
                expected = np.flatnonzero(shown)
                expected = expected[np.argsort(-ranking[expected], kind="stable")][:20]
                assert [item.item_id for item in answer.items] == [
                    release.catalogue.items.id(index) for index in expected.tolist()
                ]
                for item, index in zip(answer.items, expected.tolist(), strict=True):
                    assert item.score == pytest.approx(ranking[index], abs=1e-5)
                    assert item.predicted_stars == pytest.approx(stars[index], abs=1e-5)
                    assert list(item.proposed_by) == sorted(
                        name
                        for name in blends.ranking.weights
                        if index in top_items_of(outputs[name], eligible)
                    )
    await gateway.stop(0.5)


@pytest.mark.usefixtures("only_cf_ranks")
async def test_a_backend_that_ranks_predicts_stars_in_the_same_call(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer takes one call to it, and one to each backend that only predicts stars."""
    called: list[str] = []
    score = Replica.score

    async def counted(replica: Replica, *arguments: Any) -> Any:
        called.append(replica.name)
        return await score(replica, *arguments)

    monkeypatch.setattr(Replica, "score", counted)
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        for size in (5, 20, 60):
            answer = await stub.Recommend(
                pb.RecommendRequest(subject=SUBJECTS[2], page_size=size), timeout=TIMEOUT_S
            )
            assert len(answer.items) == size
            assert not answer.source.degraded
    assert called == ["inference"] * 3


@pytest.mark.usefixtures("only_cf_ranks")
async def test_rating_predictors_score_only_the_page_unless_the_backends_are_idle(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an idle backend would wait for the ranking, it scores everything: the same stars."""
    release = services.gateway.releases.serving
    engine: Any = services.scoring["inference"].follower.newest()
    scorer = engine.scorers["mf"]
    counts: list[int] = []
    score = scorer.score

    def counted(profiles: Any, items: Any = None) -> Any:
        counts.append(release.item_count if items is None else len(items))
        return score(profiles, items)

    monkeypatch.setattr(scorer, "score", counted)
    answers = []
    for is_idle in (True, False):
        monkeypatch.setattr(Backend, "is_idle", is_idle)
        async with grpc.aio.insecure_channel(services.address) as channel:
            answer = await RecommenderServiceStub(channel).Recommend(
                pb.RecommendRequest(subject=SUBJECTS[2]), timeout=TIMEOUT_S
            )
        assert not answer.source.degraded
        assert all("mf" not in item.proposed_by for item in answer.items)
        answers.append([(item.item_id, item.predicted_stars) for item in answer.items])
    # A page of 20, padded to a power of two.
    assert counts == [release.item_count, 32]
    assert len(answers[0]) == 20
    assert answers[0] == answers[1]


@pytest.mark.usefixtures("only_cf_ranks")
async def test_an_early_call_that_fails_is_repeated_for_the_page(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that are computed on speculation never degrade an answer."""
    failing = [True]
    score = Replica.score

    async def fails_once(replica: Replica, *arguments: Any) -> Any:
        if failing and replica.name == "inference":
            failing.clear()
            raise BackendError(replica.name, Failure.OVERLOADED, "too many users are queued")
        return await score(replica, *arguments)

    monkeypatch.setattr(Replica, "score", fails_once)
    monkeypatch.setattr(Backend, "is_idle", True)
    async with grpc.aio.insecure_channel(services.address) as channel:
        answer = await RecommenderServiceStub(channel).Recommend(
            pb.RecommendRequest(subject=SUBJECTS[2]), timeout=TIMEOUT_S
        )
    assert not failing
    assert len(answer.items) == 20
    assert not answer.source.degraded


@pytest.mark.usefixtures("only_cf_ranks")
@pytest.mark.parametrize("size", [3, 5, 20])
async def test_pages_beyond_a_shortlist_continue_the_list(services: Services, size: int) -> None:
    """All pages together equal the result of scoring every item, with the proposers of each."""
    release = services.gateway.releases.serving
    ranking = release.ensemble.blends(("cf", "inference")).ranking
    request = pb.RecommendRequest(subject=SUBJECTS[2], page_size=size)
    resolved = resolve_subject(release, request.subject)
    outputs = all_scores(services, resolved)
    eligible = np.ones(release.item_count, np.bool_)
    eligible[resolved.profile.items] = False
    eligible[release.unrated_items] = False
    pool = np.flatnonzero(eligible)
    expected = pool[np.argsort(-ranking.apply(outputs)[pool], kind="stable")].tolist()
    found: list[pb.RecommendedItem] = []
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        while True:
            answer = await stub.Recommend(request, timeout=TIMEOUT_S)
            assert not answer.source.degraded
            found += answer.items
            request.page_token = answer.next_page_token
            if not request.page_token:
                break
    assert [item.rank for item in found] == list(range(1, len(expected) + 1))
    assert release.catalogue.items.indexes([item.item_id for item in found]).tolist() == expected
    for item, index in zip(found, expected, strict=True):
        proposers = {n for n in ranking.weights if index in top_items_of(outputs[n], eligible)}
        assert list(item.proposed_by) == sorted(proposers)


@pytest.mark.usefixtures("only_cf_ranks")
async def test_an_abstaining_model_leaves_no_gap_in_a_shortlist(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline replaces a rating predictor that cannot score a subject."""
    scorer: Any = services.scoring["cf"].follower.newest().scorers["item_cf"]
    score = scorer.score

    def unable(profiles: Any, items: Any = None) -> Any:
        return np.full_like(score(profiles, items), np.nan)

    monkeypatch.setattr(scorer, "score", unable)
    release = services.gateway.releases.serving
    resolved = resolve_subject(release, SUBJECTS[2])
    outputs = all_scores(services, resolved)
    outputs["item_cf"] = outputs["baseline"]
    ranking = release.ensemble.blends(("cf", "inference")).ranking
    assert "item_cf" in ranking.weights
    scores = ranking.apply(outputs)
    scores[resolved.profile.items] = -np.inf
    async with grpc.aio.insecure_channel(services.address) as channel:
        answer = await RecommenderServiceStub(channel).Recommend(
            pb.RecommendRequest(subject=SUBJECTS[2]), timeout=TIMEOUT_S
        )
    best = np.argsort(-scores, kind="stable")[:20]
    assert [item.item_id for item in answer.items] == release.catalogue.items.ids(best)
    assert "item_cf" in answer.source.abstaining_models


@pytest.mark.parametrize("dense_limit", [1000, 10])
@pytest.mark.parametrize("ranks", [("ease",), ("ease", "item_cf")])
async def test_a_ranker_without_evidence_abstains(
    services: Services, monkeypatch: pytest.MonkeyPatch, dense_limit: int, ranks: tuple[str, ...]
) -> None:
    """The other models rank; if there are none, the list is that of a cold start."""
    gateway = await services.start_gateway(
        dense_limit=dense_limit, candidates=60, answer_cache_mib=0
    )
    await services.until_full(gateway)
    scorer: Any = services.scoring["cf"].follower.newest().scorers["ease"]
    score = scorer.score
    monkeypatch.setattr(scorer, "score", lambda *given: np.zeros_like(score(*given)))
    release = gateway.releases.serving
    blends: Any = release.ensemble.by_backends
    backends = frozenset(("cf", "inference"))
    pair = replace(blends[backends], ranking=Blend(dict.fromkeys(ranks, 1.0), 0.0))
    monkeypatch.setitem(blends, backends, pair)
    subject = Subject(ratings=[Rating(item_id="i3", stars=2)])
    request = pb.RecommendRequest(subject=subject)
    request.options.include_reasons = True
    everyone = pb.RecommendRequest(subject=Subject(user_id="nobody"))
    everyone.options.filter.excluded_item_ids.append("i3")
    everyone.options.include_reasons = True
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        answer = await stub.Recommend(request, timeout=TIMEOUT_S)
        cold_start = await stub.Recommend(everyone, timeout=TIMEOUT_S)
        request.options.model = "ease"
        with pytest.raises(grpc.aio.AioRpcError, match="ease") as failed:
            await stub.Recommend(request, timeout=TIMEOUT_S)
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert not answer.source.degraded
    assert answer.source.abstaining_models == ["ease"]
    assert answer.subject_kind == types_pb2.SUBJECT_KIND_VISITOR
    found = [(item.item_id, item.score, list(item.proposed_by)) for item in answer.items]
    if ranks == ("ease",):
        # The bias of the subject shifts the scores of the baseline.
        weight = release.ensemble.blends(()).ranking.weights["baseline"]
        shift = weight * resolve_subject(release, subject).bias
        for (item_id, score, proposed_by), other in zip(found, cold_start.items, strict=True):
            assert (item_id, proposed_by) == (other.item_id, other.proposed_by)
            assert score == pytest.approx(other.score + shift, abs=1e-5)
    else:
        alone = resolve_subject(release, subject)
        scores = all_scores(services, alone)["item_cf"]
        scores[alone.profile.items] = -np.inf
        best = np.argsort(-scores, kind="stable")[:20]
        assert [item for item, _, _ in found] == release.catalogue.items.ids(best)
        assert {tuple(names) for _, _, names in found} == {("item_cf",)}
    for item in answer.items:
        shares = [reason.model_share.contribution for reason in item.reasons]
        assert sum(shares) == pytest.approx(item.score, abs=1e-5)
    await gateway.stop(0.5)


async def test_a_page_of_a_large_catalogue_takes_one_call_to_the_ranking_backend(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend retrieves the candidates itself if no other backend ranks."""
    called: list[str] = []

    def counted(method: str) -> Any:
        call = getattr(Replica, method)

        async def count(*arguments: Any) -> Any:
            called.append(method)
            return await call(*arguments)

        return count

    for method in ("rank", "retrieve"):
        monkeypatch.setattr(Replica, method, counted(method))
    gateway = await services.start_gateway(dense_limit=10, candidates=60, answer_cache_mib=0)
    await services.until_full(gateway)
    let_only_cf_rank(gateway, monkeypatch)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        for subject in SUBJECTS:
            called.clear()
            request = pb.RecommendRequest(subject=subject)
            answer = await stub.Recommend(request, timeout=TIMEOUT_S)
            assert len(answer.items) == 20
            assert called == ["rank"]
    await gateway.stop(0.5)
