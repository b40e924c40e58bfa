"""Measures how much predictions improve if the day on which each rating is given is known.

A user's other ratings of the same day reveal whether the user rates higher or lower than usual on
that day. A real prediction is made before these ratings exist, so the study only allows comparison
with published results that use the day. Its model is not served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from marquee_core.arrays import Float32, Float64, Int64
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.split import Split
from marquee_trainer.ensemble.blends import learn_rating_blend
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.bayesian.gibbs import GibbsSampler
from marquee_trainer.models.bayesian.random_effect import RandomEffect
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.preparation import release_data, validation_split
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.results import TrainingResult

_DAY_S = 86_400
_MODEL = f"{BayesianMF.name}_with_day"


@dataclass(frozen=True)
class KnownDayConfig:
    """Configuration of Bayesian MF with time effects.

    Attributes:
        chain: The sampler's configuration, as for `BayesianMF`.
        item_period_days: Length of the periods in which each item has a separate effect, in days.
    """

    chain: BayesianMFConfig = field(default_factory=BayesianMFConfig)
    item_period_days: int = 30


@dataclass(frozen=True)
class KnownDay:
    """Results of the study.

    Attributes:
        metrics: `test_mse`, `test_rmse` and `test_mae` of Bayesian MF with time effects, and of
            the ensemble with it as an additional model.
        predictions: That ensemble's predictions of the test ratings, in stars and not clipped
            (float32, n).
    """

    metrics: Mapping[str, Mapping[str, float]]
    predictions: Float32


def evaluate_with_day(
    dataset: RatingsDataset,
    split: Split,
    trained: TrainingResult,
    training: TrainingConfig,
    config: KnownDayConfig,
    progress: Progress,
) -> KnownDay:
    """Fits Bayesian MF with time effects, blends it with the trained models, and evaluates both.

    The blend is learned on the same validation ratings as the ensemble's rating blend.

    Args:
        dataset: The ratings.
        split: The training and test rows that the models were trained with.
        trained: The trained models and their predictions.
        training: The configuration that they were trained with.
        config: The sampler and the time effects.
        progress: Callbacks that report progress.

    Raises:
        RatingsError: The ratings have no timestamps.
    """
    require_days(dataset)
    progress.on_step(f"fit {_MODEL}", 0)
    inner = validation_split(dataset, split, training)
    inner_data = release_data(dataset, inner.train, training.baseline)
    on_validation = predict_with_day(
        dataset, inner.train, inner.test, inner_data, config, training.seed
    )
    progress.on_step(f"refit {_MODEL}", 0)
    tested = trained.evaluation.rows(split)
    on_test = predict_with_day(dataset, split.train, tested, trained.data, config, training.seed)
    validation = trained.validation
    blend = learn_rating_blend(
        {**validation.by_model, _MODEL: on_validation},
        validation.ratings,
        training.blend.rating_ridge,
    )
    blended = blend.apply({**trained.evaluation.predictions, _MODEL: on_test}).astype(np.float32)
    metrics = {}
    for name, predictions in ((BayesianMF.name, on_test), (ENSEMBLE, blended)):
        errors = rating_metrics(predictions, dataset.ratings[tested], dataset.scale)
        metrics[name] = {
            "test_mse": errors.mse,
            "test_rmse": errors.rmse,
            "test_mae": errors.mae,
        }
    return KnownDay(metrics, blended)


def require_days(dataset: RatingsDataset) -> None:
    """Checks that the days of the ratings are known.

    Raises:
        RatingsError: The ratings have no timestamps.
    """
    if not dataset.has_timestamps:
        raise RatingsError(
            f"{dataset.source}: the ratings have no timestamps, so their days are unknown; "
            "--with-day requires timestamps"
        )


def predict_with_day(
    dataset: RatingsDataset,
    rows: Int64,
    targets: Int64,
    data: ReleaseData,
    config: KnownDayConfig,
    seed: int,
) -> Float32:
    """Predicts ratings of known days by Bayesian MF with time effects.

    The prediction is the mean over posterior samples of μ + x_u · y_i + d_ut + e_is, where d_ut is
    the effect of user u on day t, and e_is the effect of item i in period s. These are the
    day-specific user bias and the binned item bias of timeSVD++ (Koren, 2009), as random effects
    in Bayesian matrix factorisation (Salakhutdinov and Mnih, 2008).

    Args:
        dataset: The ratings.
        rows: Rows of the data set to learn from, ascending (int64, n).
        targets: Rows of the data set to predict (int64, m).
        data: The matrix and baseline of `rows`.
        config: The sampler and the time effects.
        seed: Seed for all randomness.

    Returns:
        Predictions in stars, not clipped (float32, m).
    """
    chain_config, matrix = config.chain, data.matrix
    chain = GibbsSampler(
        matrix,
        data.baseline.mean,
        chain_config.factors,
        (chain_config.user_noise_shape, chain_config.item_noise_shape),
        chain_config.max_linked,
        seed,
    )
    all_rows = np.concatenate([rows, targets])
    days = (dataset.timestamps[all_rows] - dataset.timestamps[rows].min()) // _DAY_S
    # The sampler's random stream is seeded with `seed`; this one must differ.
    random = np.random.default_rng((seed, 1))
    effects: list[tuple[RandomEffect, Int64]] = []
    for owners, periods in (
        (dataset.users[all_rows], days),
        (dataset.items[all_rows], days // config.item_period_days),
    ):
        cells, count = _cells(owners.astype(np.int64), periods)
        effects.append((RandomEffect(cells[: len(rows)], count, random), cells[len(rows) :]))
    users, items = dataset.users[targets], dataset.items[targets]
    total: Float64 = np.zeros(len(targets))
    samples = 0
    for sweep in range(chain_config.sweeps):
        chain.subtract(np.sum([effect.part() for effect, _ in effects], axis=0))
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
    """Numbers the distinct (owner, period) pairs.

    Args:
        owners: The user or item of each rating (int64, n).
        periods: The day or period of each rating (int64, n).

    Returns:
        The number of each rating's pair, from 0 (int64, n), and the number of distinct pairs.
    """
    keys = owners * (int(periods.max()) - int(periods.min()) + 1) + periods - periods.min()
    distinct, cells = np.unique(keys, return_inverse=True)
    return cells.astype(np.int64), len(distinct)
