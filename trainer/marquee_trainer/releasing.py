"""From ratings to a release in a store."""

from __future__ import annotations

import os
from dataclasses import asdict

# Before TensorFlow is imported: its messages are not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from marquee_services.release.manifest import DataEntry, Manifest
from marquee_services.release.store import ReleaseStore
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.split import (
    Split,
    last_split_per_user,
    random_split,
    random_split_per_user,
    temporal_split,
)
from marquee_trainer.evaluation.evaluate import ENSEMBLE
from marquee_trainer.models.registry import MODELS
from marquee_trainer.publishing import publish_release
from marquee_trainer.report import ProgressBar
from marquee_trainer.retrieval import AUTO, RetrievalConfig
from marquee_trainer.settings import DataSettings
from marquee_trainer.training import Trained, TrainingConfig, train

# Each model is fitted twice; blending and evaluating are a step each.
_STEPS = 2 * len(MODELS) + 2


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
    dataset, rows, share = loaded.dataset, loaded.dataset.file_order, settings.test_fraction
    splits = {
        "random": lambda: random_split(rows, share, settings.seed),
        "temporal": lambda: temporal_split(dataset, rows, share),
        "user-random": lambda: random_split_per_user(dataset, rows, share, settings.seed),
        "user-last": lambda: last_split_per_user(dataset, rows, share),
    }
    return dataset, splits[settings.split]()


def train_all(dataset: RatingsDataset, split: Split, seed: int) -> Trained:
    """Trains all models with their default configurations, and shows the progress."""
    with ProgressBar(_STEPS) as bar:
        return train(dataset, split, MODELS, TrainingConfig(seed=seed), bar.progress())


def publish(
    store: ReleaseStore,
    dataset: RatingsDataset,
    split: Split,
    trained: Trained,
    settings: DataSettings,
    retrieval: str = AUTO,
) -> Manifest:
    """Publishes what was trained; it is not promoted.

    Args:
        store: The store.
        dataset: The ratings.
        split: How they were split.
        trained: What was trained on them.
        settings: What was asked for.
        retrieval: One of `KINDS`.
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
    )
