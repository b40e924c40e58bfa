"""Trains all models on a data set, learns the ensemble, and evaluates both.

The test ratings are looked at once, at the end. Epochs, configurations of models of likes and
blends are chosen on validation ratings cut from the training part, as the test part was cut: the
latest where those are. The models are then refitted on the whole training part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from marquee_core.arrays import Float32, Int64
from marquee_core.output import Output
from marquee_core.release.ensemble import Ensemble
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.split import Split, split_by
from marquee_trainer.ensemble.blends import BlendConfig, RankingLists, learn_ensemble
from marquee_trainer.metrics.ranking_metrics import RankingTask
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.models.model import Epoch, Fit, Model, Training, predict_pairs
from marquee_trainer.training.evaluate import Evaluation, evaluate
from marquee_trainer.training.recency import RecencyConfig, choose_half_life, recency_of


@dataclass(frozen=True)
class BaselineConfig:
    """The bias baseline.

    Attributes:
        user_damping: λ_u, in ratings.
        item_damping: λ_i, in ratings.
        sweeps: How often both biases are refitted.
    """

    user_damping: float = 5.0
    item_damping: float = 5.0
    sweeps: int = 10


@dataclass(frozen=True)
class TrainingConfig:
    """How a release is trained.

    Attributes:
        seed: Of all randomness.
        validation_fraction: Share of the training ratings that choose epochs, blends and the
            configurations of models of likes.
        latest_fraction: The same where they are the latest: those are of fewer users.
        relevant_stars: An item is relevant to a user who rated it at least so.
        baseline: The bias baseline.
        recency: For how long ratings count when popularity is that of late.
        blend: How blends are learned.
    """

    seed: int = 0
    validation_fraction: float = 0.1
    latest_fraction: float = 0.2
    relevant_stars: float = 4.0
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    recency: RecencyConfig = field(default_factory=RecencyConfig)
    blend: BlendConfig = field(default_factory=BlendConfig)

    def validation_share(self, kind: str) -> float:
        """Share of the training ratings that are for validation under one of `settings.SPLITS`."""
        is_latest = kind in ("temporal", "user-last")
        return self.latest_fraction if is_latest else self.validation_fraction


@dataclass(frozen=True)
class Trained:
    """What training made.

    Attributes:
        data: The training ratings and the baseline.
        models: The models, fitted on all training ratings.
        ensemble: The blends.
        evaluation: Metrics of each model, `baseline`, `popularity` and `ensemble`.
        fits: By model, how its fit with validation ratings went.
        validation: What the rating blend was learned from.
        seconds: By model, how long it took to fit it on all training ratings.
    """

    data: ReleaseData
    models: tuple[Model, ...]
    ensemble: Ensemble
    evaluation: Evaluation
    fits: Mapping[str, Fit]
    validation: ValidationPredictions
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class ValidationPredictions:
    """Predictions of validation ratings by models that were fitted without them.

    Attributes:
        by_model: Predictions of each model of stars (float32, n).
        ratings: The ratings (float32, n).
    """

    by_model: Mapping[str, Float32]
    ratings: Float32


@dataclass(frozen=True)
class Progress:
    """Hears how far training is.

    Attributes:
        on_step: Called with the name of each step as it begins, and at most how many epochs it
            has; 0 where it has none.
        on_epoch: Called after each epoch of the present step.
    """

    on_step: Callable[[str, int], None] = lambda _, __: None
    on_epoch: Callable[[Epoch], None] = lambda _: None


def train(
    dataset: RatingsDataset,
    split: Split,
    models: Sequence[Callable[[], Model]],
    config: TrainingConfig,
    progress: Progress,
) -> Trained:
    """Trains, blends and evaluates.

    Args:
        dataset: The ratings.
        split: Which of them are for training and which for the test.
        models: Makes each model, unfitted.
        config: How.
        progress: Hears how far it is.
    """
    inner = validation_split(dataset, split, config)
    half_life = choose_half_life(dataset, inner, config.relevant_stars, config.recency)
    validation = interactions_of(dataset, inner.test)
    part = release_data(dataset, inner.train, config.baseline, half_life)
    fitted: list[tuple[Model, Fit]] = []
    for make in models:
        model = make()
        progress.on_step(f"fit {model.name}", model.max_epochs)
        fit = model.fit(
            Training(part, validation, config.seed, progress.on_epoch, config.relevant_stars)
        )
        fitted.append((model, fit))
    progress.on_step("learn the ensemble", 0)
    ensemble, predictions = _learn_ensemble(
        part, [model for model, _ in fitted], validation, config
    )
    whole = release_data(dataset, split.train, config.baseline, half_life)
    refitted: list[Model] = []
    seconds: dict[str, float] = {}
    for model, fit in fitted:
        again = model.with_epochs(fit.epochs)
        progress.on_step(f"refit {model.name}", again.max_epochs)
        began = time.perf_counter()
        again.fit(Training(whole, None, config.seed, progress.on_epoch))
        seconds[model.name] = time.perf_counter() - began
        refitted.append(again)
    progress.on_step("evaluate", 0)
    evaluation = evaluate(
        whole,
        refitted,
        ensemble,
        interactions_of(dataset, split.train),
        interactions_of(dataset, split.test),
        dataset.scale,
        config.relevant_stars,
    )
    return Trained(
        whole,
        tuple(refitted),
        ensemble,
        evaluation,
        {model.name: fit for model, fit in fitted},
        ValidationPredictions(predictions, validation.ratings),
        seconds,
    )


def validation_split(dataset: RatingsDataset, split: Split, config: TrainingConfig) -> Split:
    """Cuts the validation part from the training part, as the test part was cut."""
    share = config.validation_share(split.kind)
    return split_by(split.kind, dataset, split.train, share, config.seed)


def interactions_of(dataset: RatingsDataset, rows: Int64) -> Interactions:
    """The ratings of some rows."""
    return Interactions(dataset.users[rows], dataset.items[rows], dataset.ratings[rows])


def release_data(
    dataset: RatingsDataset,
    rows: Int64,
    config: BaselineConfig,
    half_life_days: float | None = None,
) -> ReleaseData:
    """The ratings matrix of some rows, the baseline fitted on it, and what was rated of late.

    Args:
        dataset: The ratings.
        rows: Those of its rows to take (int64, n).
        config: The baseline.
        half_life_days: Of recent popularity; None for none.
    """
    matrix = dataset.matrix(rows)
    baseline = Baseline.fit(matrix, config.user_damping, config.item_damping, config.sweeps)
    recency = None if half_life_days is None else recency_of(dataset, rows, half_life_days)
    return ReleaseData(matrix, baseline, recency)


def _learn_ensemble(
    data: ReleaseData, models: Sequence[Model], validation: Interactions, config: TrainingConfig
) -> tuple[Ensemble, dict[str, Float32]]:
    """Learns the blends from the models' scores of validation ratings and of whole lists.

    Returns:
        The blends, and by model of stars its predictions of the validation ratings.
    """
    task = RankingTask.of(data.matrix, validation, config.relevant_stars)
    task = task.sample(config.blend.ranking_users, config.seed)
    profiles = data.matrix.profiles(task.users)
    candidates, relevant = task.lists(np.arange(len(task.users)))
    scores: dict[str, Float32] = {}
    predictions: dict[str, Float32] = {}
    every = (*fitted_baselines(data), *models)
    for model in every:
        scores[model.name] = model.scorer.score(profiles)
        if model.scorer.output is Output.STARS:
            predictions[model.name] = predict_pairs(
                model.scorer, data, validation.users, validation.items
            )
    backend_of = {model.name: model.backend for model in every}
    lists = RankingLists(scores, candidates, relevant)
    ensemble = learn_ensemble(backend_of, predictions, validation.ratings, lists, config.blend)
    return ensemble, predictions
