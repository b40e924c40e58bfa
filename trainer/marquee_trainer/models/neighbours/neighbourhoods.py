"""The neighbours of every row at once, on all cores.

What serving computes of one visitor (`CoRatings.sums`) is computed here of every row. There are a
thousand times as many, so the four sums are taken in one pass over the co-ratings, compiled, and
blocks of rows are shared among threads. What follows from the sums is the code that serves, on
whole blocks: on single rows, threads would wait for one another more than they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, pairwise

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32
from marquee_core.scorers.neighbours import CommonSums, CoRatings, Neighbours, nearest
from marquee_trainer.threads import by_blocks, usable_cores

# Pairs of rows in a block: threads synchronise only at its ends, and it takes about 10 MB of
# memory; more where a single row has more pairs.
_BLOCK_CELLS = 1 << 18
# So that no core waits long for the last.
_BLOCKS_PER_CORE = 4


def every_neighbourhood(
    ratings: CoRatings, similarities: Callable[[Int32, CommonSums], Float32], count: int
) -> Neighbours:
    """Finds the neighbours of each row.

    Σ n_c² additions over the columns' rating counts in all. What is held, beside the ratings, is
    a block of sums a thread, and the neighbours.

    Args:
        ratings: The rows.
        similarities: Makes of the sums of some rows, and of the row that each sum is of (int32,
            n), the similarities (float32, n), 0 for what is no neighbour; called in several
            threads.
        count: At most so many neighbours of a row.
    """
    rows = len(ratings.counts)
    most = -(-rows // (_BLOCKS_PER_CORE * usable_cores()))
    size = max(1, min(most, _BLOCK_CELLS // max(1, rows)))

    def block(first: int, last: int) -> list[tuple[Int32, Float32]]:
        ends, owners, sums = _block_sums(ratings, first, last)
        found = similarities(owners, sums)
        return [
            nearest(sums.rows[start:end], found[start:end], count) for start, end in pairwise(ends)
        ]

    return Neighbours.of(chain.from_iterable(by_blocks(block, rows, size)))


def _block_sums(ratings: CoRatings, first: int, last: int) -> tuple[list[int], Int32, CommonSums]:
    """The sums of the rows from one to another with all rows.

    Returns:
        Where each row's sums begin, and the end of the last; the row that each is of (int32, n);
        and the sums.
    """
    rows = len(ratings.counts)
    others = np.empty((last - first) * rows, dtype=np.int32)
    sums = np.empty((4, len(others)), dtype=np.float32)
    running = np.zeros((rows, 4), dtype=np.float32)
    by_column = ratings.columns
    ends = [0]
    for row in range(first, last):
        columns, values = ratings.row(row)
        _add(by_column.indptr, by_column.indices, by_column.data, columns, values, running)
        ends.append(_move(running, others, sums, ends[-1]))
    owners = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(ends))
    return ends, owners, CommonSums(others[: ends[-1]], *sums[:, : ends[-1]])


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


@njit(nogil=True)
def _move(running: Float32, rows: Int32, sums: Float32, end: int) -> int:
    """Moves the sums whose first is above 0 behind others, and sets all to 0.

    Args:
        running: The sums (float32, rows × 4).
        rows: Where the rows of the sums go (int32, n).
        sums: Where the sums go (float32, 4 × n).
        end: How many are there.

    Returns:
        How many are there then.
    """
    for row in range(len(running)):
        rows[end] = row
        for kind in range(4):
            sums[kind, end] = running[row, kind]
            running[row, kind] = 0.0
        # What comes next takes the place of what is not wanted.
        end += sums[0, end] > 0
    return end
