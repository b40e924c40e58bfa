"""Definitions of the commands; light to import, so that `marquee --help` is quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import click

from marquee_core.cores import limit_library_threads
from marquee_core.redaction import redact
from marquee_services.server.options import settings_options
from marquee_start import ended_by_interrupt
from marquee_trainer.commands.interrupt import GRACE_S, PromptInterrupt
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
    """Train, gate, promote and prune, again and again.

    Takes the options and variables of `marquee train`. A round that fails is reported, and the next
    one is done all the same. With --once the exit code is that of the round: 0 if the release was
    promoted, 3 if the gate refused it, 4 if it asks for approval. SIGTERM ends the command.
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

    # While it trains, the demo ends promptly; later it first stops its services.
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
    """Look at ratings before training on them."""


@data.command()
@click.argument("path")
@settings_options(DataCheckSettings, "MARQUEE_DATA")
def check(settings: DataCheckSettings, path: str) -> None:
    """Show how ratings are understood: columns, scale, counts and oddities.

    PATH is a source of ratings as for `marquee train --data`. Nothing is trained.
    """

    def run() -> None:
        _announce(path)
        from marquee_trainer.commands.data_check import run_check

        run_check(path, settings)

    _run(run)


def _announce(source: str) -> None:
    """Says what a command begins with: importing libraries and loading ratings take seconds."""
    click.echo(f"  loading ratings of {redact(source)}", err=True)


def _train(settings: TrainSettings, keep: int = 0) -> None:
    """Trains as the store's only trainer, and then deletes releases that nobody needs.

    Args:
        settings: The settings.
        keep: How many of the newest releases to keep; 0 deletes none.
    """
    from marquee_trainer.commands.exclusive import only_trainer

    with only_trainer(settings.store) as lease:
        _announce(settings.data)
        # These bring TensorFlow, which takes seconds; a second trainer is told before.
        from marquee_trainer.commands.retrain import prune_releases
        from marquee_trainer.commands.train import run_training

        try:
            run_training(settings, lease)
        except click.exceptions.Exit:
            # Refused releases must not fill the store either.
            prune_releases(settings.store, keep)
            raise
        prune_releases(settings.store, keep)


def _run(command: Callable[[], None], outcome: str = "", grace_s: float | None = GRACE_S) -> None:
    """Runs a command, and reports an expected error or an interrupt in one line.

    Any other error is a defect, and its traceback is shown.

    Args:
        command: The command.
        outcome: What to say about the state that an interrupted command leaves.
        grace_s: Seconds within which the command ends after Ctrl-C or SIGTERM; None for as long
            as it needs to stop what it started.

    Raises:
        ClickException: The input, the configuration or a file is at fault.
        Exit: The command was interrupted; the exit code is 130.
    """
    limit_library_threads()
    with ended_by_interrupt():
        from marquee_core.errors import ArtifactError
        from marquee_trainer.data.errors import RatingsError

    with PromptInterrupt(outcome, grace_s) as interrupt:
        try:
            command()
        # A library may answer an interrupt with an error of its own.
        except BaseException as error:
            if interrupt.was_interrupted or isinstance(error, KeyboardInterrupt):
                interrupt.report()
                raise interrupt.exit() from None
            if isinstance(error, ArtifactError | OSError | RatingsError):
                raise click.ClickException(str(error)) from error
            if isinstance(error, RuntimeError) and _is_configuration_error(error):
                raise click.ClickException(str(error)) from error
            raise


def _is_configuration_error(error: RuntimeError) -> bool:
    # Not imported at the top: it brings TensorFlow, which takes seconds.
    from marquee_trainer.models.configurations import ConfigurationError

    return isinstance(error, ConfigurationError)
