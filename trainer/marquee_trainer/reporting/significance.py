"""What of the ensemble's gain is more than chance, and which model it owes it to."""

from __future__ import annotations

from collections.abc import Mapping

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.release.ensemble import BASELINE
from marquee_trainer.data.dataset import RatingScale
from marquee_trainer.ensemble.blends import learn_rating_blend
from marquee_trainer.metrics.bootstrap import (
    Comparison,
    Interval,
    bootstrap_interval,
    paired_bootstrap,
    user_means,
)
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.training.evaluate import ENSEMBLE, Evaluation
from marquee_trainer.training.train import ValidationPredictions


def rating_comparisons(
    squared: Mapping[str, Float64], users: Int32, seed: int
) -> dict[str, Comparison]:
    """The ensemble's test MSE less each model's, by a paired bootstrap over users.

    Args:
        squared: By model and of the ensemble, the squared error of each test rating (n).
        users: The user of each (int32, n).
        seed: Of the resamples.
    """
    ours, weights = user_means(squared[ENSEMBLE], users)
    return {
        name: paired_bootstrap(ours, user_means(errors, users)[0], seed, weights)
        for name, errors in squared.items()
        if name != ENSEMBLE
    }


def ranking_comparisons(evaluation: Evaluation, seed: int) -> dict[str, Comparison]:
    """The ensemble's NDCG@10 less each model's, by a paired bootstrap over users."""
    ours = evaluation.rankings[ENSEMBLE].ndcg_by_user
    return {
        name: paired_bootstrap(ours, ranked.ndcg_by_user, seed)
        for name, ranked in evaluation.rankings.items()
        if name != ENSEMBLE
    }


def ranking_intervals(evaluation: Evaluation, seed: int) -> dict[str, Interval]:
    """NDCG@10 of each model and the ensemble, with its bootstrap interval over users."""
    return {
        name: bootstrap_interval(ranked.ndcg_by_user, seed)
        for name, ranked in evaluation.rankings.items()
    }


def ablation(
    validation: ValidationPredictions,
    predictions: Mapping[str, Float32],
    ratings: Float32,
    scale: RatingScale,
    ridge: float,
) -> dict[str, float]:
    """The test MSE of the blend that is learned without each model; "" for the one with all.

    Args:
        validation: What blends are learned from.
        predictions: Test predictions of the same models (float32, n).
        ratings: The test ratings (float32, n).
        scale: The rating scale.
        ridge: As in `BlendConfig.rating_ridge`.
    """
    found = {}
    for left_out in ("", *(name for name in validation.by_model if name != BASELINE)):
        rest = {name: row for name, row in validation.by_model.items() if name != left_out}
        blend = learn_rating_blend(rest, validation.ratings, ridge)
        here = {name: predictions[name] for name in rest}
        found[left_out] = rating_metrics(blend.apply(here), ratings, scale).mse
    return found
