"""Merges repeated ratings, that is, rows of the same user and item."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32, Int64

ON_REPEAT = ("auto", "last", "mean", "max", "sum", "error")


class MergedRepeats(NamedTuple):
    """Rows without repeats.

    Attributes:
        rows: The representative row of each pair, ascending (int64, pairs).
        ratings: The merged rating of each pair (float32, pairs).
    """

    rows: Int64
    ratings: Float32


def merge(cells: Int64, ratings: Float32, timestamps: Int32 | Int64, how: str) -> MergedRepeats:
    """Merges the rows of each (user, item) pair into one.

    Args:
        cells: A number for each row that identifies its pair (int64, n).
        ratings: The ratings (float32, n).
        timestamps: Seconds since 1970; rows of the same time are in the order of the source
            (int32 or int64, n).
        how: `last`, `mean`, `max` or `sum`. The representative row is the latest one or, for `max`,
            the latest one with the highest rating.
    """
    keys = (timestamps, ratings, cells) if how == "max" else (timestamps, cells)
    order = np.lexsort(keys)
    starts = np.flatnonzero(np.diff(cells[order], prepend=cells[order[:1]] - 1))
    ends = np.append(starts[1:], len(order)) - 1
    rows = order[ends]
    counts = np.diff(np.append(starts, len(order)))
    combine: dict[str, Callable[[], Float32 | Float64]] = {
        "last": lambda: ratings[rows],
        "max": lambda: ratings[rows],
        "sum": lambda: np.add.reduceat(ratings[order], starts, dtype=np.float64),
        "mean": lambda: np.add.reduceat(ratings[order], starts, dtype=np.float64) / counts,
    }
    merged = combine[how]().astype(np.float32)
    by_row = np.argsort(rows)
    return MergedRepeats(rows[by_row], merged[by_row])
