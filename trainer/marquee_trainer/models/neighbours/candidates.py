"""Chooses candidate neighbours where comparing all pairs of rows would cost too much.

The similarity of two rows is close to the cosine of their residual vectors, which is high if they
rate many of the same columns alike. Projected on a few dimensions, the vectors of thousands of rows
are compared at once by a matrix product; the best candidates are then compared exactly.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.scorers.neighbours import CommonSums, CoRatings
from marquee_core.scorers.sparse import RowMatrix
from marquee_trainer.threads import blas_threads, map_blocks

# The dimensions that rows are projected on, and how often the projection is improved.
_DIMENSIONS = 64
_ITERATIONS = 2
# Rows are grouped by similar vectors, about so many in a group; a group is compared with the rows
# of the nearest groups, as many as have at least so many rows.
_GROUP_ROWS = 512
_PROBED_ROWS = 8_192
_SEED = 0


def candidate_rows(ratings: CoRatings, count: int) -> Int32:
    """Finds for each row the rows with the most similar vectors.

    The cost grows in proportion to the ratings and to the rows: each row is compared with a fixed
    number of others.

    Args:
        ratings: The residual matrix.
        count: The number of candidates of each row; fewer if there are fewer other rows to
            compare with.

    Returns:
        Different rows for each row, ascending, among them the row itself (int32, rows × n).
    """
    vectors = row_vectors(ratings.rows)
    rows = len(vectors)
    random = np.random.default_rng(_SEED)
    centre_count = max(1, rows // _GROUP_ROWS)
    centres = vectors[np.sort(random.choice(rows, centre_count, replace=False))]
    group = np.concatenate(
        map_blocks(lambda a, b: (vectors[a:b] @ centres.T).argmax(axis=1), rows, 1 << 14)
    )
    members = np.argsort(group, kind="stable").astype(np.int32)
    ends = np.searchsorted(group[members], np.arange(centre_count + 1))
    nearest_groups = np.argsort(-(centres @ centres.T), axis=1, kind="stable")
    sizes = np.diff(ends)
    kept = min(count, rows, _PROBED_ROWS)
    found = np.empty((rows, kept), dtype=np.int32)
    counts = np.maximum(ratings.counts, np.float32(1))
    roots = np.sqrt(counts)

    def search(number: int, _: int) -> None:
        own = members[ends[number] : ends[number + 1]]
        order = nearest_groups[number]
        enough = int(np.searchsorted(np.cumsum(sizes[order]), min(rows, _PROBED_ROWS))) + 1
        probed = np.concatenate([members[ends[g] : ends[g + 1]] for g in order[:enough]])
        probed.sort()
        for start in range(0, len(own), _GROUP_ROWS):
            part = own[start : start + _GROUP_ROWS]
            closeness = vectors[part] @ vectors[probed].T
            # √(n m) / (n + m) turns the overlap of the cosine into about that of the similarity,
            # which is the Jaccard index: rows of very different sizes are not similar.
            closeness *= roots[part, None] * roots[probed]
            closeness /= counts[part, None] + counts[probed]
            # A row is always among its own candidates, so that their number is the same for all.
            closeness[np.arange(len(part)), np.searchsorted(probed, part)] = np.inf
            if kept < len(probed):
                best = np.argpartition(closeness, -kept, axis=1)[:, -kept:]
            else:
                best = np.broadcast_to(np.arange(len(probed)), closeness.shape)
            found[part] = np.sort(probed[best], axis=1)

    map_blocks(search, centre_count, 1)
    return found


def row_vectors(rows: RowMatrix) -> Float32:
    """Projects the rows, each scaled to length 1, on their main directions (float32, rows × d).

    The directions are the right singular vectors of the largest singular values, found by subspace
    iteration from a random start (Halko, Martinsson and Tropp, 2011, algorithm 4.4).

    Args:
        rows: The residual matrix (float32, rows × columns).
    """
    lengths = np.sqrt(rows.multiply(rows).sum(axis=1))
    scaled = rows.copy()
    counts = np.diff(rows.indptr)
    scaled.data /= np.repeat(np.where(lengths > 0, lengths, 1.0), counts).astype(np.float32)
    columns = rows.shape[1]
    random = np.random.default_rng(_SEED)
    directions = random.standard_normal(
        (columns, min(_DIMENSIONS, columns, rows.shape[0])), dtype=np.float32
    )
    by_column = scaled.T.tocsr()
    with blas_threads(1):
        for _ in range(_ITERATIONS):
            directions = by_column @ (scaled @ directions)
            directions = np.linalg.qr(directions)[0].astype(np.float32)
    vectors: Float32 = (scaled @ directions).astype(np.float32)
    return vectors


def candidate_sums(
    ratings: CoRatings, candidates: Int32, first: int, last: int
) -> tuple[list[int], Int32, CommonSums]:
    """Computes the sums of the rows `first` to `last` with their candidates.

    They are the same, to the bit, as those of a comparison with all rows.

    Args:
        ratings: The residual matrix.
        candidates: The candidates of each row of the block, ascending (int32, rows × n).
        first: The first row of the block.
        last: The end of the block.

    Returns:
        The start of each row's sums, then the end of the last row's; the owning row of each sum
        (int32, n); and the sums.
    """
    matrix = ratings.rows
    size = candidates.size
    others = np.empty(size + 1, dtype=np.int32)
    sums = np.empty((4, size + 1), dtype=np.float32)
    ends = np.zeros(last - first + 1, dtype=np.int64)
    place = np.zeros((matrix.shape[1], 2), dtype=np.float32)
    _compare(
        matrix.indptr, matrix.indices, matrix.data, candidates, first, place, others, sums, ends
    )
    owners = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(ends))
    end = int(ends[-1])
    return ends.tolist(), owners, CommonSums(others[:end], *sums[:, :end])


@njit(nogil=True)
def _compare(
    indptr: Int32 | Int64,
    columns: Int32 | Int64,
    values: Float32,
    candidates: Int32,
    first: int,
    place: Float32,
    others: Int32,
    sums: Float32,
    ends: Int64,
) -> None:
    """Computes Σ x y, Σ y², Σ x² and n of each row x and each of its candidates y.

    Args:
        indptr: The start of each row, then the end of the last one (int32, or int64 from 2³¹
            ratings on).
        columns: The columns of each row (of the type of `indptr`, nnz).
        values: The residuals (float32, nnz).
        candidates: The candidates of each row of the block (int32, B × n).
        first: The first row of the block.
        place: Zeros, to work in (float32, columns × 2).
        others: The candidates with a positive Σ x y (int32, at least B · n + 1); written.
        sums: Their sums (float32, 4 × the length of `others`); written.
        ends: The start of each row's sums, then the end of the last row's (int64, B + 1); written.
    """
    end = 0
    for row in range(len(candidates)):
        start, stop = indptr[first + row], indptr[first + row + 1]
        for cell in range(start, stop):
            place[columns[cell], 0] = values[cell]
            place[columns[cell], 1] = 1.0
        for number in range(candidates.shape[1]):
            candidate = candidates[row, number]
            product, square, own_square = np.float32(0), np.float32(0), np.float32(0)
            common = np.float32(0)
            # From the last column to the first, as the sums with all rows are added. Columns that
            # x lacks add zeros, which is faster than to branch.
            for back in range(indptr[candidate + 1] - indptr[candidate]):
                other = np.uint64(indptr[candidate + 1] - 1 - back)
                column, y = np.uint64(columns[other]), values[other]
                x, given = place[column, 0], place[column, 1]
                product += x * y
                square += given * (y * y)
                own_square += x * x
                common += given
            others[end] = candidate
            sums[0, end], sums[1, end] = product, square
            sums[2, end], sums[3, end] = own_square, common
            # Written in any case; the next candidate overwrites it unless it is kept.
            end += int(product > 0)
        ends[row + 1] = end
        for cell in range(start, stop):
            place[columns[cell], 0] = 0.0
            place[columns[cell], 1] = 0.0
