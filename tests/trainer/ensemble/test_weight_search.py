"""The ranking blend, whose weights are searched to maximise NDCG at the top of the lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_core.arrays import Float32, Float64
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.ensemble.blends import BlendConfig, RankingLists, learn_ranking_blend
from marquee_trainer.ensemble.weight_search import (
    RankingPool,
    SearchConfig,
    prune_weights,
    search_weights,
)
from marquee_trainer.metrics.ranking_metrics import RankingTask, ranking_metrics
from toy.ratings import ratings_matrix

MODELS = ("one", "two", "noise")
CONFIG = BlendConfig(search=SearchConfig(depth=10))
seeds = st.integers(0, 2**32 - 1)


def lists_of(seed: int, users: int = 40, items: int = 60) -> RankingLists:
    """Return lists of two models that each recognise half of the relevant items, and of noise."""
    random = np.random.default_rng(seed)
    candidates = random.random((users, items)) < 0.8
    candidates[:, :2] = True
    relevant = candidates & (random.random((users, items)) < 0.1)
    relevant[:, 0] = True
    half = random.random(items) < 0.5
    noise = random.normal(size=(3, users, items))
    return RankingLists(
        scores={
            "one": (3.0 * (relevant & half) + noise[0]).astype(np.float32),
            "two": (100.0 * (3.0 * (relevant & ~half) + noise[1])).astype(np.float32),
            "noise": noise[2].astype(np.float32),
        },
        candidates=candidates,
        relevant=relevant,
    )


def pool_of(lists: RankingLists, depth: int = 10) -> RankingPool:
    """Return the pool of all models."""
    return RankingPool.of(lists.scores, MODELS, lists.candidates, lists.relevant, depth)


def full_ndcg(lists: RankingLists, scores: Float32 | Float64, k: int) -> float:
    """Return NDCG@k as the evaluation computes it."""
    train = ratings_matrix(~lists.candidates)
    users, items = np.nonzero(lists.relevant)
    stars = np.full(len(users), 5.0, dtype=np.float32)
    test = Interactions(users.astype(np.int32), items.astype(np.int32), stars)
    task = RankingTask.of(train, test, 4.0)
    return ranking_metrics(task, lambda some: scores[some], k).ndcg


@settings(max_examples=20)
@given(seeds, st.integers(1, 70))
def test_a_single_models_ndcg_is_that_of_the_evaluation(seed: int, depth: int) -> None:
    """The pool contains the top of each model's ranking, so the NDCG of a model is exact."""
    lists = lists_of(seed)
    pool = pool_of(lists, depth)
    for place, name in enumerate(MODELS):
        blended = pool.blended(np.eye(len(MODELS))[place])
        expected = full_ndcg(lists, lists.scores[name], depth)
        assert pool.ndcg(blended, depth) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=20)
@given(seeds, st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(any))
def test_a_search_never_lowers_ndcg(seed: int, start: list[float]) -> None:
    """Only steps that raise NDCG are accepted, and the weights are shares."""
    pool = pool_of(lists_of(seed))
    weights, found = search_weights(pool, np.array(start), CONFIG.search)
    initial = pool.ndcg(pool.blended(np.array(start) / sum(start)), CONFIG.search.depth)
    assert found >= initial - 1e-6
    assert weights.min() >= 0.0
    assert weights.sum() == pytest.approx(1.0)
    recomputed = pool.ndcg(pool.blended(weights), CONFIG.search.depth)
    assert recomputed == pytest.approx(found, abs=0.02)


@settings(max_examples=20)
@given(seeds, st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(any))
def test_pruning_loses_no_more_than_allowed(seed: int, start: list[float]) -> None:
    """The remaining weights are shares in the same proportions as before."""
    pool = pool_of(lists_of(seed))
    weights = np.array(start) / sum(start)
    pruned = prune_weights(pool, weights, CONFIG.search)
    assert pruned.sum() == pytest.approx(1.0)
    kept = pruned > 0
    np.testing.assert_allclose(pruned[kept], weights[kept] / weights[kept].sum())
    whole, left = (pool.ndcg(pool.blended(w), CONFIG.search.depth) for w in (weights, pruned))
    assert left >= whole * (1 - CONFIG.search.max_pruning_loss) - 1e-9


def test_redundant_models_are_dropped() -> None:
    """A redundant model is dropped, and one that the blend depends on is kept."""
    lists = lists_of(0)
    noise = np.random.default_rng(0).normal(scale=1e-6, size=lists.candidates.shape)
    copy = (lists.scores["one"] + noise).astype(np.float32)
    lists = replace(lists, scores={**lists.scores, "copy": copy})
    names = ["one", "two", "copy"]
    pool = RankingPool.of(lists.scores, names, lists.candidates, lists.relevant, 40)
    pruned = prune_weights(pool, np.array([0.3, 0.5, 0.2]), CONFIG.search)
    assert pruned[2] == 0
    assert (pruned[:2] > 0).all()


@settings(max_examples=10)
@given(seeds)
def test_a_ranking_blend_is_better_than_each_of_its_models(seed: int) -> None:
    """Two complementary models are blended, whatever the scale of their scores."""
    lists = lists_of(seed)
    blend = learn_ranking_blend(lists, MODELS, CONFIG)
    blended = full_ndcg(lists, blend.apply(lists.scores), 10)
    for name in MODELS:
        assert blended > full_ndcg(lists, lists.scores[name], 10)
    assert blend.weights["one"] > 0
    assert blend.weights["two"] > 0


def test_models_with_constant_scores_do_not_change_the_ranking() -> None:
    """Constant scores and a single model are valid input."""
    lists = lists_of(0)
    flat = np.full(lists.candidates.shape, 3.0, dtype=np.float32)
    lists = replace(lists, scores={**lists.scores, "flat": flat})
    blend = learn_ranking_blend(lists, ["one", "flat"], CONFIG)
    expected = full_ndcg(lists, lists.scores["one"], 10)
    assert full_ndcg(lists, blend.apply(lists.scores), 10) == pytest.approx(expected)
    assert list(learn_ranking_blend(lists, ["flat"], CONFIG).weights) == ["flat"]
