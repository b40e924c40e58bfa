"""The ensemble's blends, learned on validation data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_core.arrays import Float32, Float64
from marquee_core.release.ensemble import Blend
from marquee_trainer.ensemble.blends import (
    BlendConfig,
    RankingLists,
    learn_ensemble,
    learn_listwise_blend,
    learn_rating_blend,
    prune_rating_blend,
)

CONFIG = BlendConfig()
seeds = st.integers(0, 2**32 - 1)


def predictions_of(random: np.random.Generator, count: int = 400) -> dict[str, Float32]:
    """Draw predictions of the baseline, and of two models that differ from it at random."""
    base = random.normal(3.5, 0.4, count)
    return {
        "baseline": base.astype(np.float32),
        "one": (base + random.normal(0, 0.4, count)).astype(np.float32),
        "two": (base + random.normal(0, 0.7, count)).astype(np.float32),
    }


def squared_error(prediction: Float64 | Float32, ratings: Float32) -> float:
    """Return the sum of squared errors."""
    return float(np.sum((prediction.astype(np.float64) - ratings) ** 2))


@given(seeds, st.floats(0, 1), st.floats(0, 1), st.floats(-0.5, 0.5))
def test_a_rating_blend_recovers_known_weights(
    seed: int, one: float, two: float, intercept: float
) -> None:
    """Without noise and ridge, the blend has the weights that the ratings were generated with."""
    models = predictions_of(np.random.default_rng(seed))
    true_blend = Blend({"baseline": 1 - one - two, "one": one, "two": two}, intercept)
    blend = learn_rating_blend(models, true_blend.apply(models).astype(np.float32), ridge=0.0)
    assert blend.intercept == pytest.approx(intercept, abs=1e-4)
    for name, weight in true_blend.weights.items():
        assert blend.weights.get(name, 0.0) == pytest.approx(weight, abs=1e-4)


@given(seeds, st.floats(-1, 1), st.floats(-1, 1))
def test_a_rating_blend_is_at_least_as_good_as_each_model_on_the_same_data(
    seed: int, one: float, two: float
) -> None:
    """Each single model is a possible blend, and a ridge adds at most its penalty to the error."""
    random = np.random.default_rng(seed)
    models = predictions_of(random)
    base = models["baseline"]
    signal = one * (models["one"] - base) + two * (models["two"] - base)
    ratings = (base + signal + random.normal(0, 0.8, len(base))).astype(np.float32)
    best = min(squared_error(prediction, ratings) for prediction in models.values())
    free = learn_rating_blend(models, ratings, ridge=0.0)
    assert squared_error(free.apply(models), ratings) <= best * (1 + 1e-6)
    ridge = 30.0
    penalised = learn_rating_blend(models, ratings, ridge)
    variance = float(np.var([models[name] - base for name in ("one", "two")]))
    # |w − 1/2|² is at most 1/2 for a single model and for the baseline.
    allowed = best + ridge * variance / 2
    assert squared_error(penalised.apply(models), ratings) <= allowed * (1 + 1e-6)


def test_a_rating_blend_drops_redundant_models() -> None:
    """Of two nearly equal models one is dropped, while a model that adds much is kept."""
    random = np.random.default_rng(5)
    models = predictions_of(random, 4_000)
    models["copy"] = (models["two"] + random.normal(0, 0.01, 4_000)).astype(np.float32)
    signal = 0.5 * (models["one"] + models["two"])
    ratings = (signal + random.normal(0, 0.8, 4_000)).astype(np.float32)
    whole = learn_rating_blend(models, ratings, ridge=30.0)
    pruned = prune_rating_blend(models, ratings, 30.0, CONFIG.max_rating_pruning_loss)
    assert {"copy", "two"} <= whole.weights.keys()
    assert "one" in pruned.weights
    assert len({"copy", "two"} & pruned.weights.keys()) == 1
    allowed = 1 + CONFIG.max_rating_pruning_loss
    errors = [squared_error(blend.apply(models), ratings) for blend in (pruned, whole)]
    assert errors[0] <= allowed * errors[1]


def test_a_rating_blend_drops_a_model_whose_gain_is_significant_but_tiny() -> None:
    """Each model costs time in every answer, and with many ratings every gain is significant."""
    random = np.random.default_rng(5)
    count = 200_000
    models = predictions_of(random, count)
    base = models["baseline"]
    models["weak"] = (base + random.normal(0, 0.5, count)).astype(np.float32)
    signal = 0.5 * (models["one"] + models["two"]) + 0.03 * (models["weak"] - base)
    ratings = (signal + random.normal(0, 0.8, count)).astype(np.float32)
    others = {name: scores for name, scores in models.items() if name != "weak"}
    blends = [learn_rating_blend(known, ratings, ridge=30.0) for known in (others, models)]
    without, whole = [np.square(blend.apply(models) - ratings) for blend in blends]
    gains = without - whole
    assert gains.mean() > 3 * gains.std() / np.sqrt(count)
    assert gains.mean() < CONFIG.max_rating_pruning_loss * whole.mean()
    pruned = prune_rating_blend(models, ratings, 30.0, CONFIG.max_rating_pruning_loss)
    assert {"one", "two"} <= pruned.weights.keys()
    assert "weak" not in pruned.weights


def test_a_rating_blend_keeps_every_model_if_no_loss_is_allowed() -> None:
    """Without a tolerance, only models without a weight are dropped."""
    random = np.random.default_rng(5)
    models = predictions_of(random)
    ratings = (0.5 * (models["one"] + models["two"]) + random.normal(0, 0.1, 400)).astype(
        np.float32
    )
    pruned = prune_rating_blend(models, ratings, 30.0, 0.0)
    assert {"one", "two"} <= pruned.weights.keys()


def test_a_model_that_is_wrong_in_direction_gets_no_weight() -> None:
    """Weights are never negative."""
    models = predictions_of(np.random.default_rng(3))
    wrong = 2 * models["baseline"] - models["one"]
    blend = learn_rating_blend(models, wrong, ridge=0.0)
    assert "one" not in blend.weights


def test_a_strong_ridge_gives_the_mean_of_the_models() -> None:
    """With few validation ratings, no model is preferred."""
    models = predictions_of(np.random.default_rng(4))
    blend = learn_rating_blend(models, models["two"], ridge=1e9)
    assert blend.weights["one"] == pytest.approx(0.5, abs=1e-3)
    assert blend.weights["two"] == pytest.approx(0.5, abs=1e-3)
    assert blend.weights["baseline"] == pytest.approx(0.0, abs=1e-3)


def test_a_single_baseline_is_shifted_to_the_mean_rating() -> None:
    """Without other models, only the intercept is learned."""
    base = np.array([3, 4], dtype=np.float32)
    blend = learn_rating_blend({"baseline": base}, base + 0.25, ridge=30.0)
    assert blend.weights == {"baseline": 1.0}
    assert blend.intercept == pytest.approx(0.25)


def test_a_model_equal_to_the_baseline_changes_nothing() -> None:
    """A model without any difference gets no weight, and nothing is divided by zero."""
    base = np.array([3, 4, 5], dtype=np.float32)
    blend = learn_rating_blend({"baseline": base, "same": base.copy()}, base, ridge=30.0)
    assert np.isfinite(list(blend.weights.values())).all()
    np.testing.assert_allclose(blend.apply({"baseline": base, "same": base}), base)


def lists_of(seed: int, users: int = 60, items: int = 50) -> RankingLists:
    """Return lists in which `good` ranks relevant items high, `random` at random and `bad` low."""
    random = np.random.default_rng(seed)
    candidates = random.random((users, items)) < 0.8
    candidates[:, 0] = True
    relevant = candidates & (random.random((users, items)) < 0.1)
    relevant[:, 0] = True
    noise = random.normal(size=(3, users, items))
    return RankingLists(
        scores={
            "good": (1.5 * relevant + noise[0]).astype(np.float32),
            "random": noise[1].astype(np.float32),
            "bad": (-2.0 * relevant + noise[2]).astype(np.float32),
        },
        candidates=candidates,
        relevant=relevant,
    )


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_listwise_blend_prefers_the_model_that_ranks_relevant_items_high(seed: int) -> None:
    """The good model gets most of the weight, the random one little, and the bad one none."""
    blend = learn_listwise_blend(lists_of(seed), ["good", "random", "bad"], CONFIG.ranking_ridge)
    assert blend.weights["good"] > 0.5
    assert blend.weights.get("random", 0.0) < 0.5 * blend.weights["good"]
    assert "bad" not in blend.weights


def listwise_loss(lists: RankingLists, blend: Blend, models: list[str], ridge: float) -> float:
    """Return the objective of the listwise blend, computed by a loop over users."""
    total = 0.0
    for user in range(len(lists.candidates)):
        candidates = np.flatnonzero(lists.candidates[user])
        scores = sum(
            blend.weights.get(name, 0.0) * lists.scores[name][user].astype(np.float64)
            for name in models
        )
        assert isinstance(scores, np.ndarray)
        log_odds = scores - np.log(np.sum(np.exp(scores[candidates])))
        total -= float(log_odds[lists.relevant[user]].mean())
    scaled = [
        blend.weights.get(name, 0.0) * lists.scores[name][lists.candidates].std() for name in models
    ]
    return total / len(lists.candidates) + ridge * float(np.sum(np.square(scaled)))


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_a_listwise_blend_minimises_its_loss(seed: int) -> None:
    """Changing any weight does not reduce the documented objective."""
    lists, models = lists_of(seed), ["good", "random", "bad"]
    blend = learn_listwise_blend(lists, models, CONFIG.ranking_ridge)
    minimum = listwise_loss(lists, blend, models, CONFIG.ranking_ridge)
    for name in models:
        for step in (-0.05, 0.05):
            weight = max(blend.weights.get(name, 0.0) + step, 0.0)
            changed = replace(blend, weights={**blend.weights, name: weight})
            assert minimum <= listwise_loss(lists, changed, models, CONFIG.ranking_ridge) + 1e-6


@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from([0.01, 7.0, 300.0]))
def test_a_listwise_blend_does_not_depend_on_the_scale_of_scores(seed: int, factor: float) -> None:
    """Multiplying a model's scores by a factor divides its weight by that factor."""
    lists = lists_of(seed)
    scaled = replace(lists, scores={**lists.scores, "good": lists.scores["good"] * factor})
    models = ["good", "random"]
    one = learn_listwise_blend(lists, models, CONFIG.ranking_ridge)
    other = learn_listwise_blend(scaled, models, CONFIG.ranking_ridge)
    assert other.weights["good"] * factor == pytest.approx(one.weights["good"], rel=0.01)


def test_a_model_with_constant_scores_does_not_change_a_listwise_blend() -> None:
    """Constant scores cannot change a ranking."""
    lists = lists_of(5)
    flat = np.full(lists.candidates.shape, 3.0, dtype=np.float32)
    lists = replace(lists, scores={**lists.scores, "flat": flat})
    with_it = learn_listwise_blend(lists, ["good", "flat"], CONFIG.ranking_ridge)
    without = learn_listwise_blend(lists, ["good"], CONFIG.ranking_ridge)
    assert with_it.weights["good"] == pytest.approx(without.weights["good"], rel=1e-3)


def test_an_ensemble_has_blends_for_every_set_of_backends() -> None:
    """If a backend is unavailable, the blends of the remaining models are used."""
    random = np.random.default_rng(6)
    stars = predictions_of(random)
    ratings = (0.5 * stars["one"] + 0.5 * stars["two"]).astype(np.float32)
    lists = lists_of(6)
    backend_of = {"baseline": "gateway", "popularity": "gateway", "one": "cf", "two": "inference"}
    scores = {
        "baseline": lists.scores["random"],
        "popularity": lists.scores["good"] + lists.scores["random"],
        "one": lists.scores["good"],
        "two": lists.scores["good"] - lists.scores["bad"],
    }
    ensemble = learn_ensemble(
        backend_of, stars, ratings, replace(lists, scores=scores), BlendConfig(rating_ridge=0.0)
    )
    subsets = [(), ("cf",), ("inference",), ("cf", "inference")]
    assert set(ensemble.by_backends) == {frozenset(backends) for backends in subsets}
    for backends in subsets:
        pair = ensemble.blends(backends)
        available = {
            name for name, backend in backend_of.items() if backend in (*backends, "gateway")
        }
        assert set(pair.models()) <= available
        assert set(pair.rating.weights) == available & set(stars)
        assert pair.ranking.weights
    full, part = ensemble.blends(["cf", "inference"]).rating, ensemble.blends(["cf"]).rating
    assert full.weights["one"] == pytest.approx(0.5, abs=1e-3)
    shared = {name: stars[name] for name in ("baseline", "one")}
    truncated = Blend({"baseline": 0.5, "one": full.weights["one"]}, full.intercept)
    by_part = squared_error(part.apply(shared), ratings)
    assert by_part < squared_error(truncated.apply(shared), ratings)
