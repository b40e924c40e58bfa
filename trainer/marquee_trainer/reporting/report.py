"""Puts the report of an evaluation together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from marquee_core.arrays import Bool, Float64
from marquee_core.release.ensemble import BASELINE
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.bootstrap import Comparison
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.configurations import Searches
from marquee_trainer.models.linear.implicit_feedback import ImplicitFeedbackModel
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.reporting import plots
from marquee_trainer.reporting.page import Section, write_report
from marquee_trainer.reporting.significance import (
    ablation,
    ranking_comparisons,
    ranking_intervals,
    rating_comparisons,
)
from marquee_trainer.studies.cold_start import ColdStart
from marquee_trainer.studies.known_day import KnownDay
from marquee_trainer.studies.unknown_users import items_alone
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.train import Trained, TrainingConfig, interactions_of

_RATING = ("train_mse", "test_mse", "test_rmse", "test_mae")
_RANKING = ("recall@20", "mrr", "map", "debiased_ndcg@10")
_BEYOND = ("coverage@10", "novelty@10", "gini@10", "diversity@10")

_WRITE_UP = (
    "Crosses mark what the published write-up reports on a small MovieLens: train and test MSE of "
    "0.6882 and 1.0906 for user-based and of 2.2444 and 4.4829 for item-based CF. Answering the "
    "mean rating to everything has a test MSE of about 1.1 to 1.3 there, so its user-based figure "
    "is hardly better than a constant, and its item-based one four times worse. No property of "
    "item-based CF does that. Missing ratings taken for zeros, in similarities or in averages, "
    "no centring on the mean, and 0 as the prediction where no neighbour is left would; the bars "
    "are item-based CF on residuals of the baseline, with shrunk similarities of the nearest items."
)


def write_evaluation_report(
    folder: Path,
    dataset: RatingsDataset,
    split: Split,
    trained: Trained,
    config: TrainingConfig,
    found: ColdStart | None = None,
    known_day: KnownDay | None = None,
    searches: Searches | None = None,
) -> Path:
    """Writes report.html and its plots; answers the page's path.

    Args:
        folder: Where to.
        dataset: The ratings.
        split: How they were split.
        trained: What was trained and evaluated.
        config: How.
        found: What was measured of new users, if anything.
        known_day: And of predictions that know the day of the rating.
        searches: How the models' configurations were found, if they are not the defaults.
    """
    evaluation = trained.evaluation
    test = interactions_of(dataset, split.test)
    squared = {
        name: rating_metrics(row, test.ratings, dataset.scale).squared_errors
        for name, row in evaluation.predictions.items()
    }
    sections = [
        Section(
            "Protocol",
            f"{dataset.source}: {len(split.train):,} training and {len(split.test):,} test ratings "
            f"({split.description}). Epochs and blends were chosen on "
            f"{config.validation_share(split.kind):.0%} of the training ratings, and everything "
            "was then refitted on all of them; the test ratings were read once. Predictions are "
            "clipped to the scale and errors pooled over all ratings. Rankings are of all items "
            "that are not in training; what a user rated "
            f"{config.relevant_stars:g} stars or more in the test is relevant.",
        ),
        _rating_section(evaluation.metrics, trained.seconds),
        Section(
            "Is the ensemble better than each model?",
            "Paired bootstrap over users: the ensemble's test MSE less the model's, its 95 % "
            "interval, and p.",
            ("model", "difference", "from", "to", "p"),
            _comparisons(rating_comparisons(squared, test.users, config.seed)),
        ),
        _ablation_section(dataset, split, trained, config),
        Section("Learning curves", plots=[("learning", plots.learning_curves(trained.fits))]),
        _error_section(dataset, split, trained, squared),
        *_unknown_section(dataset, split, trained, config),
        _ranking_section(trained, config.seed),
        _chosen_section(trained),
    ]
    if searches is not None:
        own = searches.fingerprint == dataset.fingerprint(split.train)
        sections.append(_search_section(searches, own))
    if known_day is not None:
        sections.append(_known_day_section(known_day, evaluation.metrics))
    if found is not None:
        sections.append(_cold_start_section(found))
    return write_report(folder, f"Evaluation on {dataset.source}", sections)


def _rating_section(
    metrics: Mapping[str, Mapping[str, float]], seconds: Mapping[str, float]
) -> Section:
    rows = {name: row for name, row in metrics.items() if "test_mse" in row}
    text = _WRITE_UP
    if {UserCF.name, ItemCF.name} <= set(seconds):
        text += (
            " The write-up has it slower, too. What each costs goes with the squares of how many "
            "ratings users, or items, have, which no more than a data set decides: here neighbours "
            f"of items were found in {seconds[ItemCF.name]:.1f} s and those of users in "
            f"{seconds[UserCF.name]:.1f} s."
        )
    return Section(
        "Predicted ratings",
        text,
        ("model", "train MSE", "test MSE", "test RMSE", "test MAE", "fitted in"),
        [
            [
                name,
                *(f"{row[key]:.4f}" for key in _RATING),
                f"{seconds[name]:.1f} s" if name in seconds else "",
            ]
            for name, row in rows.items()
        ],
        [("mse", plots.mse_bars(metrics))],
    )


def _ablation_section(
    dataset: RatingsDataset, split: Split, trained: Trained, config: TrainingConfig
) -> Section:
    without = ablation(
        trained.validation,
        trained.evaluation.predictions,
        dataset.ratings[split.test],
        dataset.scale,
        config.blend.rating_ridge,
    )
    whole = without.pop("")
    rows = [
        [name, f"{mse:.4f}", f"{mse - whole:+.4f}"]
        for name, mse in sorted(without.items(), key=lambda row: -row[1])
    ]
    blends = trained.ensemble.blends(sorted({model.backend for model in trained.models}))
    return Section(
        "What each model adds",
        f"Test MSE of the blend learned without a model; with all it is {whole:.4f}.",
        ("without", "test MSE", "change"),
        rows,
        [("weights", plots.blend_weights(blends))],
    )


def _error_section(
    dataset: RatingsDataset, split: Split, trained: Trained, squared: Mapping[str, Float64]
) -> Section:
    test = interactions_of(dataset, split.test)
    matrix = trained.data.matrix
    by_count = plots.error_by_count(
        squared, np.diff(matrix.indptr)[test.users], matrix.item_counts[test.items]
    )
    predicted = np.clip(
        trained.evaluation.predictions[ENSEMBLE], dataset.scale.low, dataset.scale.high
    )
    return Section(
        "Where the errors are",
        "By how many training ratings the user and the item have; and whether the ensemble's "
        "stars mean what they say. Of users without training ratings a model knows no more than "
        "how its items are liked, so nothing much can be below the baseline there.",
        ("users", "test ratings", "baseline RMSE", "ensemble RMSE", "change"),
        _by_knowledge(squared, np.diff(matrix.indptr)[test.users] > 0),
        plots=[
            ("error-by-count", by_count),
            ("calibration", plots.calibration(predicted, test.ratings)),
        ],
    )


def _unknown_section(
    dataset: RatingsDataset, split: Split, trained: Trained, config: TrainingConfig
) -> list[Section]:
    """What items alone tell, where enough of the test is of users unknown in training."""
    found = items_alone(dataset, split, trained.data, config)
    if found is None:
        return []
    rows = [
        [
            name,
            f"{found.honest[name]:.4f}",
            f"{found.honest[name] / found.baseline - 1:+.2%}",
            f"{found.bound[name]:.4f}",
            f"{found.bound[name] / found.baseline - 1:+.2%}",
        ]
        for name in found.honest
    ]
    return [
        Section(
            "What items tell of unknown users",
            f"{found.ratings:,} test ratings are of users without a training rating, for whom the "
            f"baseline's RMSE is {found.baseline:.4f}. A ridge regression on what is known of the "
            "items, fitted to such ratings of the validation part, shows what is gained without "
            "knowing the user; least squares on the test itself, which no honest model may see, "
            "what could be gained at most.",
            ("known of items", "RMSE", "change", "RMSE, fitted to the test", "change"),
            rows,
        )
    ]


def _by_knowledge(squared: Mapping[str, Float64], known: Bool) -> list[list[str]]:
    rows = []
    for name, part in (("known", known), ("unknown", ~known), ("all", known | ~known)):
        if not part.any():
            continue
        floor, ours = (
            float(np.sqrt(squared[model][part].mean())) for model in (BASELINE, ENSEMBLE)
        )
        rows.append(
            [name, f"{part.sum():,}", f"{floor:.4f}", f"{ours:.4f}", f"{ours / floor - 1:+.2%}"]
        )
    return rows


def _chosen_section(trained: Trained) -> Section:
    rows = [
        [
            model.name,
            ", ".join(f"{name} {model.parameters[name]}" for name in model.chosen()),
        ]
        for model in trained.models
        if isinstance(model, ImplicitFeedbackModel)
    ]
    return Section(
        "What models of likes choose",
        "Chosen on the validation ratings of this evaluation, by NDCG@10, starting from the "
        "configured values: what is best differs with what is to be ranked.",
        ("model", "parameters"),
        rows,
    )


def _search_section(searches: Searches, own: bool) -> Section:
    rows = [
        [
            name,
            f"{found.trials}",
            f"{found.first_loss:.4f}",
            f"{found.best_loss:.4f}",
            ", ".join(f"{key} {value:g}" for key, value in found.parameters.items()),
        ]
        for name, found in searches.models.items()
    ]
    where = (
        "of the very training ratings of this evaluation"
        if own
        else f"of other training ratings ({searches.split or 'the file does not say which'}): "
        "where these are of the same data set, some may be test ratings here"
    )
    return Section(
        "The search for configurations",
        f"By `marquee tune`, on a validation part {where}. Loss is MSE, or 1 − NDCG@10 of models "
        "of order. Models that are not in the table begin with the package's defaults. A search "
        "goes on from what it finds, so more time finds more.",
        ("model", "trials", "loss at first", "loss at best", "parameters"),
        rows,
    )


def _ranking_section(trained: Trained, seed: int) -> Section:
    evaluation = trained.evaluation
    intervals = ranking_intervals(evaluation, seed)
    compared = ranking_comparisons(evaluation, seed)
    rows = []
    for name, row in evaluation.metrics.items():
        interval, comparison = intervals[name], compared.get(name)
        rows.append(
            [
                name,
                f"{interval.mean:.4f}",
                f"{interval.low:.4f} – {interval.high:.4f}",
                "" if comparison is None else f"{comparison.p_value:.4f}",
                *(f"{row[key]:.4f}" for key in (*_RANKING, *_BEYOND)),
            ]
        )
    return Section(
        "Rankings",
        f"Means over {evaluation.ranked_users:,} users with a relevant test item; p is of the "
        "ensemble's NDCG@10 against the model's, by a paired bootstrap.",
        ("model", "NDCG@10", "95 % interval", "p", *_RANKING, *_BEYOND),
        rows,
        [("ranking", plots.ranking_bars(intervals))],
    )


def _known_day_section(known_day: KnownDay, metrics: Mapping[str, Mapping[str, float]]) -> Section:
    rows = [
        [
            name,
            *(f"{row[key]:.4f}" for key in ("test_mse", "test_rmse")),
            f"{metrics[name]['test_mse']:.4f}",
            f"{row['test_mse'] / metrics[name]['test_mse'] - 1:+.2%}",
        ]
        for name, row in known_day.metrics.items()
    ]
    return Section(
        "When the day of the rating is known",
        "Users rate higher on some days than on others, and items drift. Effects of a user's day "
        "and of an item's month beside Bayesian MF hear it from the other ratings of that day, "
        "which no forecast has: so nothing of it is served.",
        ("model", "test MSE", "test RMSE", "test MSE, day unknown", "change"),
        rows,
    )


def _cold_start_section(found: ColdStart) -> Section:
    headers = [str(count) for count in found.given]
    place = found.given.index(found.retrained) if found.retrained in found.given else None
    rows = []
    for name, curve in found.mse.items():
        again = found.retrained_mse[name]
        ratio = "" if place is None else f"{curve[place] / again - 1:+.2%}"
        rows.append([name, *(f"{mse:.4f}" for mse in curve), f"{again:.4f}", ratio])
    return Section(
        "New users",
        f"{found.users:,} users of whom training saw nothing; test MSE by how many ratings they "
        f"give at request time, and when {found.retrained} of them are trained on instead.",
        ("model", *headers, f"{found.retrained}, retrained", "folded in against retrained"),
        rows,
        [("cold-start", plots.cold_start_curves(found, list(found.ndcg)))],
    )


def _comparisons(found: Mapping[str, Comparison]) -> list[list[str]]:
    number: Callable[[float], str] = "{:+.4f}".format
    return [
        [
            name,
            number(row.difference.mean),
            number(row.difference.low),
            number(row.difference.high),
            f"{row.p_value:.4f}",
        ]
        for name, row in found.items()
    ]
