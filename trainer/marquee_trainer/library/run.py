"""A training run: `train` creates it, `evaluate` returns its metrics, `publish` publishes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.configurations import ConfigurationError, model_factories
from marquee_trainer.models.model import Model
from marquee_trainer.models.registry import MODELS_BY_NAME
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training import train as training
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.refit import refit_on_all_ratings
from marquee_trainer.training.results import TrainingResult


@dataclass(frozen=True)
class TrainingRun:
    """Trained models, with their data and configuration.

    Attributes:
        dataset: The ratings.
        split: Their training and test part.
        config: How the models were trained, blended and evaluated.
        trained: The models, their ensemble and their evaluation.
    """

    dataset: RatingsDataset
    split: Split
    config: TrainingConfig
    trained: TrainingResult


def train(
    dataset: RatingsDataset,
    split: Split,
    models: Sequence[str | Callable[[], Model]] = (),
    *,
    configurations: str = "",
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainingRun:
    """Trains models and their ensemble, and evaluates them on the test ratings.

    Args:
        dataset: The ratings.
        split: Their training and test part.
        models: The models to train: names such as `ease`, or functions that return a new, unfitted
            model. Empty for all models of the package.
        configurations: A file of hyperparameters that `marquee tune` wrote; empty for the file in
            the package that was tuned on data of about the same size, if there is one.
        seed: Seed for all randomness.
        progress: Callbacks that report progress; None for none.

    Raises:
        ConfigurationError: A model is unknown, or the file of hyperparameters is damaged.
        RatingsError: There are too few ratings, or they are implicit feedback and none of the
            models is a ranker.
    """
    factories = model_factories(len(split.train), configurations)
    by_name: dict[str, Callable[[], Model]] = dict(zip(MODELS_BY_NAME, factories, strict=True))
    chosen: list[Callable[[], Model]] = []
    for model in models or tuple(by_name):
        if isinstance(model, str) and model not in by_name:
            raise ConfigurationError(
                f"there is no model {model!r}; the models are {', '.join(by_name)}"
            )
        chosen.append(by_name[model] if isinstance(model, str) else model)
    config = TrainingConfig.for_dataset(dataset, seed)
    trained = training.train(dataset, split, chosen, config, progress or Progress())
    return TrainingRun(dataset, split, config, trained)


def evaluate(run: TrainingRun) -> pl.DataFrame:
    """Returns the metrics of each model, the baselines and the ensemble as a data frame.

    `train` has measured them on the test ratings, which no earlier step uses.

    Returns:
        A row for each model and columns such as `test_mse` and `ndcg@10`, which are null where they
        do not apply. The ensemble is last.
    """
    metrics = run.trained.evaluation.metrics
    names = [*(name for name in metrics if name != ENSEMBLE), ENSEMBLE]
    columns = dict.fromkeys(column for name in names for column in metrics[name])
    values = {column: [metrics[name].get(column) for name in names] for column in columns}
    return pl.DataFrame({"model": names, **values})


def publish(
    run: TrainingRun,
    store: str | ReleaseStore,
    *,
    promote: bool = True,
    refit: bool = True,
    progress: Progress | None = None,
) -> Manifest:
    """Publishes a release of the trained models and, by default, promotes it.

    The models are first refitted on all ratings, so that the release includes the test ratings.

    Args:
        run: The trained models.
        store: The release store: a folder, or a URL that fsspec supports.
        promote: Whether to put the release in production.
        refit: Whether to refit the models on all ratings; otherwise the release serves the models
            as they were evaluated.
        progress: Callbacks that report the progress; None for none.

    Returns:
        The release's manifest; `release_id` identifies it.

    Raises:
        StoreURLError: The store's URL cannot be used.
        ArrayError: A model's parameters are not finite.
        OSError: The store cannot be written to.
    """
    store = ReleaseStore(store) if isinstance(store, str) else store
    trained, progress = run.trained, progress or Progress()
    if refit and trained.refit is None:
        trained = refit_on_all_ratings(run.dataset, run.split, trained, run.config, progress)
    progress.on_step("publish", 0)
    manifest = publish_trained(
        store, run.dataset, run.split, trained, run.config, on_users=progress.on_users
    )
    if promote:
        store.promote(manifest.release_id)
    return manifest
