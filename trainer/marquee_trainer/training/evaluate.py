"""Evaluates models and their ensemble, with the same scorers that the services use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Float32, Int64
from marquee_core.cores import usable_cores
from marquee_core.output import Output
from marquee_core.release.ensemble import BlendPair, Ensemble
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.scale import RatingScale
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.beyond_accuracy import beyond_accuracy
from marquee_trainer.metrics.item_vectors import item_vectors
from marquee_trainer.metrics.ranking_metrics import (
    RECALL_TOP,
    TOP,
    RankingAccumulator,
    RankingMetrics,
    RankingTask,
)
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.models.model import Model
from marquee_trainer.training.sampling import rows_of_users, scored_users, take

ENSEMBLE = "ensemble"

# Scores of a block of users: 4 MB of memory for each model.
_BLOCK_CELLS = 1_000_000


@dataclass(frozen=True)
class Evaluation:
    """Metrics, predictions and rankings of the models, the baselines and the ensemble.

    Attributes:
        metrics: By model, its metrics by name, such as `test_mse` and `ndcg@10`. Rankers have no
            rating metrics, because they predict no stars.
        ranked_users: Number of users over whom the ranking metrics are averaged.
        tested: Positions of the test ratings that were predicted, ascending (int64, n): all of them
            or, for a large data set, those of a sample of users.
        predictions: For each rating predictor and the ensemble, predictions of these ratings, in
            stars and not clipped (float32, n).
        rankings: For each model and the ensemble, the metrics of its full ranking of the
            candidates.
        task: The users, candidates and relevant items of the rankings.
    """

    metrics: Mapping[str, Mapping[str, float]]
    ranked_users: int
    tested: Int64
    predictions: Mapping[str, Float32]
    rankings: Mapping[str, RankingMetrics]
    task: RankingTask

    def rows(self, split: Split) -> Int64:
        """The rows of the data set that were predicted, ascending (int64, n).

        Args:
            split: The split that was evaluated.
        """
        return split.test[self.tested]


def evaluate(
    data: ReleaseData,
    models: Sequence[Model],
    ensemble: Ensemble,
    train: Interactions,
    test: Interactions,
    scale: RatingScale,
    relevant_stars: float,
    rankers_only: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Evaluates models, baselines and the ensemble on test ratings.

    Rating metrics are computed on the training and the test ratings, ranking metrics on the test
    ratings only. On a large data set, a random sample of users is evaluated; see `scored_users`.

    Args:
        data: The ratings matrix and baseline that the models were fitted on.
        models: The fitted models.
        ensemble: The models' blends.
        train: The training ratings.
        test: The test ratings, which the models were not fitted on.
        scale: The rating scale, to which predictions are clipped.
        relevant_stars: An item is relevant to a user who rated it with at least this many stars.
        rankers_only: Whether the ratings are implicit feedback, without rating predictors, rating
            metrics and predictions.
        seed: Seed of the sample.
    """
    everyone = np.unique(test.users)
    ratings = data.matrix.rating_count
    users = scored_users(everyone, data.matrix.item_count, ratings, seed)
    tested = rows_of_users(test, users)
    if len(users) < len(everyone):
        test, train = take(test, tested), take(train, rows_of_users(train, users))
    blends = ensemble.blends(sorted({model.backend for model in models}))
    evaluated = (*fitted_baselines(data, rankers_only), *models)
    scorers = {model.name: model.scorer for model in evaluated}
    task = RankingTask.of(data.matrix, test, relevant_stars)
    parts = {"train": train, "test": test}
    predictions, rankings = _score_users(data, scorers, blends, task, parts)
    metrics: dict[str, dict[str, float]] = {}
    for part, interactions in parts.items():
        by_model = predictions[part]
        if by_model:
            by_model[ENSEMBLE] = blends.rating.apply(by_model).astype(np.float32)
        for name, predicted in by_model.items():
            errors = rating_metrics(predicted, interactions.ratings, scale)
            row = metrics.setdefault(name, {})
            row[f"{part}_mse"], row[f"{part}_rmse"] = errors.mse, errors.rmse
            row[f"{part}_mae"] = errors.mae
    vectors = item_vectors(data)
    for name, ranked in rankings.items():
        row = metrics.setdefault(name, {})
        row[f"ndcg@{TOP}"], row[f"recall@{RECALL_TOP}"] = ranked.ndcg, ranked.recall
        row["mrr"], row["map"] = ranked.mrr, ranked.map
        row[f"coverage@{TOP}"] = ranked.coverage
        row |= beyond_accuracy(task, ranked, vectors, TOP)
    return Evaluation(
        {name: metrics[name] for name in (*scorers, ENSEMBLE)},
        len(task.users),
        tested,
        predictions["test"],
        rankings,
        task,
    )


def _score_users(
    data: ReleaseData,
    scorers: Mapping[str, Scorer],
    blends: BlendPair,
    task: RankingTask,
    parts: Mapping[str, Interactions],
) -> tuple[dict[str, dict[str, Float32]], dict[str, RankingMetrics]]:
    """Scores each user once with every model, for the predictions and the rankings.

    Only the scores of one block of users are in memory at a time.

    Args:
        data: See `evaluate`.
        scorers: The scorer of each model.
        blends: The ensemble's blends.
        task: The users to rank for, their candidates and their relevant items.
        parts: The ratings to predict, by name of the part.

    Returns:
        For each part and rating predictor, predictions in stars, not clipped (float32, n); and for
        each model and the ensemble, the metrics of its rankings.
    """
    predictions = {
        part: {
            name: np.empty(len(pairs), dtype=np.float32)
            for name, scorer in scorers.items()
            if scorer.output is Output.STARS
        }
        for part, pairs in parts.items()
    }
    orders = {part: np.argsort(pairs.users, kind="stable") for part, pairs in parts.items()}
    sorted_users = {part: pairs.users[orders[part]] for part, pairs in parts.items()}
    accumulators = {
        name: RankingAccumulator(task, TOP, RECALL_TOP) for name in (*scorers, ENSEMBLE)
    }
    everyone = np.unique(np.concatenate([task.users, *(pairs.users for pairs in parts.values())]))
    size = max(1, _BLOCK_CELLS // max(1, data.matrix.item_count))
    with ThreadPoolExecutor(usable_cores()) as threads:
        for start in range(0, len(everyone), size):
            users = everyone[start : start + size].astype(np.int32)
            profiles = data.matrix.profiles(users)
            scoring = {
                name: threads.submit(scorer.score, profiles) for name, scorer in scorers.items()
            }
            scores = {name: done.result() for name, done in scoring.items()}
            for part, pairs in parts.items():
                ends = np.searchsorted(sorted_users[part], [users[0], users[-1] + 1])
                rows = orders[part][slice(*ends)]
                cells = np.searchsorted(users, pairs.users[rows]), pairs.items[rows]
                for name, predicted in predictions[part].items():
                    predicted[rows] = scores[name][cells]
            positions = np.arange(*np.searchsorted(task.users, [users[0], users[-1] + 1]))
            if not len(positions):
                continue
            candidates, relevant = task.lists(positions)
            rows = np.searchsorted(users, task.users[positions])
            ranked = {name: scored[rows] for name, scored in scores.items()}
            ranked[ENSEMBLE] = blends.ranking.apply(
                {name: ranked[name] for name in blends.ranking.weights}
            ).astype(np.float32)
            # NumPy releases the interpreter lock during most of the ranking, as during scoring.
            for done in [
                threads.submit(accumulators[name].add, scored, candidates, relevant)
                for name, scored in ranked.items()
            ]:
                done.result()
    return predictions, {name: accumulator.metrics() for name, accumulator in accumulators.items()}
