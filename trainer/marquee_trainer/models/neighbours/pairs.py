"""Compares each pair of rows once, for similarities that do not depend on the order of the pair.

This takes half of the additions of comparing each row with all rows. Each similarity is offered to
both rows of the pair, which keep their nearest neighbours so far.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.scorers.neighbours import CommonSums, CoRatings, Neighbours
from marquee_trainer.models.neighbours.prefetch import CACHE_LINE_BYTES, prefetch

# Prefetched are the columns after the next one (in the loop's order): at most this many residuals
# of each, after which the processor prefetches the others.
_AHEAD = 2
_PREFETCHED = 128
# The number of residuals in a line of the cache.
_PER_LINE = CACHE_LINE_BYTES // np.dtype(np.float32).itemsize


def pair_sums(ratings: CoRatings, first: int, last: int) -> tuple[Int32, CommonSums]:
    """Computes the sums over common columns of the rows `first` to `last` with all earlier rows.

    Squares are not rounded to units, unlike those of `CoRatings.sums`.

    Args:
        ratings: The residual matrix.
        first: The first row of the block.
        last: The end of the block.

    Returns:
        The later row of each pair, ascending (int32, n), and the sums with the earlier ones.
    """
    rows, columns = ratings.rows, ratings.columns
    pairs = (last - first) * (first + last - 1) // 2
    # One more, because the compiled code writes beyond the last pair that it keeps.
    owners, others = np.empty((2, pairs + 1), dtype=np.int32)
    sums = np.empty((4, pairs + 1), dtype=np.float32)
    end = _compare(
        first,
        last,
        rows.indptr,
        rows.indices,
        rows.data,
        columns.indptr,
        columns.indices,
        columns.data,
        owners,
        others,
        sums,
    )
    return owners[:end], CommonSums(others[:end], *sums[:, :end])


@njit(nogil=True)
def _compare(
    first: int,
    last: int,
    row_starts: Int32 | Int64,
    row_columns: Int32 | Int64,
    row_values: Float32,
    column_starts: Int32 | Int64,
    column_rows: Int32 | Int64,
    column_values: Float32,
    owners: Int32,
    others: Int32,
    sums: Float32,
) -> int:
    """Computes Σ x y, Σ y², Σ x² and n of the rows x `first` to `last` and each earlier row y.

    Args:
        first: The first row of the block.
        last: The end of the block.
        row_starts: The start of each row, then the end of the last one (int32, or int64 from 2³¹
            ratings on; so are the other positions).
        row_columns: The columns of each row (nnz).
        row_values: The residuals by row (float32, nnz).
        column_starts: The start of each column, then the end of the last one.
        column_rows: The rows of each column, ascending (nnz).
        column_values: The residuals by column (float32, nnz).
        owners: The row x of each pair with a positive Σ x y (int32, one more than pairs); written.
        others: Its row y (int32, one more than pairs); written.
        sums: The sums (float32, 4 × one more than pairs); written.

    Returns:
        The number of pairs that were written.
    """
    running = np.zeros((last, 4), dtype=np.float32)
    # Unsigned indexes cannot be negative, so Numba omits a check that would make the loops slower.
    end, zero = np.uint64(0), np.float32(0)
    for row in range(first, last):
        # From the last column to the first, as in the sums of `CoRatings.sums`, so that products
        # are rounded in the same order.
        for position in range(row_starts[row + 1] - 1, row_starts[row] - 1, -1):
            x, column = row_values[position], row_columns[position]
            square = x * x
            if position >= _AHEAD:
                ahead = row_columns[position - _AHEAD]
                begin = column_starts[ahead]
                stop = min(column_starts[ahead + 1], begin + min(row, _PREFETCHED))
                for cell in range(begin, stop, _PER_LINE):
                    prefetch(column_rows, cell)
                    prefetch(column_values, cell)
            begin, stop = column_starts[column], column_starts[column + 1]
            for cell in range(np.uint64(begin), np.uint64(stop)):
                other = np.uint64(column_rows[cell])
                if other >= np.uint64(row):
                    break
                y = column_values[cell]
                running[other, 0] += x * y
                running[other, 1] += y * y
                running[other, 2] += square
                running[other, 3] += np.float32(1)
        for index in range(row):
            other = np.uint64(index)
            product = running[other, 0]
            owners[end], others[end] = row, index
            sums[0, end], sums[1, end] = product, running[other, 1]
            sums[2, end], sums[3, end] = running[other, 2], running[other, 3]
            running[other, 0] = running[other, 1] = running[other, 2] = running[other, 3] = zero
            # Written unconditionally; the next row overwrites it unless it is kept.
            end += np.uint64(product > 0)
    return int(end)


class NearestSoFar:
    """The nearest neighbours of each row among those that have been offered so far.

    The result does not depend on the order of the offers.
    """

    def __init__(self, rows: int, count: int) -> None:
        """Starts without neighbours.

        Args:
            rows: The number of rows.
            count: The maximum number of neighbours of a row.
        """
        # Each row is a heap, whose first entry is the farthest neighbour. A row with fewer
        # neighbours is filled up with entries of similarity 0, whose neighbour is -1.
        self._similarities = np.zeros((rows, count), dtype=np.float32)
        self._neighbours = np.full((rows, count), -1, dtype=np.int32)
        # The first entries of all heaps, which fit into the cache.
        self._least = np.zeros(rows, dtype=np.float32)
        self._lock = Lock()

    def offer_pairs(
        self, first: int, last: int, owners: Int32, others: Int32, similarities: Float32
    ) -> None:
        """Offers both rows of each pair to each other; threads may do so at the same time.

        Args:
            first: The first owner.
            last: The end of the owners.
            owners: The owner of each pair, ascending (int32, n).
            others: The other row (int32, n).
            similarities: Their similarities; 0 for rows that must not be neighbours (float32, n).
        """
        # While threads wait for each other, only few pairs are left: the nearest of each owner, and
        # those above what the other row already has. If that is being raised meanwhile, some pairs
        # are kept in vain.
        count = self._neighbours.shape[1]
        own = np.zeros((last - first, count), dtype=np.float32)
        own_neighbours = np.full(own.shape, -1, dtype=np.int32)
        near = np.empty(len(owners) + 1, dtype=np.int32)
        found = _offer_to_owners(
            first, own, own_neighbours, owners, others, similarities, self._least, near
        )
        near = near[:found]
        heaps = self._similarities, self._neighbours, self._least
        rows = np.repeat(np.arange(first, last, dtype=np.int32), count)
        with self._lock:
            _offer(*heaps, rows, own_neighbours.reshape(-1), own.reshape(-1))
            _offer(*heaps, others[near], owners[near], similarities[near])

    def neighbours(self) -> Neighbours:
        """Returns the nearest neighbours; ties are broken in favour of lower row indexes."""
        order = np.argsort(self._neighbours, axis=1)
        neighbours = np.take_along_axis(self._neighbours, order, axis=1)
        found = neighbours >= 0
        indptr = np.zeros(len(found) + 1, dtype=np.int64)
        np.cumsum(np.count_nonzero(found, axis=1), out=indptr[1:])
        similarities = np.take_along_axis(self._similarities, order, axis=1)
        return Neighbours(indptr, neighbours[found], similarities[found])


@njit(nogil=True)
def _offer_to_owners(
    first: int,
    kept: Float32,
    kept_neighbours: Int32,
    owners: Int32,
    others: Int32,
    similarities: Float32,
    least: Float32,
    near: Int32,
) -> int:
    """Adds the other row of each pair to the heap of its owner, if it is near enough.

    Args:
        first: The first owner.
        kept: The similarities in the heap of each owner (float32, owners × count); updated.
        kept_neighbours: Their neighbours (int32, owners × count); updated.
        owners: The owner of each pair, ascending (int32, n).
        others: The other row (int32, n).
        similarities: Their similarities (float32, n).
        least: The least similarity in the heap of each row, owner or not (float32, rows).
        near: The pairs that reach the least similarity of the other row (int32, n + 1); written.

    Returns:
        The number of pairs in `near`.
    """
    found = np.uint64(0)
    for pair in range(len(owners)):
        similarity, place = similarities[pair], np.uint64(owners[pair] - first)
        if similarity >= kept[place, 0]:
            _add(kept[place], kept_neighbours[place], similarity, others[pair])
        # Written unconditionally; the next pair overwrites it unless it is kept.
        near[found] = pair
        found += np.uint64(similarity >= least[np.uint64(others[pair])])
    return int(found)


@njit(nogil=True)
def _offer(
    kept: Float32,
    kept_neighbours: Int32,
    least: Float32,
    rows: Int32,
    neighbours: Int32,
    similarities: Float32,
) -> None:
    """Adds neighbours to the heaps of rows, if they are near enough.

    Args:
        kept: The similarities in the heap of each row (float32, rows × count); updated.
        kept_neighbours: Their neighbours (int32, rows × count); updated.
        least: The least similarity in the heap of each row (float32, rows); updated.
        rows: The row that each neighbour is offered to (int32, n).
        neighbours: The neighbours (int32, n).
        similarities: Their similarities (float32, n).
    """
    for offered in range(len(rows)):
        row, similarity = rows[offered], similarities[offered]
        if similarity >= least[np.uint64(row)]:
            _add(kept[row], kept_neighbours[row], similarity, neighbours[offered])
            least[row] = kept[row, 0]


@njit(nogil=True)
def _add(kept: Float32, neighbours: Int32, similarity: np.float32, neighbour: int) -> None:
    """Replaces the farthest neighbour of a row, unless it is nearer than the new one.

    Args:
        kept: The similarities, as a heap (float32, count); updated.
        neighbours: Their rows (int32, count); updated.
        similarity: The similarity of the new neighbour, at least the least one.
        neighbour: The new neighbour.
    """
    if _is_farther(similarity, neighbour, kept[0], neighbours[0]):
        return
    place, child = 0, 1
    while child < len(kept):
        right = child + 1
        if right < len(kept) and _is_farther(
            kept[right], neighbours[right], kept[child], neighbours[child]
        ):
            child = right
        if not _is_farther(kept[child], neighbours[child], similarity, neighbour):
            break
        kept[place], neighbours[place] = kept[child], neighbours[child]
        place, child = child, 2 * child + 1
    kept[place], neighbours[place] = similarity, neighbour


@njit(nogil=True)
def _is_farther(similarity: np.float32, row: int, than: np.float32, than_row: int) -> bool:
    """Whether a row is farther than another; of equally similar rows, the lower is nearer."""
    return bool(similarity < than or (similarity == than and row > than_row))
