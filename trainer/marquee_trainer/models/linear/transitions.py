"""Computes the matrices that SLIT is fitted on: sums over the moments of all users.

The summation is compiled, because each pair of a user's ratings is added to a different element of
matrices that exceed the processor's caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64, positions_of
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.item_weights import (
    feedback_values,
    power_law_decay,
    recency_weights,
)
from marquee_core.scorers.slit import SLITConfig

# The offset of the targets' power law; with exponent 1, the next target has twice the weight of the
# one after it.
_TARGET_OFFSET = 1.0


def transitions(
    matrix: RatingsMatrix, items: Int32, config: SLITConfig, dislike_limit: float
) -> tuple[Float32, Float32]:
    """Computes SᵀS and SᵀT, where each row of S and T belongs to a moment of a user.

    A row of S holds the recency-weighted history of a profile at that moment. A row of T holds the
    items liked afterwards, with the weight (1 + n)^−t for n ratings in between.

    Args:
        matrix: The training ratings.
        items: The items to include, ascending (int32, m).
        config: The hyperparameters that weight the ratings.
        dislike_limit: The highest rating that counts as a dislike, in stars; −∞ if there are no
            dislikes.

    Returns:
        SᵀS and SᵀT (float32, m × m each).
    """
    gram = np.zeros((len(items), len(items)), dtype=np.float32)
    next_liked = np.zeros_like(gram)
    for columns, history, _, target in _users(matrix, items, items, config, dislike_limit):
        _add(gram, columns, columns, history.T @ history)
        _add(next_liked, columns, columns, history.T @ target)
    return gram, next_liked


def transitions_to(
    matrix: RatingsMatrix,
    items: Int32,
    targets: Int32,
    config: SLITConfig,
    dislike_limit: float,
) -> Float32:
    """Computes SᵀT where T has other items than S (float32, m × t); see `transitions`.

    Args:
        matrix: The training ratings.
        items: The items of S, ascending (int32, m).
        targets: The items of T, ascending (int32, t).
        config: The hyperparameters that weight the ratings.
        dislike_limit: See `transitions`.
    """
    next_liked = np.zeros((len(items), len(targets)), dtype=np.float32)
    for columns, history, others, target in _users(matrix, items, targets, config, dislike_limit):
        if len(others):
            _add(next_liked, columns, others, history.T @ target)
    return next_liked


def _users(
    matrix: RatingsMatrix,
    items: Int32,
    targets: Int32,
    config: SLITConfig,
    dislike_limit: float,
) -> Iterator[tuple[Int32, Float32, Int32, Float32]]:
    """Yields the rows of S and T of each user who has at least two moments.

    Yields:
        The nonzero columns of S (int32, n) and their values (float32, moments × n), then those of T
        (int32, k) and theirs (float32, moments × k).
    """
    columns = positions_of(items, matrix.item_count)[matrix.items]
    target_columns = columns
    if targets is not items:
        target_columns = positions_of(targets, matrix.item_count)[matrix.items]
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
    for start, end in pairwise(matrix.indptr.tolist()):
        later = matrix.later_counts[start:end]
        moments, later_than_previous = _moments(later)
        if not len(moments):
            continue
        if len(moments) > config.moments:
            spaced = np.linspace(0, len(moments) - 1, config.moments)
            moments = moments[np.round(spaced).astype(np.int64)]
        own, now = slice(start, end), moments[:, None]
        included, wanted = columns[own] >= 0, target_columns[own] >= 0
        # For each moment and rating, the number of ratings between them; negative if the rating is
        # on the other side of the moment.
        age, wait = later[included] - now, now - later_than_previous[wanted]
        history = np.where(age >= 0, history_weights[np.maximum(age, 0)], np.float32(0.0))
        history *= weights[own][included]
        target = np.where(wait >= 0, target_weights[np.maximum(wait, 0)], np.float32(0.0))
        target *= liked[own][wanted]
        yield columns[own][included], history, target_columns[own][wanted], target


def _moments(later: Int32) -> tuple[Int64, Int64]:
    """Finds the moments of a user after which there are later ratings.

    Time is measured by the number of the user's later ratings.

    Args:
        later: For each rating, the number of later ratings of the user (int32, n).

    Returns:
        The number of ratings later than each moment except the last, descending (int64); and for
        each rating, the number of ratings later than the moment before it (int64, n).
    """
    moments, which = np.unique(later, return_inverse=True)
    return moments[:0:-1].astype(np.int64), np.append(moments[1:], len(later))[which]


@njit(nogil=True)
def _add(sums: Float32, rows: Int32, columns: Int32, products: Float32) -> None:
    """Adds a user's products to the elements of the user's items.

    Args:
        sums: SᵀS or SᵀT, updated in place (float32).
        rows: The row of each of the user's items in S (int32, n).
        columns: The column of each of the user's items (int32, k).
        products: The products to add (float32, n × k).
    """
    for row in range(len(rows)):
        for column in range(len(columns)):
            sums[rows[row], columns[column]] += products[row, column]
