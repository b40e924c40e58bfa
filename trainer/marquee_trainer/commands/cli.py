"""Defines the commands; light to import, so that `marquee --help` is quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import click

from marquee_core.cores import limit_library_threads
from marquee_core.redaction import redact
from marquee_services.server.options import settings_options
from marquee_start import ended_by_interrupt
from marquee_trainer.commands.interrupt import GRACE_S, InterruptHandler
from marquee_trainer.commands.settings import (
    DataCheckSettings,
    DemoSettings,
    EvaluateSettings,
    RetrainSettings,
    TrainSettings,
    TuneSettings,
)


@click.command()
@settings_options(TrainSettings, "MARQUEE_TRAIN")
def train(settings: TrainSettings) -> None:
    """Train all models, evaluate them and publish a release."""
    _run(lambda: _train(settings), "No release was published.")


@click.command()
@settings_options(RetrainSettings, "MARQUEE_TRAIN")
def retrain(settings: RetrainSettings) -> None:
    """Train, gate, promote and prune at regular intervals.

    Accepts the options and variables of `marquee train`. A failed round is reported and does not
    stop later rounds. With --once the exit code is that of the round: 0 if the release was
    promoted, 3 if the gate refused it, 4 if it requires approval. SIGTERM ends the command.
    """
    if settings.once:
        once = replace(settings, promote=True, gate=True)
        _run(lambda: _train(once, settings.keep), "No release was published.")
        return
    from marquee_trainer.commands.retrain import run_rounds

    run_rounds(settings)


@click.command()
@settings_options(DemoSettings, "MARQUEE_DEMO")
def demo(settings: DemoSettings) -> None:
    """Train, publish, serve and recommend, end to end; then stop."""

    def run() -> None:
        if settings.live:
            from marquee_trainer.commands.live_demo import run_live_demo

            run_live_demo(settings)
            return
        from marquee_trainer.commands.demo import run_demo

        run_demo(settings)

    # During training the demo ends promptly; afterwards it stops its services first.
    _run(run, grace_s=None)


@click.command()
@settings_options(EvaluateSettings, "MARQUEE_EVALUATE")
def evaluate(settings: EvaluateSettings) -> None:
    """Train all models and the ensemble, and report their metrics on held-out ratings."""

    def run() -> None:
        _announce(settings.data)
        from marquee_trainer.commands.evaluate import run_evaluation

        run_evaluation(settings)

    _run(run, "No report was written.")


@click.command()
@settings_options(TuneSettings, "MARQUEE_TUNE")
def tune(settings: TuneSettings) -> None:
    """Search hyperparameters on validation ratings, within a time budget."""

    def run() -> None:
        _announce(settings.data)
        from marquee_trainer.commands.tune import tune_models

        tune_models(settings)

    _run(run, "The best configurations found so far are kept.")


@click.group()
def data() -> None:
    """Inspect ratings before training on them."""


@data.command()
@click.argument("path")
@settings_options(DataCheckSettings, "MARQUEE_DATA")
def check(settings: DataCheckSettings, path: str) -> None:
    """Show how ratings are interpreted: columns, scale, counts and anything unusual.

    PATH is a source of ratings as for `marquee train --data`. Nothing is trained.
    """

    def run() -> None:
        _announce(path)
        from marquee_trainer.commands.data_check import run_check

        run_check(path, settings)

    _run(run)


def _announce(source: str) -> None:
    """Reports that loading has begun: importing libraries and reading ratings take seconds."""
    click.echo(f"  loading ratings from {redact(source)}", err=True)


def _train(settings: TrainSettings, keep: int = 0) -> None:
    """Trains under the store's trainer lease, then deletes releases that are no longer needed.

    Args:
        settings: The settings.
        keep: Number of newest releases to keep; 0 deletes none.
    """
    from marquee_trainer.commands.trainer_lease import hold_trainer_lease

    with hold_trainer_lease(settings.store) as lease:
        _announce(settings.data)
        # These import TensorFlow, which takes seconds; a second trainer is refused before that.
        from marquee_trainer.commands.retrain import prune_releases
        from marquee_trainer.commands.train import run_training

        try:
            run_training(settings, lease)
        except click.exceptions.Exit:
            # Releases that the gate refuses must not fill the store either.
            prune_releases(settings.store, keep)
            raise
        prune_releases(settings.store, keep)


def _run(command: Callable[[], None], outcome: str = "", grace_s: float | None = GRACE_S) -> None:
    """Runs a command; reports an expected error or an interrupt in one line.

    Any other error is a bug, so its traceback is shown.

    Args:
        command: The command.
        outcome: What an interrupted command reports about the state it leaves behind.
        grace_s: Seconds within which the command ends after Ctrl-C or SIGTERM; None to wait until
            it has stopped everything that it started.

    Raises:
        ClickException: The input, the configuration or a file is at fault.
        Exit: The command was interrupted; the exit code is 130.
    """
    limit_library_threads()
    with ended_by_interrupt():
        from marquee_core.errors import ArtifactError
        from marquee_core.tasks.task import TaskError
        from marquee_trainer.data.errors import RatingsError

    with InterruptHandler(outcome, grace_s) as interrupt:
        try:
            command()
        # A library may raise its own error in response to an interrupt.
        except BaseException as error:
            if interrupt.was_interrupted or isinstance(error, KeyboardInterrupt):
                interrupt.report()
                raise interrupt.exit() from None
            if isinstance(error, ArtifactError | OSError | RatingsError | TaskError):
                raise click.ClickException(str(error)) from error
            if isinstance(error, RuntimeError) and _is_configuration_error(error):
                raise click.ClickException(str(error)) from error
            raise


def _is_configuration_error(error: RuntimeError) -> bool:
    # Imported here because it imports TensorFlow, which takes seconds.
    from marquee_trainer.models.configurations import ConfigurationError

    return isinstance(error, ConfigurationError)
