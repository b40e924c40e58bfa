"""From ratings to a release in a store."""

from __future__ import annotations

import os
from dataclasses import asdict

# Before TensorFlow is imported: its messages are not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from marquee_core.release.manifest import DataEntry, Manifest
from marquee_core.release.store import ReleaseStore
from marquee_trainer.commands.progress import ProgressBar
from marquee_trainer.commands.settings import DataSettings
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.split import Split, split_by
from marquee_trainer.models.configurations import models_for
from marquee_trainer.publishing.config import PrecomputeConfig
from marquee_trainer.publishing.release import publish_release
from marquee_trainer.publishing.retrieval import AUTO, RetrievalConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.train import Trained, TrainingConfig, train


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


def publish(
    store: ReleaseStore,
    dataset: RatingsDataset,
    split: Split,
    trained: Trained,
    settings: DataSettings,
    retrieval: str = AUTO,
    first_pages: PrecomputeConfig | None = None,
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
