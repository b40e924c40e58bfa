"""Finds the neighbours of all rows, on all cores.

Serving computes the sums over common columns for one visitor at a time (`CoRatings.sums`). Here
they are computed for thousands of rows, so compiled code computes the four sums in one pass over
the co-ratings, and threads process blocks of rows in parallel. The similarities are then computed
from the sums by the same code that serves, one block at a time: with one call per row, threads
would mostly wait for the global interpreter lock. If similarities do not depend on the order of a
pair, each pair is compared once; see `pairs.py`.

The cost of comparing all rows grows with the square of their number. If it exceeds `_EXACT_PAIRS`,
rows are compared with candidates only; see `candidates.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, pairwise

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.cores import usable_cores
from marquee_core.scorers.neighbours import CommonSums, CoRatings, Neighbours, nearest
from marquee_trainer.models.neighbours.candidates import (
    candidate_rows,
    candidate_sums,
)
from marquee_trainer.models.neighbours.pairs import NearestSoFar, pair_sums
from marquee_trainer.threads import map_blocks

# Number of pairs of rows in a block. Threads synchronise only between blocks. A block takes about
# 10 MB of memory, or more if a single row has more pairs.
_BLOCK_CELLS = 1 << 18
# With several blocks for each core, all cores finish at about the same time.
_BLOCKS_PER_CORE = 4
# Up to this many additions, which take a few seconds, all rows are compared. The users of MovieLens
# 1M need a third of them; with candidates instead, the sum of the similarities of their neighbours
# is 10 % lower and the RMSE 0.14 % higher.
_EXACT_PAIRS = 1 << 31
# Number of candidates of a row, as a multiple of its number of neighbours.
_CANDIDATES_PER_NEIGHBOUR = 3


def all_neighbours(
    ratings: CoRatings,
    similarities: Callable[[Int32, CommonSums], Float32],
    count: int,
    *,
    symmetric: bool = False,
) -> Neighbours:
    """Finds the neighbours of each row.

    The cost is Σ n_c² additions, where n_c is the number of ratings in column c, plus one for each
    pair of rows; half of it with symmetric similarities. If these are more than 2³¹ and candidates
    cost less, each row is compared with a fixed number of candidates instead. The cost is then
    proportional to the number of ratings, and some of the nearest neighbours of a row may be
    missed. In addition to the ratings and the neighbours, memory holds one block of sums per
    thread, and the candidates.

    Args:
        ratings: The residual matrix.
        similarities: A function that computes similarities (float32, n) from the owning row of each
            sum (int32, n) and the sums. It returns 0 for pairs that must not be neighbours, and is
            called from several threads.
        count: The maximum number of neighbours of a row.
        symmetric: Whether the similarity of two rows is the same whichever of them owns the sums,
            except for rounding, and 0 for a row and itself.
    """
    rows = len(ratings.counts)
    candidate_count = min(rows, _CANDIDATES_PER_NEIGHBOUR * count)
    additions = all_pairs(ratings) // (2 if symmetric else 1)
    if additions > max(_EXACT_PAIRS, candidate_pairs(ratings, candidate_count)):
        return _among_candidates(ratings, similarities, count, candidate_count)
    size = _block_rows(rows, rows)
    if symmetric:
        found = NearestSoFar(rows, min(rows, count))

        def offer(first: int, last: int) -> None:
            owners, sums = pair_sums(ratings, first, last)
            found.offer_pairs(first, last, owners, sums.rows, similarities(owners, sums))

        map_blocks(offer, rows, size)
        return found.neighbours()

    def block(first: int, last: int) -> list[tuple[Int32, Float32]]:
        ends, owners, sums = _block_sums(ratings, first, last)
        return _nearest_of_each(ends, sums, similarities(owners, sums), count)

    return Neighbours.of(chain.from_iterable(map_blocks(block, rows, size)))


def _among_candidates(
    ratings: CoRatings,
    similarities: Callable[[Int32, CommonSums], Float32],
    count: int,
    candidate_count: int,
) -> Neighbours:
    """Finds the neighbours of each row among its candidates; see `all_neighbours`."""
    candidates = candidate_rows(ratings, candidate_count)

    def block(first: int, last: int) -> list[tuple[Int32, Float32]]:
        part = candidates.order[first:last]
        ends, owners, sums = candidate_sums(ratings, part, candidates.of_rows[part])
        return _nearest_of_each(ends, sums, similarities(owners, sums), count)

    rows, compared = candidates.of_rows.shape
    found = list(chain.from_iterable(map_blocks(block, rows, _block_rows(rows, compared))))
    return Neighbours.of(found[place] for place in np.argsort(candidates.order).tolist())


def _block_rows(rows: int, compared: int) -> int:
    """The number of rows in a block, given the number that each of them is compared with."""
    largest = -(-rows // (_BLOCKS_PER_CORE * usable_cores()))
    return max(1, min(largest, _BLOCK_CELLS // max(1, compared)))


def _nearest_of_each(
    ends: list[int], sums: CommonSums, values: Float32, count: int
) -> list[tuple[Int32, Float32]]:
    """The nearest neighbours of each row of a block, given the similarities of all its sums."""
    return [
        nearest(sums.rows[start:end], values[start:end], count) for start, end in pairwise(ends)
    ]


def all_pairs(ratings: CoRatings) -> int:
    """The number of additions for comparing all rows: co-ratings and pairs of rows."""
    by_column = np.diff(ratings.columns.indptr).astype(np.float64)
    return int(by_column @ by_column) + len(ratings.counts) ** 2


def candidate_pairs(ratings: CoRatings, count: int) -> int:
    """The number of additions for comparing each row with a number of candidates.

    The expected size of a candidate is that of the row of a random rating.
    """
    by_row = ratings.counts.astype(np.float64)
    total = float(by_row.sum())
    return int(len(by_row) * count * float(by_row @ by_row) / total) if total else 0


def _block_sums(ratings: CoRatings, first: int, last: int) -> tuple[list[int], Int32, CommonSums]:
    """Computes the sums over common columns of the rows `first` to `last` with all rows.

    Args:
        ratings: The residual matrix.
        first: The first row of the block.
        last: The end of the block.

    Returns:
        The start of each row's sums, then the end of the last row's; the owning row of each sum
        (int32, n); and the sums.
    """
    rows = len(ratings.counts)
    others = np.empty((last - first) * rows, dtype=np.int32)
    sums = np.empty((4, len(others)), dtype=np.float32)
    running = np.zeros((rows, 4), dtype=np.float32)
    by_column = ratings.columns
    squares, own_squares = ratings.column_squares, ratings.own_squares(first, last)
    ends = [0]
    for row in range(first, last):
        columns, values = ratings.row(row)
        own, own_squares = np.split(own_squares, [len(values)])
        _add(
            by_column.indptr,
            by_column.indices,
            by_column.data,
            squares,
            columns,
            values,
            own,
            running,
        )
        ends.append(_move(running, others, sums, ends[-1]))
    owners = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(ends))
    return ends, owners, CommonSums(others[: ends[-1]], *sums[:, : ends[-1]])


@njit(nogil=True)
def _add(
    indptr: Int32 | Int64,
    rows: Int32 | Int64,
    others: Float32,
    other_squares: Float32,
    columns: Int32 | Int64,
    values: Float32,
    squares: Float32,
    sums: Float32,
) -> None:
    """Adds Σ x y, Σ y², Σ x² and n of a vector x and each row y to `sums`.

    Args:
        indptr: The start of each column in `rows` and `others`, then the end of the last (int32,
            or int64 from 2³¹ ratings on).
        rows: The rows of each column (of the type of `indptr`, nnz).
        others: y (float32, nnz).
        other_squares: y², rounded as when serving (float32, nnz).
        columns: The columns of the vector (of the type of `indptr`, n).
        values: x (float32, n).
        squares: x², rounded as when serving (float32, n).
        sums: The sums of each row, updated in place (float32, rows × 4).
    """
    # From the last column to the first, as in `column_sums`, so that rounding is the same.
    for position in range(len(columns) - 1, -1, -1):
        x, column = values[position], columns[position]
        square = squares[position]
        # Unsigned indexes cannot be negative, so Numba omits a check that would make the loop 1.5
        # times as slow.
        for cell in range(np.uint64(indptr[column]), np.uint64(indptr[column + 1])):
            row, y = np.uint64(rows[cell]), others[cell]
            sums[row, 0] += x * y
            sums[row, 1] += other_squares[cell]
            sums[row, 2] += square
            sums[row, 3] += np.float32(1)


@njit(nogil=True)
def _move(running: Float32, rows: Int32, sums: Float32, end: int) -> int:
    """Appends the rows with a positive Σ x y to `rows` and `sums`, and resets `running` to 0.

    Args:
        running: The sums of each row (float32, rows × 4).
        rows: The rows appended so far (int32, n).
        sums: Their sums (float32, 4 × n).
        end: The number of rows appended so far.

    Returns:
        The number of rows appended afterwards.
    """
    # With unsigned indexes, as in `_add`, and without an inner loop, this takes less than half of
    # the time.
    place, zero = np.uint64(end), np.float32(0)
    for index in range(len(running)):
        row = np.uint64(index)
        product, square = running[row, 0], running[row, 1]
        vector_square, count = running[row, 2], running[row, 3]
        running[row, 0] = running[row, 1] = running[row, 2] = running[row, 3] = zero
        rows[place] = index
        sums[0, place], sums[1, place] = product, square
        sums[2, place], sums[3, place] = vector_square, count
        # Written unconditionally; the next row overwrites it unless it is kept.
        place += np.uint64(product > 0)
    return int(place)
