"""Refits models on more ratings, with the choices of their earlier fits.

The first fit of a model chooses hyperparameters and the number of epochs on validation ratings. A
refit keeps those choices, so it can use the validation ratings for fitting too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.model import Model, Training
from marquee_trainer.threads import blas_threads
from marquee_trainer.training.checkpoints import Checkpoints, fit_or_resume
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import all_rows, release_data
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.results import Refit, TrainingResult


def refit_on_all_ratings(
    dataset: RatingsDataset,
    split: Split,
    trained: TrainingResult,
    config: TrainingConfig,
    progress: Progress,
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Refits evaluated models on all ratings, test ratings included, for a release to serve.

    Without the refit, a release would recommend items that users have already rated, and would not
    know users whose ratings are all in the test part. Epochs, hyperparameters, the half-life of
    recent popularity and the ensemble's blends stay those that were evaluated.

    Args:
        dataset: The ratings.
        split: The training and test rows that the models were evaluated on.
        trained: The result of `train`.
        config: The configuration of the training.
        progress: Callbacks that report progress.
        checkpoints: Saves fits and restores those of an earlier run; None for neither.

    Returns:
        `trained` with its `refit`.
    """
    dataset = dataset.of_modelled_items()
    recency = trained.data.recency
    half_life = None if recency is None else recency.half_life_days
    data = release_data(dataset, all_rows(split), config.baseline, half_life)
    models, seconds = refit_models(
        trained.models, data, config.seed, progress, "fit on all: {}", checkpoints
    )
    return replace(trained, refit=Refit(data, tuple(models), seconds))


@blas_threads(1)
def refit_models(
    fitted: Sequence[Model],
    data: ReleaseData,
    seed: int,
    progress: Progress,
    step: str = "refit {}",
    checkpoints: Checkpoints | None = None,
) -> tuple[list[Model], dict[str, float]]:
    """Refits each model with the choices of its earlier fit.

    Args:
        fitted: The fitted models.
        data: The ratings to fit on.
        seed: Seed for all randomness.
        progress: Callbacks that report progress.
        step: The name of a step; `{}` stands for the model.
        checkpoints: Saves fits and restores those of an earlier run; None for neither.

    Returns:
        The models, and the duration of each model's fit, in seconds.
    """
    training = Training(data, None, seed, progress.on_epoch)
    refitted: list[Model] = []
    seconds: dict[str, float] = {}
    for fitted_model in fitted:
        model = fitted_model.for_refit()
        progress.on_step(step.format(model.name), model.max_epochs)
        stage = step.format("").strip(" :")
        _, seconds[model.name] = fit_or_resume(checkpoints, stage, model, training)
        refitted.append(model)
    return refitted, seconds
