"""From ratings to a release in a store."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

import click
from tqdm import tqdm

# Before TensorFlow is imported: its messages are not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from marquee_services.release.manifest import DataEntry, Manifest
from marquee_services.release.store import ReleaseStore
from marquee_trainer.configurations import models_for, packaged, read_parameters
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.split import Split, split_by
from marquee_trainer.evaluation.evaluate import ENSEMBLE
from marquee_trainer.first_pages import FirstPagesConfig
from marquee_trainer.publishing import publish_release
from marquee_trainer.report import ProgressBar
from marquee_trainer.retrieval import AUTO, RetrievalConfig
from marquee_trainer.search_spaces import SPACES
from marquee_trainer.settings import DataSettings, TuneSettings
from marquee_trainer.training import Trained, TrainingConfig, train
from marquee_trainer.tuning import Trial, tune, write_configurations


def load_and_split(settings: DataSettings) -> tuple[RatingsDataset, Split]:
    """Loads the ratings that the settings name, and splits them.

    Raises:
        RatingsError: The ratings cannot be read.
    """
    loaded = load_ratings(
        settings.data,
        manual_dir=settings.manual_dir or None,
        train_file=settings.train_file or None,
        test_file=settings.test_file or None,
        seed=settings.seed,
    )
    if loaded.split is not None:
        return loaded.dataset, loaded.split
    rows, share = loaded.dataset.file_order, settings.test_fraction
    split = split_by(settings.split, loaded.dataset, rows, share, settings.seed)
    return loaded.dataset, split


def train_all(dataset: RatingsDataset, split: Split, seed: int, config: str = "") -> Trained:
    """Trains all models with their tuned configurations, and shows the progress.

    Args:
        dataset: The ratings.
        split: Training and test part.
        seed: Of all randomness.
        config: A file of `marquee tune`; empty for the package's for data of that size.

    Raises:
        ConfigurationError: The file is not one of `marquee tune`.
    """
    models = models_for(len(split.train), config)
    with ProgressBar() as bar:
        return train(dataset, split, models, TrainingConfig(seed=seed), bar.progress())


def tune_models(settings: TuneSettings) -> None:
    """Searches configurations, tells of each trial and writes the best.

    Raises:
        RatingsError: The ratings cannot be read.
        ConfigurationError: A model is unknown, or the file to add to is damaged.
    """
    dataset, split = load_and_split(settings)
    out = Path(settings.out)
    known = out if out.exists() else packaged(len(split.train))
    start = read_parameters(known) if known else {}
    names = [name.strip() for name in settings.models.split(",") if name.strip()] or list(SPACES)
    with tqdm(disable=not sys.stderr.isatty(), unit="trial", leave=False) as bar:

        def on_trial(name: str, trial: Trial) -> None:
            bar.update()
            shown = ", ".join(f"{key} {value:g}" for key, value in trial.parameters.items())
            click.echo(f"{name} {trial.loss:.4f} in {trial.seconds:.1f} s: {shown}")

        searches = tune(dataset, split, names, settings.minutes, settings.seed, start, on_trial)
    write_configurations(out, dataset, split, searches, settings.seed)
    for search in searches:
        first, best = search.trials[0].loss, search.best.loss
        click.echo(f"{search.model}: {first:.4f} → {best:.4f} in {len(search.trials)} trials")


def publish(
    store: ReleaseStore,
    dataset: RatingsDataset,
    split: Split,
    trained: Trained,
    settings: DataSettings,
    retrieval: str = AUTO,
    first_pages: FirstPagesConfig | None = None,
) -> Manifest:
    """Publishes what was trained; it is not promoted.

    Args:
        store: The store.
        dataset: The ratings.
        split: How they were split.
        trained: What was trained on them.
        settings: What was asked for.
        retrieval: One of `KINDS`.
        first_pages: Whose first pages it holds; None for the default.
    """
    matrix = trained.data.matrix
    data = DataEntry(
        source=dataset.source,
        fingerprint=dataset.fingerprint(split.train),
        user_count=matrix.user_count,
        item_count=matrix.item_count,
        rating_count=matrix.rating_count,
        rating_min=dataset.scale.low,
        rating_max=dataset.scale.high,
        genres=dataset.catalogue.genres,
    )
    evaluation = {
        "split": split.description,
        "seed": settings.seed,
        "test_ratings": len(split.test),
        "ranked_users": trained.evaluation.ranked_users,
        "training": asdict(TrainingConfig(seed=settings.seed)),
        "ensemble_metrics": trained.evaluation.metrics[ENSEMBLE],
    }
    return publish_release(
        store,
        data,
        dataset.user_ids,
        dataset.catalogue,
        trained.data,
        trained.models,
        trained.ensemble,
        trained.evaluation.metrics,
        evaluation,
        RetrievalConfig(retrieval),
        settings.seed,
        first_pages,
    )
