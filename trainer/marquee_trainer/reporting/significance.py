"""Statistical comparisons for the report: bootstrap intervals, paired tests and an ablation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.release.ensemble import BASELINE
from marquee_trainer.data.scale import RatingScale
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
from marquee_trainer.training.results import ValidationPredictions


@dataclass(frozen=True)
class Ablation:
    """Test MSE of rating blends learned with and without each model, in squared stars.

    Attributes:
        full: The MSE of the blend of all models.
        without: By model, the MSE of the blend of the others.
    """

    full: float
    without: Mapping[str, float]


def rating_comparisons(
    squared: Mapping[str, Float64], users: Int32, seed: int
) -> dict[str, Comparison]:
    """Compares the ensemble's test MSE with each model's, by a paired bootstrap over users.

    Args:
        squared: By model and for the ensemble, the squared error of each test rating, in squared
            stars (float64, n).
        users: The user of each test rating (int32, n).
        seed: Seed of the resamples.

    Returns:
        By model, the ensemble's MSE minus the model's.
    """
    ensemble, weights = user_means(squared[ENSEMBLE], users)
    return {
        name: paired_bootstrap(ensemble, user_means(errors, users)[0], seed, weights)
        for name, errors in squared.items()
        if name != ENSEMBLE
    }


def ranking_comparisons(evaluation: Evaluation, seed: int) -> dict[str, Comparison]:
    """Compares the ensemble's NDCG@10 with each model's, by a paired bootstrap over users.

    Args:
        evaluation: The rankings.
        seed: Seed of the resamples.

    Returns:
        By model, the ensemble's NDCG@10 minus the model's.
    """
    ensemble = evaluation.rankings[ENSEMBLE].ndcg_by_user
    return {
        name: paired_bootstrap(ensemble, ranking.ndcg_by_user, seed)
        for name, ranking in evaluation.rankings.items()
        if name != ENSEMBLE
    }


def ranking_intervals(evaluation: Evaluation, seed: int) -> dict[str, Interval]:
    """NDCG@10 of each model and the ensemble, with its bootstrap interval over users.

    Args:
        evaluation: The rankings.
        seed: Seed of the resamples.
    """
    return {
        name: bootstrap_interval(ranking.ndcg_by_user, seed)
        for name, ranking in evaluation.rankings.items()
    }


def ablation(
    validation: ValidationPredictions,
    predictions: Mapping[str, Float32],
    ratings: Float32,
    scale: RatingScale,
    ridge: float,
) -> Ablation:
    """Learns the rating blend without each of the models, and measures its test MSE.

    Args:
        validation: The predictions and ratings that the blends are learned from.
        predictions: By model, predictions of the test ratings (float32, n).
        ratings: The test ratings, in stars (float32, n).
        scale: The rating scale, to which predictions are clipped.
        ridge: The ridge of the blends; see `BlendConfig.rating_ridge`.
    """

    def test_mse(left_out: str | None) -> float:
        rest = {name: row for name, row in validation.by_model.items() if name != left_out}
        blend = learn_rating_blend(rest, validation.ratings, ridge)
        blended = blend.apply({name: predictions[name] for name in rest})
        return rating_metrics(blended, ratings, scale).mse

    models = [name for name in validation.by_model if name != BASELINE]
    return Ablation(test_mse(None), {name: test_mse(name) for name in models})
