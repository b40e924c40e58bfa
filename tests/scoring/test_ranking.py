"""Ranking with fitted models agrees with scoring every item with every model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.ratings import RatingsMatrix
from marquee_core.retrieval.exact import ExactIndex, item_products
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.bayesian_mf import BayesianMFConfig, BayesianMFScorer
from marquee_core.scorers.ease import EASEConfig
from marquee_core.scorers.popularity import popularity_scores
from marquee_services.errors import ModelNotFound
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.ranker import check_plan
from marquee_services.scoring.ranking import UserRanking, rank
from marquee_trainer.data.source import load_ratings
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.model import Model, Training
from marquee_trainer.training.config import BaselineConfig
from marquee_trainer.training.preparation import release_data

DATA = "sample:users=300,items=600,ratings=18000"
PAGE = 20
# Close to the weights that blends learn on MovieLens 100K.
PLAN = RankingPlan(
    weights=(("ease", 5.9), ("ials", 4.6), ("bayesian_mf", 0.3)),
    best_count=PAGE,
    gateway_weights=(("popularity", 0.05),),
    stars_models=("bayesian_mf",),
    stars_count=PAGE,
)
LIKE = 4.0


@dataclass(frozen=True)
class Sample:
    """An engine, and visitors that each have half of the ratings of a user.

    Attributes:
        engine: The models. The vectors of Bayesian MF are longer than its sketch.
        visitors: The visitors; any item that they have not rated may be recommended.
        liked: The items that each visitor likes among the held-out ratings.
    """

    engine: Engine
    visitors: list[Query]
    liked: list[Int32]


@pytest.fixture(scope="module")
def sample() -> Sample:
    """Models fitted with few iterations."""
    dataset = load_ratings(DATA, seed=3).dataset
    data = release_data(dataset, dataset.file_order, BaselineConfig(), 30.0)
    config = BayesianMFConfig(factors=8, burn_in=4, sweeps=24, samples=20)
    models: list[Model] = [EASE(), IALS(), BayesianMF(config)]
    for model in models:
        model.fit(Training(data, seed=0))
    scorers = {model.name: model.scorer for model in models}
    shared = {"popularity": popularity_scores(data.matrix.item_counts)}
    visitors, liked = [], []
    for user in range(60):
        query, later = halves(data.matrix, user)
        visitors.append(query)
        liked.append(later)
    return Sample(Engine("sample", data, scorers, {}, shared), visitors, liked)


def halves(matrix: RatingsMatrix, user: int) -> tuple[Query, Int32]:
    """Return a visitor with every other rating of a user, and the remaining liked items."""
    profile = matrix.profiles([user])
    given, rest = slice(0, None, 2), slice(1, None, 2)
    eligible = np.ones(matrix.item_count, dtype=np.bool_)
    eligible[profile.items[given]] = False
    query = Query(-1, profile.items[given], profile.ratings[given], None, eligible)
    return query, profile.items[rest][profile.ratings[rest] >= LIKE]


def eligible_only(query: Query, scores: Float32) -> Float32:
    """Mask the scores of all items with −∞ where the item is not eligible (float32, items)."""
    assert query.eligible is not None
    return np.where(query.eligible, scores, np.float32(-np.inf))


def exact_scores(sample: Sample, query: Query) -> dict[str, Float32]:
    """Return the scores of all items by each model (float32, items)."""
    profile = sample.engine.profiles([query])
    return {name: scorer.score(profile)[0] for name, scorer in sample.engine.scorers.items()}


def exact_ranking(sample: Sample, query: Query) -> Float32:
    """Return the ranking scores of all items, −∞ where not eligible (float32, items)."""
    outputs = exact_scores(sample, query)
    total = sum(np.float32(weight) * outputs[name] for name, weight in PLAN.weights)
    total = total + np.float32(0.05) * sample.engine.gateway_scores["popularity"]
    return eligible_only(query, total)


def order_of(sample: Sample, query: Query, found: UserRanking) -> Int64:
    """Return all items in the order of a ranking, as the gateway completes it."""
    total = found.scores + np.float32(0.05) * sample.engine.gateway_scores["popularity"]
    order: Int64 = np.argsort(-eligible_only(query, total), kind="stable")
    return order


def ndcg(order: Int64, liked: Int32) -> float:
    """Return the NDCG@10 of a ranking."""
    discounts = 1.0 / np.log2(np.arange(2, 12))
    return float(np.isin(order[:10], liked) @ discounts / discounts[: len(liked)].sum())


def test_the_sketch_is_shorter_than_the_vectors(sample: Sample) -> None:
    """Otherwise, the tests below would compare exact scores with exact scores."""
    scorer = sample.engine.scorers["bayesian_mf"]
    assert isinstance(scorer, BayesianMFScorer)
    profiles = sample.engine.profiles(sample.visitors)
    approximate = scorer.approximate(profiles)
    assert approximate is not None
    assert np.abs(approximate - scorer.score(profiles)).max() > 1e-3


def test_ranking_agrees_with_scoring_everything(sample: Sample) -> None:
    """At least 98 % of the top 20 agree, NDCG@10 is within 0.5 %, and stars are within 1e-3."""
    found = rank(sample.engine, sample.visitors, PLAN)
    same, approximate_ndcg, exact_ndcg = [], [], []
    for query, liked, ranking in zip(sample.visitors, sample.liked, found, strict=True):
        expected = np.argsort(-exact_ranking(sample, query), kind="stable")
        order = order_of(sample, query, ranking)
        same.append(len(set(order[:PAGE].tolist()) & set(expected[:PAGE].tolist())) / PAGE)
        if len(liked):
            approximate_ndcg.append(ndcg(order, liked))
            exact_ndcg.append(ndcg(expected, liked))
        assert ranking.stars is not None
        assert ranking.stars.items.tolist() == order[:PAGE].tolist()
        np.testing.assert_allclose(
            ranking.stars.scores["bayesian_mf"],
            exact_scores(sample, query)["bayesian_mf"][ranking.stars.items],
            atol=1e-3,
        )
    assert np.mean(same) >= 0.98
    assert np.mean(exact_ndcg) > 0
    assert np.mean(approximate_ndcg) == pytest.approx(np.mean(exact_ndcg), rel=0.005)


def test_the_top_items_of_a_model_with_a_sketch_have_exact_scores(sample: Sample) -> None:
    """The sketch selects the items but does not provide their scores."""
    for query, found in zip(
        sample.visitors, rank(sample.engine, sample.visitors, PLAN), strict=True
    ):
        items, scores = found.best["bayesian_mf"]
        exact = exact_scores(sample, query)["bayesian_mf"]
        np.testing.assert_allclose(scores, exact[items], atol=1e-5)
        best = np.argsort(-eligible_only(query, exact), kind="stable")[:PAGE]
        assert len(set(items.tolist()) & set(best.tolist())) >= PAGE - 1


def test_a_shortlist_is_a_prefix_of_the_whole_ranking(sample: Sample) -> None:
    """A shortlist has the same items in the same order, with the models that propose them."""
    count = 2 * PAGE
    whole = rank(sample.engine, sample.visitors, PLAN)
    short = rank(sample.engine, sample.visitors, replace(PLAN, top_count=count))
    for query, expected, found in zip(sample.visitors, whole, short, strict=True):
        assert found.top is not None
        items = found.top.items.tolist()
        assert items == order_of(sample, query, expected)[:count].tolist()
        np.testing.assert_array_equal(found.top.scores, expected.scores[items])
        for bit, (name, _) in enumerate(PLAN.weights):
            own = set(expected.best[name][0].tolist())
            proposed = (found.top.proposers >> bit & 1).tolist()
            assert proposed == [item in own for item in items]
        assert found.stars is not None
        assert found.stars.items.tolist() == items[:PAGE]


@pytest.mark.parametrize(
    "plan",
    [
        replace(PLAN, top_count=2 * PAGE + 1),
        replace(PLAN, top_count=300),
        # Later pages, diverse lists and single models.
        replace(PLAN, stars_models=(), stars_count=0),
    ],
    ids=["shortlist", "long shortlist", "all items"],
)
def test_all_items_that_may_be_shown_have_exact_scores(sample: Sample, plan: RankingPlan) -> None:
    """The shares of the reasons then add up to the score, whatever the page."""
    queries = sample.visitors[:10]
    for query, found in zip(queries, rank(sample.engine, queries, plan), strict=True):
        assert query.eligible is not None
        exact = exact_ranking(sample, query)
        shared = np.float32(0.05) * sample.engine.gateway_scores["popularity"]
        items = np.flatnonzero(query.eligible) if found.top is None else found.top.items
        scores = found.scores[items] if found.top is None else found.top.scores
        np.testing.assert_allclose(scores + shared[items], exact[items], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_model_with_constant_scores_proposes_no_items(sample: Sample, hidden: bool) -> None:
    """A model also proposes no items to a user for whom no item is eligible."""
    query = sample.visitors[0]
    assert query.eligible is not None
    if hidden:
        query = replace(query, eligible=np.zeros_like(query.eligible))
    else:
        # EASE and iALS give a user without ratings 0 for every item.
        query = replace(query, items=query.items[:0], ratings=query.ratings[:0])
    for queries in ([query], [query, sample.visitors[1]]):
        found, *_ = rank(sample.engine, queries, replace(PLAN, top_count=PAGE))
        assert found.top is not None
        assert len(found.top.items) == (0 if hidden else PAGE)
        assert not (found.top.proposers & 0b011).any()


@pytest.mark.parametrize("count", [0, 1, 7])
def test_all_items_that_pass_a_narrow_filter_are_found(sample: Sample, count: int) -> None:
    """The few items are the best ones and have stars, even if most models rank them last."""
    query = sample.visitors[0]
    assert query.eligible is not None
    scores = exact_ranking(sample, query)
    worst = np.argsort(np.where(query.eligible, scores, np.inf), kind="stable")
    allowed = np.zeros_like(query.eligible)
    allowed[worst[:count]] = True
    (found,) = rank(sample.engine, [replace(query, eligible=allowed)], PLAN)
    assert found.stars is not None
    assert set(found.stars.items.tolist()) == set(worst[:count].tolist())
    assert all(np.isfinite(values).all() for values in found.stars.scores.values())


def test_candidates_are_ranked_like_the_whole_catalogue(sample: Sample) -> None:
    """A user with candidates gets the same sums, and stars for the best candidates."""
    query = sample.visitors[1]
    assert query.eligible is not None
    items = np.flatnonzero(query.eligible)[::7].astype(np.int32)
    (found,) = rank(sample.engine, [replace(query, candidates=items, eligible=None)], PLAN)
    expected = exact_ranking(sample, query)[items]
    shared = np.float32(0.05) * sample.engine.gateway_scores["popularity"][items]
    np.testing.assert_allclose(found.scores + shared, expected, rtol=1e-4, atol=1e-4)
    assert found.stars is not None
    best = items[np.argsort(-expected, kind="stable")[:PAGE]]
    assert found.stars.items.tolist() == best.tolist()


def test_a_plan_with_an_unknown_model_is_refused(sample: Sample) -> None:
    """An unknown model in any part of a plan is an error before any user is ranked."""
    for plan in (
        replace(PLAN, weights=(("nothing", 1.0),)),
        replace(PLAN, gateway_weights=(("nothing", 1.0),)),
        replace(PLAN, stars_models=("nothing",)),
    ):
        with pytest.raises(ModelNotFound):
            check_plan(sample.engine, plan)


def test_retrieval_by_a_sketch_finds_the_best_items_with_exact_scores(sample: Sample) -> None:
    """A model whose scores are not products of short vectors also retrieves its best items."""
    query = sample.visitors[2]
    assert query.eligible is not None
    found = sample.engine.retrieve([query], ("bayesian_mf",), 50, query.eligible)
    ((items, scores),) = found["bayesian_mf"]
    exact = exact_scores(sample, query)["bayesian_mf"]
    np.testing.assert_allclose(scores, exact[items], atol=1e-5)
    assert (np.diff(scores) <= 0).all()
    best = np.argsort(-eligible_only(query, exact), kind="stable")[:50]
    assert len(set(items.tolist()) & set(best.tolist())) >= 48
    assert query.eligible[items].all()


def test_retrieval_finds_what_scoring_every_item_finds(sample: Sample) -> None:
    """Models that search an index or their own items return exact scores."""
    scorers = sample.engine.scorers
    products = {name: item_products(scorer) for name, scorer in scorers.items()}
    indexes = {name: ExactIndex(items) for name, items in products.items() if items is not None}
    assert indexes.keys() == {"ials", "bayesian_mf"}
    engine = replace(sample.engine, indexes=indexes)
    for query in sample.visitors[:10]:
        exact = exact_scores(sample, query)
        for name, ((items, scores),) in engine.retrieve([query], (), 50, query.eligible).items():
            np.testing.assert_allclose(scores, exact[name][items], atol=1e-5)
            best = np.argsort(-eligible_only(query, exact[name]), kind="stable")[:50]
            assert len(set(items.tolist()) & set(best.tolist())) >= 48


def test_a_model_scores_every_item_only_if_no_model_can_search(sample: Sample) -> None:
    """Scoring a large catalogue is slow, so the model only scores the items that others find."""
    query = sample.visitors[3]
    retrieve = sample.engine.retrieve
    assert retrieve([query], ("ease", "ials"), 20, query.eligible).keys() == {"ease"}
    ((items, _),) = retrieve([query], ("ials",), 20, query.eligible)["ials"]
    assert len(items) == 20


@pytest.mark.parametrize("count", [3, 40, 300])
def test_ease_searches_its_core_if_it_has_enough_items(sample: Sample, count: int) -> None:
    """If too few items with dense weights score above 0, the whole catalogue is searched."""
    data = sample.engine.data
    ease = EASE(EASEConfig(max_items=200, tail_sources=8))
    ease.fit(Training(data, seed=0))
    engine = Engine("core", data, {"ease": ease.scorer, "ials": sample.engine.scorers["ials"]})
    core, _ = ease.scorer.score_core(engine.profiles(sample.visitors[:1]))
    in_core = np.isin(np.arange(data.matrix.item_count), core)
    for query in sample.visitors[:10]:
        assert query.eligible is not None
        row = ease.scorer.score(engine.profiles([query]))[0]
        for eligible in (query.eligible, query.eligible & ~in_core):
            ((items, scores),) = engine.retrieve([query], (), count, eligible)["ease"]
            is_enough = np.count_nonzero(row[in_core & eligible] > 0) >= count
            pool = in_core & eligible if is_enough else eligible
            assert items.tolist() == top_indexes(row, count, pool).tolist()
            np.testing.assert_allclose(scores, row[items], atol=1e-6)
