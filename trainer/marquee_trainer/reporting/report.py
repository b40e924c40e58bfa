"""Assembles the report of an evaluation from its sections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.scale import Feedback
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.configurations import Searches
from marquee_trainer.models.coverage import partial_coverage
from marquee_trainer.reporting import plots
from marquee_trainer.reporting.charts import Chart
from marquee_trainer.reporting.page import Section, write_report
from marquee_trainer.reporting.sections.errors import error_section
from marquee_trainer.reporting.sections.known_day import known_day_section
from marquee_trainer.reporting.sections.new_users import new_users_section
from marquee_trainer.reporting.sections.rankings import ranking_section
from marquee_trainer.reporting.sections.ratings import (
    ablation_section,
    comparison_section,
    rating_section,
)
from marquee_trainer.reporting.sections.search import chosen_section, search_section
from marquee_trainer.reporting.sections.unknown_users import unknown_users_section
from marquee_trainer.reporting.summary import summarise
from marquee_trainer.studies.known_day import KnownDay
from marquee_trainer.studies.new_users import NewUsersResult
from marquee_trainer.studies.unknown_users import study_unknown_users
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.preparation import interactions_of
from marquee_trainer.training.results import TrainingResult


def write_evaluation_report(
    folder: Path,
    dataset: RatingsDataset,
    split: Split,
    trained: TrainingResult,
    config: TrainingConfig,
    new_users: NewUsersResult | None = None,
    known_day: KnownDay | None = None,
    searches: Searches | None = None,
) -> Path:
    """Writes `report.html` and its charts.

    Args:
        folder: The folder to write to; it is created if it does not exist.
        dataset: The ratings.
        split: Their training and test part.
        trained: The models, the ensemble and the evaluation.
        config: The configuration of the training.
        new_users: The evaluation of new users; None to leave its section out.
        known_day: The metrics with a known day; None to leave their section out.
        searches: How the models' hyperparameters were found; None if they are the defaults.

    Returns:
        The path of `report.html`.
    """
    evaluation = trained.evaluation
    test = interactions_of(dataset, evaluation.rows(split))
    squared = {
        name: rating_metrics(predictions, test.ratings, dataset.scale).squared_errors
        for name, predictions in evaluation.predictions.items()
    }
    sections = [ranking_section(evaluation, config.seed)]
    # Implicit feedback has no ratings to predict.
    if ENSEMBLE in squared:
        sections += [
            rating_section(evaluation.metrics, trained.seconds),
            comparison_section(squared, test.users, config.seed),
            ablation_section(dataset, split, trained, config),
            error_section(dataset, test, trained, squared),
        ]
        unknown_users = study_unknown_users(dataset, split, trained.data, config)
        if unknown_users is not None:
            sections.append(unknown_users_section(unknown_users))
    if new_users is not None:
        sections.append(new_users_section(new_users))
    if known_day is not None:
        sections.append(known_day_section(known_day, evaluation.metrics))
    curves = plots.learning_curves(trained.fits)
    if curves:
        sections.append(_curves_section(curves))
    chosen = chosen_section(trained.models)
    if chosen.rows:
        sections.append(chosen)
    if searches is not None:
        is_same = searches.fingerprint == dataset.fingerprint(split.train)
        sections.append(search_section(searches, is_same))
    sections.append(_protocol_section(dataset, split, trained, config))
    summary = summarise(dataset, split, trained, squared, test.users, config, searches)
    return write_report(folder, f"Evaluation on {dataset.source}", summary, sections)


def _curves_section(curves: Sequence[Chart]) -> Section:
    return Section(
        "Learning curves",
        "The error by epoch of the models that are trained in epochs, with the validation ratings "
        "held out. A dotted line marks the chosen number of epochs.",
        charts=curves,
    )


def _protocol_section(
    dataset: RatingsDataset, split: Split, trained: TrainingResult, config: TrainingConfig
) -> Section:
    sampled, tested = "", len(trained.evaluation.tested)
    if tested < len(split.test):
        sampled = (
            f"Scoring all items for all users would cost too much, so {tested:,} test ratings of a "
            "random sample of the users were evaluated. "
        )
    parts = partial_coverage(trained.models, trained.data.matrix)
    partial = "".join(f" {name}: {part}." for name, part in parts.items())
    return Section(
        "Protocol",
        f"{dataset.source}: {len(split.train):,} training and {len(split.test):,} test ratings "
        f"({split.description}). {sampled}The numbers of epochs and the blends were chosen on "
        f"{config.validation_share(split.kind):.0%} of the training ratings. All models were then "
        "refitted on all training ratings, and the test ratings were used once, at the end. "
        "Predictions are clipped to the rating scale, and errors are averaged over all ratings. "
        "Each ranking is of all items that the user has not rated in training; an item is "
        + (
            f"relevant if the user rated it {config.relevant_stars:g} or more in the test."
            if dataset.feedback is Feedback.EXPLICIT
            else "relevant if the user interacted with it in the test."
        )
        + partial,
    )
