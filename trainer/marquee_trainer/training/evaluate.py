"""Evaluates models and their ensemble with the very scorers that serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.release.ensemble import Blend, Ensemble
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.data.dataset import RatingScale
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.metrics.beyond_accuracy import beyond_accuracy
from marquee_trainer.metrics.item_vectors import item_vectors
from marquee_trainer.metrics.ranking_metrics import (
    RECALL_TOP,
    TOP,
    RankingMetrics,
    RankingTask,
    ranking_metrics,
)
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.models.model import Model, predict_pairs, score_known

ENSEMBLE = "ensemble"

Score: TypeAlias = "Callable[[Int32], Float32]"


@dataclass(frozen=True)
class Evaluation:
    """Metrics by model, named as in `test_mse`, `ndcg@10` and the like.

    Attributes:
        metrics: For each model, the floor and the ensemble. Models of affinity predict no stars.
        ranked_users: How many users the ranking metrics are means over.
        predictions: By model of stars and of the ensemble, predictions of the test ratings, not
            clipped (float32, n).
        rankings: By model and of the ensemble, its ranking of all items.
        task: What was ranked.
    """

    metrics: Mapping[str, Mapping[str, float]]
    ranked_users: int
    predictions: Mapping[str, Float32]
    rankings: Mapping[str, RankingMetrics]
    task: RankingTask


def evaluate(
    data: ReleaseData,
    models: Sequence[Model],
    ensemble: Ensemble,
    train: Interactions,
    test: Interactions,
    scale: RatingScale,
    relevant_stars: float,
) -> Evaluation:
    """Evaluates on ratings that training has not seen.

    Args:
        data: What the models were fitted on.
        models: Fitted models.
        ensemble: Their blends.
        train: The training ratings.
        test: The test ratings.
        scale: The rating scale.
        relevant_stars: An item is relevant to a user who rated it at least so.
    """
    blends = ensemble.blends(sorted({model.backend for model in models}))
    scorers = {model.name: model.scorer for model in (*fitted_baselines(data), *models)}
    stars = [name for name, scorer in scorers.items() if scorer.output is Output.STARS]
    metrics: dict[str, dict[str, float]] = {}
    predictions: dict[str, dict[str, Float32]] = {"train": {}, "test": {}}
    for part, pairs in (("train", train), ("test", test)):
        here = predictions[part]
        for name in stars:
            here[name] = predict_pairs(scorers[name], data, pairs.users, pairs.items)
        here[ENSEMBLE] = blends.rating.apply(here).astype(np.float32)
        for name, predicted in here.items():
            found = rating_metrics(predicted, pairs.ratings, scale)
            row = metrics.setdefault(name, {})
            row[f"{part}_mse"], row[f"{part}_rmse"] = found.mse, found.rmse
            row[f"{part}_mae"] = found.mae
    task = RankingTask.of(data.matrix, test, relevant_stars)
    rankings: dict[str, RankingMetrics] = {}
    vectors = item_vectors(data)
    for name, score in score_functions(data, scorers, blends.ranking).items():
        ranked = rankings[name] = ranking_metrics(task, score, TOP, RECALL_TOP)
        row = metrics.setdefault(name, {})
        row[f"ndcg@{TOP}"], row[f"recall@{RECALL_TOP}"] = ranked.ndcg, ranked.recall
        row["mrr"], row["map"] = ranked.mrr, ranked.map
        row[f"coverage@{TOP}"] = ranked.coverage
        row |= beyond_accuracy(task, ranked, vectors, TOP)
    return Evaluation(
        {name: metrics[name] for name in (*scorers, ENSEMBLE)},
        len(task.users),
        predictions["test"],
        rankings,
        task,
    )


def score_functions(
    data: ReleaseData, scorers: Mapping[str, Scorer], ranking: Blend
) -> dict[str, Score]:
    """How each model and the ensemble score all items for users."""
    models = {name: score_known(scorer, data) for name, scorer in scorers.items()}

    def blended(users: Int32) -> Float32:
        scores = {name: models[name](users) for name in ranking.weights}
        return ranking.apply(scores).astype(np.float32)

    return {**models, ENSEMBLE: blended}
