"""Evaluates models and their ensemble, with the same scorers that the services use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.release.ensemble import Blend, Ensemble
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.scale import RatingScale
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

ScoreFunction: TypeAlias = "Callable[[Int32], Float32]"


@dataclass(frozen=True)
class Evaluation:
    """Metrics, predictions and rankings of the models, the baselines and the ensemble.

    Attributes:
        metrics: By model, its metrics by name, such as `test_mse` and `ndcg@10`. Rankers have no
            rating metrics, because they predict no stars.
        ranked_users: Number of users over whom the ranking metrics are averaged.
        predictions: By rating predictor and for the ensemble, predictions of the test ratings, in
            stars and not clipped (float32, n).
        rankings: By model and for the ensemble, the metrics of its full ranking of the candidates.
        task: The users, candidates and relevant items of the rankings.
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
    rankers_only: bool = False,
) -> Evaluation:
    """Evaluates models, baselines and the ensemble on test ratings.

    Rating metrics are computed on the training ratings as well, ranking metrics on the test
    ratings only.

    Args:
        data: The ratings matrix and baseline that the models were fitted on.
        models: The fitted models.
        ensemble: The models' blends.
        train: The training ratings.
        test: The test ratings, which the models were not fitted on.
        scale: The rating scale, to which predictions are clipped.
        relevant_stars: An item is relevant to a user who rated it with at least this many stars.
        rankers_only: Whether the ratings are implicit feedback, so that there are no rating
            predictors, no rating metrics and no predictions.
    """
    blends = ensemble.blends(sorted({model.backend for model in models}))
    evaluated = (*fitted_baselines(data, rankers_only), *models)
    scorers = {model.name: model.scorer for model in evaluated}
    rating_predictors = [name for name, scorer in scorers.items() if scorer.output is Output.STARS]
    metrics: dict[str, dict[str, float]] = {}
    predictions: dict[str, dict[str, Float32]] = {"train": {}, "test": {}}
    for part, interactions in (("train", train), ("test", test)):
        by_model = predictions[part]
        for name in rating_predictors:
            by_model[name] = predict_pairs(
                scorers[name], data, interactions.users, interactions.items
            )
        if by_model:
            by_model[ENSEMBLE] = blends.rating.apply(by_model).astype(np.float32)
        for name, predicted in by_model.items():
            errors = rating_metrics(predicted, interactions.ratings, scale)
            row = metrics.setdefault(name, {})
            row[f"{part}_mse"], row[f"{part}_rmse"] = errors.mse, errors.rmse
            row[f"{part}_mae"] = errors.mae
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
) -> dict[str, ScoreFunction]:
    """Functions that score all items for known users, by model and for the ensemble.

    Args:
        data: The training ratings, from which the users' profiles are read.
        scorers: The scorer of each model.
        ranking: The ensemble's ranking blend.

    Returns:
        Functions from user indexes (int32, B) to scores (float32, B × items).
    """
    models = {name: score_known(scorer, data) for name, scorer in scorers.items()}

    def blended(users: Int32) -> Float32:
        scores = {name: models[name](users) for name in ranking.weights}
        return ranking.apply(scores).astype(np.float32)

    return {**models, ENSEMBLE: blended}
