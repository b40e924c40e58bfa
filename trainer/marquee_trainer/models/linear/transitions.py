"""The matrices that SLIT is fitted on: sums over the moments of all users.

The summation is compiled, because each pair of a user's ratings is added to its own element of
matrices that are larger than the processor's caches.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.item_weights import (
    feedback_values,
    positions_of,
    power_law_decay,
    recency_weights,
)
from marquee_core.scorers.slit import SLITConfig

# The distance at which the base of the targets' power law has doubled: with exponent 1, the next
# target has twice the weight of the one after it.
_TARGET_OFFSET = 1.0


def transitions(
    matrix: RatingsMatrix, items: Int32, config: SLITConfig, dislike_limit: float
) -> tuple[Float32, Float32]:
    """Computes SᵀS and SᵀT, where each row of S and T belongs to a moment of a user.

    A row of S holds the recency-weighted history that a profile at that moment would give. A row
    of T holds the items liked afterwards, with the weight (1 + n)^−t for n ratings in between.

    Args:
        matrix: The training ratings.
        items: The items to include, ascending (int32, m).
        config: The hyperparameters that weight the ratings.
        dislike_limit: The highest rating that is a dislike, in stars; −∞ if there are none.

    Returns:
        SᵀS and SᵀT (float32, m × m each).
    """
    positions = positions_of(items, matrix.item_count)
    columns = positions[matrix.items]
    liked = (matrix.ratings >= config.minimum_stars) & (matrix.ratings > dislike_limit)
    weights = feedback_values(
        matrix.ratings,
        config.minimum_stars,
        config.indifference,
        config.fitted_dislike,
        dislike_limit,
    )
    longest = int(np.diff(matrix.indptr).max(initial=0))
    distances = np.arange(longest + 1, dtype=np.int32)
    history_weights = recency_weights(distances, config.history_decay)
    target_weights = power_law_decay(distances, config.target_decay, _TARGET_OFFSET)
    gram = np.zeros((len(items), len(items)), dtype=np.float32)
    next_liked = np.zeros_like(gram)
    for start, end in pairwise(matrix.indptr.tolist()):
        later = matrix.later_counts[start:end]
        moments, later_than_previous = _moments(later)
        if not len(moments):
            continue
        if len(moments) > config.moments:
            spaced = np.linspace(0, len(moments) - 1, config.moments)
            moments = moments[np.round(spaced).astype(np.int64)]
        included = columns[start:end] >= 0
        own, now = slice(start, end), moments[:, None]
        # For each moment and rating: the number of ratings between them, negative if the rating
        # is on the other side of the moment.
        age, wait = later[included] - now, now - later_than_previous[included]
        history = np.where(age >= 0, history_weights[np.maximum(age, 0)], np.float32(0.0))
        history *= weights[own][included]
        target = np.where(wait >= 0, target_weights[np.maximum(wait, 0)], np.float32(0.0))
        target *= liked[own][included]
        _add(gram, next_liked, columns[own][included], history.T @ history, history.T @ target)
    return gram, next_liked


def _moments(later: Int32) -> tuple[Int64, Int64]:
    """Finds the moments of a user that have later ratings.

    Moments and ratings are placed in time by the number of the user's later ratings.

    Args:
        later: For each rating, the number of later ratings of the user (int32, n).

    Returns:
        The number of ratings later than each moment except the last, descending (int64); and for
        each rating, the number of ratings later than the moment before it (int64, n).
    """
    moments, which = np.unique(later, return_inverse=True)
    return moments[:0:-1].astype(np.int64), np.append(moments[1:], len(later))[which]


@njit(nogil=True)
def _add(
    gram: Float32, next_liked: Float32, columns: Int32, products: Float32, follows: Float32
) -> None:
    """Adds a user's products to the elements of the user's items.

    Args:
        gram: SᵀS, which is added to (float32, m × m).
        next_liked: SᵀT, which is added to (float32, m × m).
        columns: The column of each of the user's items (int32, n).
        products: The user's part of SᵀS (float32, n × n).
        follows: The user's part of SᵀT (float32, n × n).
    """
    for row in range(len(columns)):
        for column in range(len(columns)):
            gram[columns[row], columns[column]] += products[row, column]
            next_liked[columns[row], columns[column]] += follows[row, column]
