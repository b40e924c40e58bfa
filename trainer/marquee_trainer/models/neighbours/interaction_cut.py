"""Limits the ratings of a user from which similarities of items are computed, on large data.

A user with n ratings adds n² co-ratings, so the few most active users cause most of the cost, which
grows faster than the number of ratings: a larger catalogue leaves more to rate. On large data, each
user therefore contributes a random sample of limited size: the interaction cut of Schelter, Boden
and Markl ("Scalable similarity-based neighborhood methods with MapReduce", RecSys 2012). The number
of co-ratings is then at most proportional to that of the ratings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.sparse import ColumnMatrix, csr_matrix

# Up to this many co-ratings, all ratings are used; MovieLens 1M has less than a fifth of them.
_ALL_CO_RATINGS = 1 << 31
_MOST_PER_USER = 500
_SEED = 0


@dataclass(frozen=True)
class InteractionCut:
    """How many ratings similarities of items are computed from.

    Attributes:
        most_per_user: The largest number of ratings that a user contributes.
        used: The number of ratings that are used.
        ratings: The number of all ratings.
    """

    most_per_user: int
    used: int
    ratings: int

    @classmethod
    def of(cls, matrix: RatingsMatrix) -> InteractionCut | None:
        """Returns the cut for a ratings matrix; None if all ratings are used."""
        counts = np.diff(matrix.indptr)
        if int(counts @ counts) <= _ALL_CO_RATINGS:
            return None
        used = int(np.minimum(counts, _MOST_PER_USER).sum())
        return cls(_MOST_PER_USER, used, matrix.rating_count)

    def __str__(self) -> str:
        return (
            f"similarities of items are computed from {self.used:,} of {self.ratings:,} ratings, "
            f"at most {self.most_per_user} of each user"
        )


def cut_columns(columns: ColumnMatrix, most: int) -> ColumnMatrix:
    """Keeps a random sample of the values in each column that has too many.

    Args:
        columns: The matrix, such as the residuals as items × users.
        most: The largest number of values that a column keeps.
    """
    starts = columns.indptr
    counts = np.diff(starts)
    kept = np.ones(columns.nnz, dtype=np.bool_)
    random = np.random.default_rng(_SEED)
    for column in np.flatnonzero(counts > most).tolist():
        part = kept[starts[column] : starts[column + 1]]
        part[:] = False
        part[random.choice(len(part), most, replace=False, shuffle=False)] = True
    ends = np.zeros(len(starts), dtype=np.int64)
    np.cumsum(np.minimum(counts, most), out=ends[1:])
    return csr_matrix(ends, columns.indices[kept], columns.data[kept], columns.shape[0]).T
