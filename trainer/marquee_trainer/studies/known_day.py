"""How much better predictions are when the day of the rating is known.

No forecast knows it: a user's other ratings of the same day tell of the user's mood. So this is
for the report, beside published figures that make use of it, and nothing of it is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from marquee_core.arrays import Float32, Float64, Int64
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.ensemble.blends import learn_rating_blend
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.bayesian.gibbs import GibbsSampler
from marquee_trainer.models.bayesian.random_effect import RandomEffect
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.train import (
    Progress,
    Trained,
    TrainingConfig,
    release_data,
    validation_split,
)

_DAY_S = 86_400
_MODEL = f"{BayesianMF.name}_with_day"


@dataclass(frozen=True)
class KnownDayConfig:
    """Bayesian MF with effects of days.

    Attributes:
        chain: The sampler, as that of `BayesianMF`.
        item_period_days: An item has an effect of its own in each period so long.
    """

    chain: BayesianMFConfig = field(default_factory=BayesianMFConfig)
    item_period_days: int = 30


@dataclass(frozen=True)
class KnownDay:
    """What is gained.

    Attributes:
        metrics: `test_mse`, `test_rmse` and `test_mae` of Bayesian MF and of the ensemble that has
            it beside its other models.
        predictions: That ensemble's, of the test ratings, not clipped (float32, n).
    """

    metrics: Mapping[str, Mapping[str, float]]
    predictions: Float32


def know_day(
    dataset: RatingsDataset,
    split: Split,
    trained: Trained,
    training: TrainingConfig,
    config: KnownDayConfig,
    progress: Progress,
) -> KnownDay:
    """Fits Bayesian MF with effects of days, and blends it with what was trained.

    The blend is learned on the validation ratings that the ensemble's was learned on.

    Args:
        dataset: The ratings.
        split: As in training.
        trained: What was trained.
        training: How.
        config: The effects.
        progress: Hears how far it is.
    """
    progress.on_step(f"fit {_MODEL}", 0)
    inner = validation_split(dataset, split, training)
    part = release_data(dataset, inner.train, training.baseline)
    held_out = predict_with_day(dataset, inner.train, inner.test, part, config, training.seed)
    progress.on_step(f"refit {_MODEL}", 0)
    found = predict_with_day(dataset, split.train, split.test, trained.data, config, training.seed)
    validation = trained.validation
    blend = learn_rating_blend(
        {**validation.by_model, _MODEL: held_out},
        validation.ratings,
        training.blend.rating_ridge,
    )
    blended = blend.apply({**trained.evaluation.predictions, _MODEL: found}).astype(np.float32)
    metrics = {}
    for name, predictions in ((BayesianMF.name, found), (ENSEMBLE, blended)):
        errors = rating_metrics(predictions, dataset.ratings[split.test], dataset.scale)
        metrics[name] = {
            "test_mse": errors.mse,
            "test_rmse": errors.rmse,
            "test_mae": errors.mae,
        }
    return KnownDay(metrics, blended)


def predict_with_day(
    dataset: RatingsDataset,
    rows: Int64,
    wanted: Int64,
    data: ReleaseData,
    config: KnownDayConfig,
    seed: int,
) -> Float32:
    """Predicts ratings of known days: the mean over samples of μ + x_u · y_i + d_ut + e_is.

    d_ut is an effect of user u on day t, e_is one of item i in period s: the drift of users and
    items of timeSVD++ (Koren, 2009), as random effects of Bayesian MF.

    Args:
        dataset: The ratings.
        rows: Those of its rows to learn from, ascending (int64, n).
        wanted: Those to predict (int64, m).
        data: The matrix of `rows`, with its baseline.
        config: The sampler and the effects.
        seed: Of all randomness.

    Returns:
        Predictions, not clipped (float32, m).
    """
    chain_config, matrix = config.chain, data.matrix
    chain = GibbsSampler(
        matrix,
        data.baseline.mean,
        chain_config.rank,
        (chain_config.user_noise_shape, chain_config.item_noise_shape),
        chain_config.max_linked,
        seed,
    )
    both = np.concatenate([rows, wanted])
    days = (dataset.timestamps[both] - dataset.timestamps[rows].min()) // _DAY_S
    # Not the chain's own stream, which begins with the seed alone.
    random = np.random.default_rng((seed, 1))
    effects: list[tuple[RandomEffect, Int64]] = []
    for owners, periods in (
        (dataset.users[both], days),
        (dataset.items[both], days // config.item_period_days),
    ):
        cells, count = _cells(owners.astype(np.int64), periods)
        effects.append((RandomEffect(cells[: len(rows)], count, random), cells[len(rows) :]))
    users, items = dataset.users[wanted], dataset.items[wanted]
    total: Float64 = np.zeros(len(wanted))
    samples = 0
    for sweep in range(chain_config.sweeps):
        chain.leave_out(np.sum([effect.part() for effect, _ in effects], axis=0))
        chain.sweep()
        residuals, precisions = chain.residuals, chain.precisions()
        for effect, _ in effects:
            residuals = residuals + effect.part()
            effect.draw(residuals, precisions)
            residuals = residuals - effect.part()
        if sweep >= chain_config.burn_in:
            samples += 1
            total += chain.predict(users, items)
            for effect, cells in effects:
                total += effect.values.take(cells)
    return (data.baseline.mean + total / samples).astype(np.float32)


def _cells(owners: Int64, periods: Int64) -> tuple[Int64, int]:
    """Numbers the pairs of an owner and a period (int64, n), and counts them."""
    keys = owners * (int(periods.max()) - int(periods.min()) + 1) + periods - periods.min()
    distinct, cells = np.unique(keys, return_inverse=True)
    return cells.astype(np.int64), len(distinct)
