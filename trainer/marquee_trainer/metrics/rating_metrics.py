"""How far predicted ratings are from the given ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_trainer.data.dataset import RatingScale


@dataclass(frozen=True)
class RatingMetrics:
    """Errors of predictions that are clipped to the scale, pooled over all ratings.

    Attributes:
        mse: Mean of (r − r̂)², in squared stars.
        rmse: Its root, in stars.
        mae: Mean of |r − r̂|, in stars.
        squared_errors: (r − r̂)² of each rating, for intervals and paired tests (float64, n).
    """

    mse: float
    rmse: float
    mae: float
    squared_errors: Float64


def rating_metrics(
    predictions: Float32 | Float64, ratings: Float32, scale: RatingScale
) -> RatingMetrics:
    """Compares predictions with ratings, in double precision.

    Args:
        predictions: Predictions in stars (n); they are clipped to the scale.
        ratings: The ratings (float32, n), at least one.
        scale: The scale.

    Raises:
        ValueError: There are no ratings, or a prediction is not a number.
    """
    if not len(ratings):
        raise ValueError("there are no ratings to compare with")
    if bool(np.isnan(predictions).any()):
        raise ValueError("a prediction is not a number")
    clipped = np.clip(predictions.astype(np.float64), scale.low, scale.high)
    errors = clipped - ratings.astype(np.float64)
    squared: Float64 = errors * errors
    mse = float(np.mean(squared))
    return RatingMetrics(mse, mse**0.5, float(np.mean(np.abs(errors))), squared)
