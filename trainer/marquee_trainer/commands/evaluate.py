"""`marquee evaluate`: trains all models and reports their metrics as a table, JSON and HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from marquee_trainer.commands.loading import load_and_split
from marquee_trainer.commands.progress import ProgressBar
from marquee_trainer.commands.selection import ModelSelection, select_models
from marquee_trainer.commands.settings import EvaluateSettings
from marquee_trainer.commands.tables import known_day_table, metrics_table
from marquee_trainer.commands.train import train_all
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.scale import Feedback
from marquee_trainer.data.split import Split
from marquee_trainer.models.configurations import configuration_file, read_searches
from marquee_trainer.studies.known_day import (
    KnownDay,
    KnownDayConfig,
    evaluate_with_day,
    require_days,
)
from marquee_trainer.studies.new_users import NewUsersConfig, NewUsersResult, study_new_users
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import Evaluation
from marquee_trainer.training.results import TrainingResult


def run_evaluation(settings: EvaluateSettings) -> None:
    """Trains and evaluates all models, prints a table and writes the requested files.

    Raises:
        RatingsError: The ratings cannot be read, there are too few of them, no user has enough
            ratings for a requested evaluation of new users, `with_day` is set but the ratings have
            no timestamps, or a study of predicted ratings is requested for implicit feedback.
        ConfigurationError: The file of hyperparameters cannot be read or names an unknown model.
        OSError: A file cannot be written.
    """
    selection = select_models(settings)
    dataset, split = load_and_split(settings)
    dataset = dataset.of_modelled_items()
    if dataset.feedback is Feedback.IMPLICIT and (settings.cold_start or settings.with_day):
        raise RatingsError(
            f"{dataset.source}: --cold-start and --with-day measure predicted ratings, which "
            "implicit feedback does not have"
        )
    if settings.with_day:
        require_days(dataset)
    # Read before training, so that a damaged file is reported immediately.
    file = configuration_file(len(split.train), settings.config)
    searches = read_searches(file)
    trained = train_all(dataset, split, settings.seed, settings.config, selection)
    click.echo(metrics_table(trained.evaluation))
    config = TrainingConfig.for_dataset(dataset, settings.seed)
    new_users: NewUsersResult | None = None
    if settings.cold_start:
        # The same models, so that the curves are comparable; a budget could admit others.
        same = ModelSelection(tuple(model.name for model in trained.models))
        new_users = study_new_users(
            dataset,
            dataset.file_order,
            lambda data, part: _train_again(data, part, settings, same),
            NewUsersConfig(),
            config.relevant_stars,
            settings.seed,
        )
    known_day: KnownDay | None = None
    if settings.with_day:
        with ProgressBar() as bar:
            known_day = evaluate_with_day(
                dataset, split, trained, config, KnownDayConfig(), bar.progress()
            )
        click.echo(known_day_table(known_day))
    if settings.json:
        Path(settings.json).write_text(metrics_json(trained.evaluation, new_users, known_day))
        click.echo(f"wrote {settings.json}")
    if settings.report:
        from marquee_trainer.reporting.report import write_evaluation_report

        page = write_evaluation_report(
            Path(settings.report),
            dataset,
            split,
            trained,
            config,
            new_users,
            known_day,
            searches,
        )
        click.echo(f"wrote {page}")


def _train_again(
    dataset: RatingsDataset, split: Split, settings: EvaluateSettings, selection: ModelSelection
) -> TrainingResult:
    """Trains for the study of new users, which holds other ratings out than the evaluation."""
    click.echo(
        f"  --cold-start: the models are trained again, on {len(split.train):,} ratings", err=True
    )
    return train_all(dataset, split, settings.seed, settings.config, selection)


def metrics_json(
    evaluation: Evaluation,
    new_users: NewUsersResult | None = None,
    known_day: KnownDay | None = None,
) -> str:
    """The metrics as JSON text.

    The object `models` holds the metrics of each model by name, for example
    `{"models": {"user_cf": {"train_mse": …, "ndcg@10": …}, …}}`.

    Args:
        evaluation: The metrics of every model, the baselines and the ensemble.
        new_users: The evaluation of new users, written as `cold_start`; None to leave it out.
        known_day: The metrics with a known day, written as `with_day`; None to leave them out.
    """
    content: dict[str, Mapping[str, object]] = {"models": evaluation.metrics}
    if new_users is not None:
        content["cold_start"] = {
            "users": new_users.users,
            "given": new_users.given,
            "mse": new_users.mse,
            "ndcg@10": new_users.ndcg,
            "retrained": new_users.retrained,
            "retrained_mse": new_users.retrained_mse,
        }
    if known_day is not None:
        content["with_day"] = known_day.metrics
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
