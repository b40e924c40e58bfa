"""Trains all models on a data set, learns the ensemble, and evaluates both.

Training has two rounds. In the first, a part of the training ratings is held out for validation,
and the models are fitted on the rest. The validation ratings choose the half-life of recent
popularity, the number of epochs, the hyperparameters of implicit-feedback models, and the
ensemble's blends. In the second round the models are refitted on all training ratings with these
choices. The test ratings are read only once, for the final evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.output import Output
from marquee_core.release.ensemble import Ensemble
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.split import Split
from marquee_trainer.ensemble.blends import RankingLists, learn_ensemble
from marquee_trainer.metrics.ranking_metrics import RankingTask
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.models.model import Fit, Model, Training, predict_pairs
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import evaluate
from marquee_trainer.training.preparation import (
    interactions_of,
    release_data,
    validation_split,
)
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.recency import choose_half_life
from marquee_trainer.training.results import Trained, ValidationPredictions


def train(
    dataset: RatingsDataset,
    split: Split,
    models: Sequence[Callable[[], Model]],
    config: TrainingConfig,
    progress: Progress,
) -> Trained:
    """Trains the models, learns their ensemble, and evaluates both on the test ratings.

    Args:
        dataset: The ratings.
        split: The training and test rows of the data set.
        models: Factories; each returns a new, unfitted model.
        config: The settings of the training run.
        progress: Callbacks that report progress.
    """
    inner = validation_split(dataset, split, config)
    half_life = choose_half_life(dataset, inner, config.relevant_stars, config.recency)

    inner_data = release_data(dataset, inner.train, config.baseline, half_life)
    validation = interactions_of(dataset, inner.test)
    fitted, fits = _fit_all(models, inner_data, validation, config, progress)
    progress.on_step("learn the ensemble", 0)
    ensemble, predictions = _learn_ensemble(inner_data, fitted, validation, config)

    data = release_data(dataset, split.train, config.baseline, half_life)
    refitted, seconds = _refit_all(fitted, data, config, progress)
    progress.on_step("evaluate", 0)
    evaluation = evaluate(
        data,
        refitted,
        ensemble,
        interactions_of(dataset, split.train),
        interactions_of(dataset, split.test),
        dataset.scale,
        config.relevant_stars,
    )
    return Trained(
        data,
        tuple(refitted),
        ensemble,
        evaluation,
        fits,
        ValidationPredictions(predictions, validation.ratings),
        seconds,
    )


def _fit_all(
    models: Sequence[Callable[[], Model]],
    data: ReleaseData,
    validation: Interactions,
    config: TrainingConfig,
    progress: Progress,
) -> tuple[list[Model], dict[str, Fit]]:
    """Fits each model; the validation ratings choose epochs and hyperparameters.

    Returns:
        The fitted models, and by model the course of its fit.
    """
    training = Training(data, validation, config.seed, progress.on_epoch, config.relevant_stars)
    fitted: list[Model] = []
    fits: dict[str, Fit] = {}
    for make_model in models:
        model = make_model()
        progress.on_step(f"fit {model.name}", model.max_epochs)
        fits[model.name] = model.fit(training)
        fitted.append(model)
    return fitted, fits


def _refit_all(
    fitted: Sequence[Model],
    data: ReleaseData,
    config: TrainingConfig,
    progress: Progress,
) -> tuple[list[Model], dict[str, float]]:
    """Refits each model on all training ratings, with the choices of its first fit.

    Returns:
        The models, and by model the time that its fit took, in seconds.
    """
    training = Training(data, None, config.seed, progress.on_epoch)
    refitted: list[Model] = []
    seconds: dict[str, float] = {}
    for fitted_model in fitted:
        model = fitted_model.for_refit()
        progress.on_step(f"refit {model.name}", model.max_epochs)
        start = time.perf_counter()
        model.fit(training)
        seconds[model.name] = time.perf_counter() - start
        refitted.append(model)
    return refitted, seconds


def _learn_ensemble(
    data: ReleaseData, models: Sequence[Model], validation: Interactions, config: TrainingConfig
) -> tuple[Ensemble, dict[str, Float32]]:
    """Learns the blends from the scores that models and baselines give to validation users.

    Returns:
        The ensemble, and by rating predictor its predictions of the validation ratings.
    """
    task = RankingTask.of(data.matrix, validation, config.relevant_stars)
    task = task.sample(config.blend.max_ranking_users, config.seed)
    profiles = data.matrix.profiles(task.users)
    candidates, relevant = task.lists(np.arange(len(task.users)))
    scores: dict[str, Float32] = {}
    predictions: dict[str, Float32] = {}
    all_models = (*fitted_baselines(data), *models)
    for model in all_models:
        scores[model.name] = model.scorer.score(profiles)
        if model.scorer.output is Output.STARS:
            predictions[model.name] = predict_pairs(
                model.scorer, data, validation.users, validation.items
            )
    backend_of = {model.name: model.backend for model in all_models}
    lists = RankingLists(scores, candidates, relevant)
    ensemble = learn_ensemble(backend_of, predictions, validation.ratings, lists, config.blend)
    return ensemble, predictions
