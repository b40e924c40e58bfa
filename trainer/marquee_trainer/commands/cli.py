"""Definitions of the commands; light to import, so that `marquee --help` is quick."""

from __future__ import annotations

from collections.abc import Callable

import click

from marquee_services.server.options import settings_options
from marquee_trainer.commands.settings import (
    DataCheckSettings,
    DemoSettings,
    EvaluateSettings,
    TrainSettings,
    TuneSettings,
)


@click.command()
@settings_options(TrainSettings, "MARQUEE_TRAIN")
def train(settings: TrainSettings) -> None:
    """Train all models, evaluate them and publish a release."""

    def run() -> None:
        from marquee_trainer.commands.train import run_training

        run_training(settings)

    _run(run)


@click.command()
@settings_options(DemoSettings, "MARQUEE_DEMO")
def demo(settings: DemoSettings) -> None:
    """Train, publish, serve and recommend, end to end; then stop."""

    def run() -> None:
        from marquee_trainer.commands.demo import run_demo

        run_demo(settings)

    _run(run)


@click.command()
@settings_options(EvaluateSettings, "MARQUEE_EVALUATE")
def evaluate(settings: EvaluateSettings) -> None:
    """Train all models and the ensemble, and report their metrics on held-out ratings."""

    def run() -> None:
        from marquee_trainer.commands.evaluate import run_evaluation

        run_evaluation(settings)

    _run(run)


@click.command()
@settings_options(TuneSettings, "MARQUEE_TUNE")
def tune(settings: TuneSettings) -> None:
    """Search hyperparameters on validation ratings, within a time budget."""

    def run() -> None:
        from marquee_trainer.commands.tune import tune_models

        tune_models(settings)

    _run(run)


@click.group()
def data() -> None:
    """Look at ratings before training on them."""


@data.command()
@click.argument("path")
@settings_options(DataCheckSettings, "MARQUEE_DATA")
def check(settings: DataCheckSettings, path: str) -> None:
    """Show how ratings are understood: columns, scale, counts and oddities.

    PATH is a source of ratings as for `marquee train --data`. Nothing is trained.
    """

    def run() -> None:
        from marquee_trainer.commands.data_check import run_check

        run_check(path, settings)

    _run(run)


def _run(command: Callable[[], None]) -> None:
    """Runs a command, and reports an expected error in one line.

    Any other error is a defect, and its traceback is shown.

    Raises:
        ClickException: The input, the configuration or a file is at fault.
    """
    from marquee_core.errors import ArtifactError
    from marquee_trainer.data.errors import RatingsError

    try:
        command()
    except (ArtifactError, OSError, RatingsError) as error:
        raise click.ClickException(str(error)) from error
    except RuntimeError as error:
        # Not imported above: it brings TensorFlow, which takes seconds.
        from marquee_trainer.models.configurations import ConfigurationError

        if not isinstance(error, ConfigurationError):
            raise
        raise click.ClickException(str(error)) from error
