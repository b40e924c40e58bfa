"""Sums over moments of users: what had been rated by then, and what was liked from then on.

Compiled, as each pair of a user's ratings is added to its place in matrices larger than caches.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.item_weights import decay, fading, liking, places_of
from marquee_core.scorers.slit import SLITConfig

# What comes next counts twice as much as what comes after it, where the power is 1.
_TARGET_OFFSET = 1.0


def transitions(matrix: RatingsMatrix, items: Int32, config: SLITConfig) -> tuple[Float32, Float32]:
    """SᵀS and SᵀT, where each row is a moment of a user.

    S is how much what was rated up to the moment counts, as in a profile at that time, T what was
    liked after it, weighing (1 + n)^−t behind n other ratings.

    Args:
        matrix: The training ratings.
        items: The items that are covered, ascending (int32, m).
        config: How ratings count.

    Returns:
        SᵀS and SᵀT (float32, m × m each).
    """
    places = places_of(items, matrix.item_count)
    columns = places[matrix.items]
    liked = matrix.ratings >= config.minimum_stars
    counts = liking(matrix.ratings, config.minimum_stars, config.indifference)
    most = int(np.diff(matrix.indptr).max(initial=0))
    numbers = np.arange(most + 1, dtype=np.int32)
    ages = fading(numbers, config.history_decay)
    waits = decay(numbers, config.target_decay, _TARGET_OFFSET)
    gram = np.zeros((len(items), len(items)), dtype=np.float32)
    next_liked = np.zeros_like(gram)
    for start, end in pairwise(matrix.indptr.tolist()):
        later = matrix.later[start:end]
        moments, before = _moments(later)
        if not len(moments):
            continue
        if len(moments) > config.moments:
            spaced = np.linspace(0, len(moments) - 1, config.moments)
            moments = moments[np.round(spaced).astype(np.int64)]
        kept = columns[start:end] >= 0
        own, now = slice(start, end), moments[:, None]
        age, wait = later[kept] - now, now - before[kept]
        history = np.where(age >= 0, ages[np.maximum(age, 0)], np.float32(0.0)) * counts[own][kept]
        target = np.where(wait >= 0, waits[np.maximum(wait, 0)], np.float32(0.0)) * liked[own][kept]
        _add(gram, next_liked, columns[own][kept], history.T @ history, history.T @ target)
    return gram, next_liked


def _moments(later: Int32) -> tuple[Int64, Int64]:
    """The moments of a user that others follow, and what came before each rating.

    Args:
        later: How many ratings are later than each (int32, n).

    Returns:
        How many ratings are later than each moment but the last, descending (int64); and how many
        there are later than the moment before each rating's (int64, n).
    """
    moments, which = np.unique(later, return_inverse=True)
    return moments[:0:-1].astype(np.int64), np.append(moments[1:], len(later))[which]


@njit()
def _add(
    gram: Float32, next_liked: Float32, columns: Int32, products: Float32, follows: Float32
) -> None:
    """Adds a user's products to the places of the user's items."""
    for row in range(len(columns)):
        for column in range(len(columns)):
            gram[columns[row], columns[column]] += products[row, column]
            next_liked[columns[row], columns[column]] += follows[row, column]
