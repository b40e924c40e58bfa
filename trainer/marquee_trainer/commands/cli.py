"""`marquee train`, `tune` and `demo`; light to import, so that `marquee --help` is quick."""

from __future__ import annotations

from collections.abc import Callable

import click

from marquee_services.server.settings import settings_options
from marquee_trainer.commands.settings import (
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
        from marquee_core.release.store import ReleaseStore
        from marquee_trainer.commands import train as releasing
        from marquee_trainer.commands.progress import metrics_table
        from marquee_trainer.publishing.config import PrecomputeConfig

        store = ReleaseStore(settings.store)
        dataset, split = releasing.load_and_split(settings)
        trained = releasing.train_all(dataset, split, settings.seed, settings.config)
        click.echo(metrics_table(trained.evaluation))
        pages = PrecomputeConfig(settings.first_pages)
        manifest = releasing.publish(
            store, dataset, split, trained, settings, settings.retrieval, pages
        )
        click.echo(f"published {manifest.release_id}")
        if settings.promote:
            store.promote(manifest.release_id)
            click.echo("promoted")

    _guarded(run)


@click.command()
@settings_options(DemoSettings, "MARQUEE_DEMO")
def demo(settings: DemoSettings) -> None:
    """Train, publish, serve and recommend, end to end; then stop."""

    def run() -> None:
        from marquee_trainer.commands.demo import run_demo

        run_demo(settings)

    _guarded(run)


@click.command()
@settings_options(EvaluateSettings, "MARQUEE_EVALUATE")
def evaluate(settings: EvaluateSettings) -> None:
    """Train all models and the ensemble, and report how good they are."""

    def run() -> None:
        from marquee_trainer.commands.evaluate import run_evaluation

        run_evaluation(settings)

    _guarded(run)


@click.command()
@settings_options(TuneSettings, "MARQUEE_TUNE")
def tune(settings: TuneSettings) -> None:
    """Search configurations on validation ratings, within a time."""

    def run() -> None:
        from marquee_trainer.commands.tune import tune_models

        tune_models(settings)

    _guarded(run)


def _guarded(run: Callable[[], None]) -> None:
    """Tells foreseen errors in a line."""
    from marquee_trainer.data.dataset import RatingsError

    try:
        run()
    except (RatingsError, RuntimeError, OSError) as error:
        raise click.ClickException(str(error)) from error
