"""The summary of the report: the best models, the gain of the ensemble, and the next steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from marquee_core.arrays import Float64, Int32
from marquee_core.release.ensemble import BASELINE, GATEWAY_MODELS
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.bootstrap import (
    Comparison,
    bootstrap_interval,
    paired_bootstrap,
    user_means,
)
from marquee_trainer.models.configurations import Searches
from marquee_trainer.reporting.page import Card, Summary
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.results import TrainingResult

_FEW_USERS = 300
_MANY_UNKNOWN = 0.2
_UNORDERED_SPLITS = ("random", "user-random")


def summarise(
    dataset: RatingsDataset,
    split: Split,
    trained: TrainingResult,
    squared: Mapping[str, Float64],
    users: Int32,
    config: TrainingConfig,
    searches: Searches | None,
) -> Summary:
    """Summarises an evaluation.

    Args:
        dataset: The ratings.
        split: Their training and test part.
        trained: The models, the ensemble and the evaluation.
        squared: By rating predictor and for the ensemble, the squared error of each test rating,
            in squared stars (float64, n); empty for implicit feedback.
        users: The user of each test rating (int32, n).
        config: The configuration of the training.
        searches: How the models' hyperparameters were found; None if they are the defaults.
    """
    ranking, ranking_card = _ranking(trained, config.seed)
    cards = [ranking_card]
    comparisons = [("ranking", "ranks", *ranking)]
    if ENSEMBLE in squared:
        rating, rating_card = _rating(squared, users, config.seed)
        cards.append(rating_card)
        comparisons.append(("predicted ratings", "predicts ratings", *rating))
    cards += [
        Card(
            "Data",
            f"{len(dataset):,} ratings",
            f"{len(dataset.user_ids):,} users, {len(dataset.catalogue):,} items; "
            f"{_density(dataset):.2%} of all pairs; scale {dataset.scale.low:g} to "
            f"{dataset.scale.high:g}",
        ),
        Card(
            "Test",
            f"{len(trained.evaluation.tested):,} ratings",
            f"{split.description}; rankings for {trained.evaluation.ranked_users:,} users",
        ),
    ]
    text = (
        f"The data set is {dataset.source}. Gains are differences on the same test users, with "
        "95 % bootstrap intervals over users."
    )
    steps = [_advice(*comparison) for comparison in comparisons]
    steps += _further_steps(dataset, split, trained, users, searches)
    return Summary(cards, text, steps)


def _ranking(trained: TrainingResult, seed: int) -> tuple[tuple[str, Comparison], Card]:
    """The ensemble's NDCG@10 compared with the best single model's."""
    rankings = trained.evaluation.rankings
    singles = {name: row for name, row in rankings.items() if name != ENSEMBLE}
    best = max(singles, key=lambda name: singles[name].ndcg)
    ensemble = rankings[ENSEMBLE].ndcg_by_user
    if not len(ensemble):
        none = paired_bootstrap(np.zeros(1), np.zeros(1), seed)
        return (best, none), Card("Ranking quality", "not measured", "No test item is relevant.")
    found = bootstrap_interval(ensemble, seed)
    gain = paired_bootstrap(ensemble, singles[best].ndcg_by_user, seed)
    note = (
        f"Ensemble; 95 % interval {found.low:.3f} to {found.high:.3f}. "
        f"Gain over the best single model, {best} ({singles[best].ndcg:.3f}): "
        f"{_gain(gain, '{:+.3f}')}"
    )
    return (best, gain), Card("Ranking quality, NDCG@10", f"{found.mean:.3f}", note)


def _rating(
    squared: Mapping[str, Float64], users: Int32, seed: int
) -> tuple[tuple[str, Comparison], Card]:
    """The ensemble's test MSE compared with the best single model's; a gain is positive."""
    singles = {name: float(errors.mean()) for name, errors in squared.items() if name != ENSEMBLE}
    best = min(singles, key=lambda name: singles[name])
    own, weights = user_means(squared[ENSEMBLE], users)
    gain = paired_bootstrap(user_means(squared[best], users)[0], own, seed, weights)
    mse = float(squared[ENSEMBLE].mean())
    baseline = singles.get(BASELINE)
    note = (
        f"Ensemble; MSE {mse:.4f} stars². Against the best single model, {best} "
        f"({singles[best]:.4f}): {_gain(gain, '{:+.4f}', -1)}"
    )
    if baseline is not None and best != BASELINE:
        note += f"; against the bias baseline: {mse / baseline - 1:+.1%}".replace("-", "−")
    return (best, gain), Card("Error of predicted stars, RMSE", f"{np.sqrt(mse):.3f}", note)


def _gain(comparison: Comparison, form: str, sign: int = 1) -> str:
    """A difference with its interval, as text."""
    found = comparison.difference
    ends = sorted((sign * found.low, sign * found.high))
    write: Callable[[float], str] = form.format
    text = f"{write(sign * found.mean)} ({write(ends[0])} to {write(ends[1])})"
    return text.replace("-", "−")


def _advice(what: str, verb: str, best: str, gain: Comparison) -> str:
    """Advice on the ensemble, from its gain over the best single model."""
    if gain.difference.low > 0:
        return (
            f"For {what}, keep the ensemble: it is significantly better than {best}, the best "
            "single model."
        )
    if best in GATEWAY_MODELS:
        return (
            f"For {what}, no model is significantly better than {best}. More ratings per user or "
            "tuned hyperparameters may change that."
        )
    if gain.difference.high < 0:
        return f"For {what}, {best} alone is better than the ensemble: serve it by name."
    return (
        f"For {what}, the ensemble is not significantly better than {best}: {best} alone {verb} "
        "about as well, at a lower cost."
    )


def _further_steps(
    dataset: RatingsDataset,
    split: Split,
    trained: TrainingResult,
    users: Int32,
    searches: Searches | None,
) -> list[str]:
    steps = []
    if searches is None or searches.fingerprint != dataset.fingerprint(split.train):
        origin = "are the defaults" if searches is None else "were tuned on other ratings"
        steps.append(
            f"The hyperparameters {origin}. Tune them on this data: `marquee tune --data … --out "
            "tuned.json`, then pass `--config tuned.json`."
        )
    if dataset.has_timestamps and split.kind in _UNORDERED_SPLITS:
        steps.append(
            "Test ratings were chosen at random, so models also learn from ratings that are later "
            "than those they predict. `--split user-last` or `--split temporal` is closer to "
            "production."
        )
    unknown = float((np.diff(trained.data.matrix.indptr)[users] == 0).mean()) if len(users) else 0.0
    if unknown > _MANY_UNKNOWN:
        steps.append(
            f"{unknown:.0%} of the test ratings are by users without a training rating. "
            "`--cold-start` measures how quickly recommendations improve with their first ratings."
        )
    if trained.evaluation.ranked_users < _FEW_USERS:
        steps.append(
            f"Rankings are measured on only {trained.evaluation.ranked_users:,} users, so their "
            "intervals are wide. A larger `--test-fraction` narrows them."
        )
    steps.append("Publish a release: `marquee train --data …`.")
    return steps


def _density(dataset: RatingsDataset) -> float:
    return len(dataset) / (len(dataset.user_ids) * len(dataset.catalogue))
