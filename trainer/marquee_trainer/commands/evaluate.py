"""`marquee evaluate`: trains, evaluates, and tells the figures as a table, JSON and a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from marquee_trainer.commands.progress import ProgressBar, known_day_table, metrics_table
from marquee_trainer.commands.settings import EvaluateSettings
from marquee_trainer.commands.train import load_and_split, train_all
from marquee_trainer.models.configurations import configuration_file, read_searches
from marquee_trainer.studies.cold_start import ColdStart, ColdStartConfig, cold_start
from marquee_trainer.studies.known_day import KnownDay, KnownDayConfig, know_day
from marquee_trainer.training.evaluate import Evaluation
from marquee_trainer.training.train import TrainingConfig


def run_evaluation(settings: EvaluateSettings) -> None:
    """Evaluates as the settings say.

    Raises:
        RatingsError: The ratings cannot be read, or no user has enough for a cold start.
        ConfigurationError: The file of configurations is damaged.
        OSError: A file cannot be written.
    """
    dataset, split = load_and_split(settings)
    # Read now: a report is not to fail when all is trained.
    file = configuration_file(len(split.train), settings.config)
    searches = read_searches(file) if file else None
    trained = train_all(dataset, split, settings.seed, settings.config)
    click.echo(metrics_table(trained.evaluation))
    found: ColdStart | None = None
    config = TrainingConfig(seed=settings.seed)
    if settings.cold_start:
        found = cold_start(
            dataset,
            dataset.file_order,
            lambda data, part: train_all(data, part, settings.seed, settings.config),
            ColdStartConfig(),
            config.relevant_stars,
            settings.seed,
        )
    known_day: KnownDay | None = None
    if settings.with_day:
        with ProgressBar() as bar:
            known_day = know_day(dataset, split, trained, config, KnownDayConfig(), bar.progress())
        click.echo(known_day_table(known_day))
    if settings.json:
        text = metrics_json(trained.evaluation, found, known_day)
        Path(settings.json).write_text(text)
        click.echo(f"wrote {settings.json}")
    if settings.report:
        # matplotlib takes a while to import.
        from marquee_trainer.reporting.report import write_evaluation_report

        page = write_evaluation_report(
            Path(settings.report),
            dataset,
            split,
            trained,
            config,
            found,
            known_day,
            searches,
        )
        click.echo(f"wrote {page}")


def metrics_json(
    evaluation: Evaluation, found: ColdStart | None = None, known_day: KnownDay | None = None
) -> str:
    """The metrics as JSON: `{"models": {"user_cf": {"train_mse": …, "ndcg@10": …}, …}}`."""
    content: dict[str, Mapping[str, object]] = {"models": evaluation.metrics}
    if found is not None:
        content["cold_start"] = {
            "users": found.users,
            "given": found.given,
            "mse": found.mse,
            "ndcg@10": found.ndcg,
            "retrained": found.retrained,
            "retrained_mse": found.retrained_mse,
        }
    if known_day is not None:
        content["with_day"] = known_day.metrics
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
