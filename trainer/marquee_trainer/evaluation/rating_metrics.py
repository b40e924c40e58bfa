"""How far predicted ratings are from the given ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_services.arrays import Float32
from marquee_trainer.data.dataset import RatingScale


@dataclass(frozen=True)
class RatingMetrics:
    """Errors of predictions that are clipped to the scale, pooled over all ratings.

    Attributes:
        mse: Mean of (r − r̂)², in squared stars.
        rmse: Its root, in stars.
        mae: Mean of |r − r̂|, in stars.
    """

    mse: float
    rmse: float
    mae: float


def rating_metrics(predictions: Float32, ratings: Float32, scale: RatingScale) -> RatingMetrics:
    """Compares predictions with ratings.

    Args:
        predictions: Predictions in stars (float32, n); they are clipped to the scale.
        ratings: The ratings (float32, n), at least one.
        scale: The scale.
    """
    clipped = np.clip(predictions.astype(np.float64), scale.low, scale.high)
    errors = clipped - ratings
    mse = float(np.mean(errors**2))
    return RatingMetrics(mse, mse**0.5, float(np.mean(np.abs(errors))))
