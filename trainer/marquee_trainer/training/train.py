"""Trains all models on a data set, learns the ensemble, and evaluates both.

Training has two rounds. In the first round, part of the training ratings is held out for
validation, and the models are fitted on the rest. The validation ratings determine the half-life of
recent popularity, the numbers of epochs, the hyperparameters of implicit-feedback models and the
ensemble's blends. In the second round the models are refitted on all training ratings with these
choices. The test ratings are used only once, for the final evaluation.

Implicit feedback, such as plays or purchases, has no ratings to predict, so only rankers are
trained, and they are evaluated by ranking metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from marquee_core.output import Output
from marquee_core.release.ensemble import Ensemble
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.scale import Feedback
from marquee_trainer.data.split import Split
from marquee_trainer.ensemble.blends import learn_ensemble
from marquee_trainer.ensemble.candidate_lists import collect_lists
from marquee_trainer.metrics.ranking_metrics import RankingTask
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.models.model import Fit, Model, Training, can_learn_from, predict_pairs
from marquee_trainer.threads import blas_threads
from marquee_trainer.training.budget import Budget
from marquee_trainer.training.checkpoints import Checkpoints, fit_or_resume
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import evaluate
from marquee_trainer.training.plan import TrainingPlan
from marquee_trainer.training.preparation import check_sizes, interactions_of
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.refit import refit_models
from marquee_trainer.training.results import TrainingResult, ValidationPredictions
from marquee_trainer.training.sampling import rows_of_users, scored_users, take


@blas_threads(1)
def train(
    dataset: RatingsDataset,
    split: Split,
    models: Sequence[Callable[[], Model]],
    config: TrainingConfig,
    progress: Progress,
    budget: Budget | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Trains the models, learns their ensemble, and evaluates both on the test ratings.

    Args:
        dataset: The ratings.
        split: The training and test rows of the data set.
        models: Factories; each returns a new, unfitted model.
        config: The settings of the training run.
        progress: Callbacks that report progress.
        budget: Limits the training time by skipping models or reducing their epochs; None for no
            limit.
        checkpoints: Saves fits and restores those of an earlier run; None for neither.

    Raises:
        RatingsError: There are too few ratings to fit, validate and test models, or the feedback
            is implicit and none of the models is a ranker.
    """
    dataset = dataset.of_modelled_items()
    plan = TrainingPlan(dataset, split, config)
    check_sizes(dataset, split, plan.validation_split)
    rankers_only = dataset.feedback is Feedback.IMPLICIT
    candidates = [
        model
        for model in (make_model() for make_model in models)
        if can_learn_from(model.output, dataset.feedback)
    ]
    if models and not candidates:
        raise RatingsError(
            f"{dataset.source}: the ratings are implicit feedback, which only rankers can learn "
            "from, and none of the selected models is a ranker"
        )
    training, validation = replace(plan.training, on_epoch=progress.on_epoch), plan.validation
    inner_data = training.data
    fitted, fits = _fit_all(candidates, training, progress, budget, checkpoints)
    progress.on_step("learn the ensemble", 0)
    all_models = (*fitted_baselines(inner_data, rankers_only), *fitted)
    ensemble, blended = learn_ensemble_of(inner_data, all_models, validation, config)

    data = plan.refit_data
    refitted, seconds = refit_models(fitted, data, config.seed, progress, checkpoints=checkpoints)
    progress.on_step("evaluate", 0)
    evaluation = evaluate(
        data,
        refitted,
        ensemble,
        interactions_of(dataset, split.train),
        interactions_of(dataset, split.test),
        dataset.scale,
        config.relevant_stars,
        rankers_only,
        config.seed,
    )
    return TrainingResult(
        data,
        tuple(refitted),
        ensemble,
        evaluation,
        fits,
        blended,
        seconds,
    )


def _fit_all(
    models: Sequence[Model],
    training: Training,
    progress: Progress,
    budget: Budget | None,
    checkpoints: Checkpoints | None,
) -> tuple[list[Model], dict[str, Fit]]:
    """Fits each model, choosing epochs and hyperparameters on the validation ratings.

    Returns:
        The fitted models in their original order, without those that the budget skips; and the
        course of each model's fit.
    """
    fits: dict[str, Fit] = {}
    fitted: dict[str, Model] = {}
    names = [model.name for model in models]
    for candidate in models if budget is None else budget.order(models):
        model = candidate if budget is None else budget.admit(candidate, training.data.matrix)
        if model is None:
            continue
        progress.on_step(f"fit {model.name}", model.max_epochs)
        fits[model.name], seconds = fit_or_resume(checkpoints, "fit", model, training)
        fitted[model.name] = model
        if budget is not None:
            budget.record(model, training.data.matrix, seconds)
    return [fitted[name] for name in names if name in fitted], fits


def learn_ensemble_of(
    data: ReleaseData, models: Sequence[Model], validation: Interactions, config: TrainingConfig
) -> tuple[Ensemble, ValidationPredictions]:
    """Learns the blends from the scores of models and baselines for validation users.

    On a large data set, they are learned from a random sample of the users.

    Args:
        data: The ratings that the models were fitted on.
        models: The fitted models and baselines.
        validation: The validation ratings.
        config: How blends are learned, and which ratings are relevant.

    Returns:
        The ensemble, and the predictions from which its rating blend was learned.
    """
    task = RankingTask.of(data.matrix, validation, config.relevant_stars)
    task = task.sample(config.blend.max_ranking_users, config.seed)
    lists = collect_lists(
        task, {model.name: model.scorer for model in models}, config.blend, config.seed
    )
    users = scored_users(
        np.unique(validation.users), data.matrix.item_count, data.matrix.rating_count, config.seed
    )
    known = take(validation, rows_of_users(validation, users))
    predictions = {
        model.name: predict_pairs(model.scorer, data, known.users, known.items)
        for model in models
        if model.scorer.output is Output.STARS
    }
    backend_of = {model.name: model.backend for model in models}
    ensemble = learn_ensemble(backend_of, predictions, known.ratings, lists, config.blend)
    return ensemble, ValidationPredictions(predictions, known.ratings)
