"""Errors of predicted ratings: MSE, RMSE and MAE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_trainer.data.scale import RatingScale


@dataclass(frozen=True)
class RatingMetrics:
    """Errors of predictions r̂ clipped to the rating scale, averaged over all ratings r.

    The definitions are those of Herlocker et al. (2004). Averages are over ratings, so users with
    many ratings have more weight.

    Attributes:
        mse: Mean squared error, the mean of (r − r̂)², in squared stars.
        rmse: Root mean squared error, √mse, in stars.
        mae: Mean absolute error, the mean of |r − r̂|, in stars.
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
        ratings: The true ratings, in stars (float32, n).
        scale: The lowest and highest possible rating.

    Raises:
        ValueError: There are no ratings, or a prediction is NaN.
    """
    if not len(ratings):
        raise ValueError("there are no ratings to compare the predictions with")
    if bool(np.isnan(predictions).any()):
        raise ValueError("a prediction is not a number")
    clipped = np.clip(predictions.astype(np.float64), scale.low, scale.high)
    errors = clipped - ratings.astype(np.float64)
    squared: Float64 = errors * errors
    mse = float(np.mean(squared))
    return RatingMetrics(mse, mse**0.5, float(np.mean(np.abs(errors))), squared)
