"""The neighbours of every row at once, on all cores.

What serving computes of one visitor (`CoRatings.sums`) is computed here of every row. There are a
thousand times as many, so the four sums are taken in one pass over the co-ratings, compiled, and
rows are shared among threads. What follows from the sums is the code that serves.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
from numba import njit

from marquee_services.arrays import Float32, Int32
from marquee_services.scoring.neighbours import CommonSums, CoRatings, Neighbours

# Rows that a thread takes at once.
_BLOCK = 64


def every_neighbourhood(
    ratings: CoRatings, nearest: Callable[[int, CommonSums], tuple[Int32, Float32]]
) -> Neighbours:
    """Finds the neighbours of each row.

    Σ n_c² additions over the columns' rating counts in all. What is held, beside the ratings, is
    a row of sums a thread, and the neighbours.

    Args:
        ratings: The rows.
        nearest: Chooses a row's neighbours by its sums with all rows; called in several threads.
    """
    rows = len(ratings.counts)

    def block(first: int) -> list[tuple[Int32, Float32]]:
        sums: Float32 = np.empty((rows, 4), dtype=np.float32)
        found = []
        for row in range(first, min(first + _BLOCK, rows)):
            sums[:] = 0.0
            columns, values = ratings.row(row)
            by_column = ratings.columns
            _add(by_column.indptr, by_column.indices, by_column.data, columns, values, sums)
            found.append(nearest(row, CommonSums(*np.ascontiguousarray(sums.T))))
        return found

    with ThreadPoolExecutor(usable_cores()) as threads:
        return Neighbours.of(chain.from_iterable(threads.map(block, range(0, rows, _BLOCK))))


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@njit(nogil=True)
def _add(
    indptr: Int32, rows: Int32, others: Float32, columns: Int32, values: Float32, sums: Float32
) -> None:
    """Adds Σ x y, Σ y², Σ x² and n of a vector and each row to `sums` (float32, rows × 4).

    Args:
        indptr: Where each column begins in `rows` and `others`, and the end of the last.
        rows: The rows of each column (int32, nnz).
        others: y (float32, nnz).
        columns: The columns of the vector (int32, n).
        values: x (float32, n).
        sums: What is added to.
    """
    for place in range(len(columns)):
        x, column = values[place], columns[place]
        square = x * x
        # Unsigned, since an index below 0 would count from the end, and asking costs a half more.
        for cell in range(np.uint64(indptr[column]), np.uint64(indptr[column + 1])):
            row, y = np.uint64(rows[cell]), others[cell]
            sums[row, 0] += x * y
            sums[row, 1] += y * y
            sums[row, 2] += square
            sums[row, 3] += np.float32(1)
