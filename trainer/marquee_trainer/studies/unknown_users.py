"""Measures how well item features predict the ratings of users without training ratings.

With a temporal split, most test ratings may come from such users, for whom only the items can
inform a prediction. Two linear regressions on item features measure how much that can improve on
the baseline: one is fitted on validation ratings, which a real model could match, and an oracle is
fitted on the test ratings themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.studies.item_features import FEATURE_SETS, item_features
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import (
    interactions_of,
    release_data,
    validation_split,
)

# Minimum number of ratings by unknown users for a regression.
_MIN_RATINGS = 1_000
# L2 penalty on the difference between the weights and the baseline's.
_PENALTY = 100.0


@dataclass(frozen=True)
class UnknownUsers:
    """Test RMSE, in stars, over the test ratings of users without training ratings.

    Attributes:
        ratings: Number of these test ratings.
        baseline: RMSE of the bias baseline.
        validation_fitted: By feature set, RMSE of a ridge regression fitted on validation ratings
            of unknown users.
        oracle: By feature set, RMSE of least squares fitted on these test ratings themselves, which
            are not available to a real model: the best that a linear model of the features can
            achieve.
    """

    ratings: int
    baseline: float
    validation_fitted: dict[str, float]
    oracle: dict[str, float]


def study_unknown_users(
    dataset: RatingsDataset, split: Split, data: ReleaseData, config: TrainingConfig
) -> UnknownUsers | None:
    """Fits regressions on item features and evaluates them on the ratings of unknown users.

    Args:
        dataset: The ratings.
        split: The training and test rows of the data set.
        data: The matrix and baseline of the training rows.
        config: The share of the validation part, and the baseline's regularisation.

    Returns:
        The RMSE of each regression; None if the test part or the validation part has fewer than
        1,000 ratings by users without ratings in the corresponding training part.
    """
    inner = validation_split(dataset, split, config)
    inner_data = release_data(dataset, inner.train, config.baseline)
    validation = _by_unknown_users(inner_data, interactions_of(dataset, inner.test))
    test = _by_unknown_users(data, interactions_of(dataset, split.test))
    if min(len(validation), len(test)) < _MIN_RATINGS:
        return None

    def rmse(predictions: Float64) -> float:
        return rating_metrics(predictions, test.ratings, dataset.scale).rmse

    mean, inner_mean = data.baseline.mean, inner_data.baseline.mean
    validation_features = item_features(dataset, inner_data, validation.items)
    test_features = item_features(dataset, data, test.items)
    validation_fitted, oracle = {}, {}
    for name, fitted_on, features in zip(
        FEATURE_SETS, validation_features, test_features, strict=True
    ):
        weights = _ridge(fitted_on, validation.ratings - inner_mean)
        validation_fitted[name] = rmse(mean + features @ weights)
        weights, *_ = np.linalg.lstsq(features, test.ratings - mean)
        oracle[name] = rmse(mean + features @ weights)
    baseline = mean + data.baseline.item_bias[test.items].astype(np.float64)
    return UnknownUsers(len(test), rmse(baseline), validation_fitted, oracle)


def _by_unknown_users(data: ReleaseData, interactions: Interactions) -> Interactions:
    """The ratings of users who have no training ratings."""
    unknown = np.diff(data.matrix.indptr)[interactions.users] == 0
    return Interactions(
        interactions.users[unknown], interactions.items[unknown], interactions.ratings[unknown]
    )


def _ridge(features: Float64, targets: Float32 | Float64) -> Float64:
    """Ridge regression (Hoerl and Kennard, 1970) that shrinks towards the baseline.

    minimise |y − X w|² + λ Σ_{j ≠ 1} (w_j − w0_j)², where w0 is 1 for the baseline's item bias
    (column 0) and 0 for all others. The weight of the constant (column 1) is not penalised.

    Args:
        features: X (float64, n × features).
        targets: y, the ratings less the training mean μ, in stars (n).

    Returns:
        The weights w (float64, features).
    """
    baseline_weights = np.zeros(features.shape[1])
    baseline_weights[0] = 1.0
    penalties = np.full(features.shape[1], _PENALTY)
    penalties[1] = 0.0
    normal = features.T @ features + np.diag(penalties)
    weights: Float64 = baseline_weights + np.linalg.solve(
        normal, features.T @ (targets - features @ baseline_weights)
    )
    return weights
