"""Small ratings matrices, written as dense arrays of users × items."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Int64
from marquee_core.ratings import RatingsMatrix, dislike_limit
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData

Dense = NDArray[Any]


def ratings_matrix(stars: Dense, times: Int64 | None = None) -> RatingsMatrix:
    """Build the ratings matrix of a dense array.

    Args:
        stars: Ratings in stars (users × items); 0 or NaN where there is no rating.
        times: The time of each rating, in any unit, user by user in the order of the items
            (int64, one per rating); None if all were given at the same time.
    """
    users, items = np.nonzero(np.nan_to_num(stars))
    return RatingsMatrix.of(
        users.astype(np.int32),
        items.astype(np.int32),
        stars[users, items].astype(np.float32),
        user_count=stars.shape[0],
        item_count=stars.shape[1],
        times=times,
    )


def release_data(
    stars: Dense, times: Int64 | None = None, damping: float = 5.0, sweeps: int = 3
) -> ReleaseData:
    """Build the ratings matrix of a dense array, and fit the baseline to it.

    Ratings of 1 and 2 stars are dislikes, as on a scale of 1 to 5.

    Args:
        stars: As for `ratings_matrix`.
        times: As for `ratings_matrix`.
        damping: Damping of the user and item biases, in ratings.
        sweeps: Sweeps of alternating least squares for the baseline.
    """
    matrix = ratings_matrix(stars, times)
    baseline = Baseline.fit(matrix, damping, damping, sweeps)
    return ReleaseData(matrix, baseline, dislike_limit=dislike_limit(1.0, 5.0))


def unbiased_release_data(residuals: Dense, mean: float = 3.0) -> ReleaseData:
    """Build release data from residuals around a baseline that predicts `mean` everywhere.

    Args:
        residuals: Ratings less the mean (users × items); NaN where there is no rating.
        mean: The mean rating in stars; no residual may be its negative.
    """
    no_biases = np.zeros(residuals.shape[1], np.float32)
    # Such large damping keeps the bias of every user at zero.
    return ReleaseData(ratings_matrix(residuals + mean), Baseline(mean, no_biases, 1e12))


def factor_model_data(seed: int = 0, users: int = 60, items: int = 40) -> ReleaseData:
    """Draw ratings around 3 stars from two latent factors, for about 30 % of all pairs."""
    random = np.random.default_rng(seed)
    tastes = random.normal(size=(users, 2)) @ random.normal(size=(2, items))
    rated = random.random((users, items)) < 0.3
    return release_data(np.where(rated, 3 + tastes, np.nan))
