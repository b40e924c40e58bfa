"""Selects candidate neighbours if comparing all pairs of rows would cost too much.

The similarity of two rows is close to the cosine of their residual vectors, which is high if many
of their common columns have similar ratings. The vectors are projected to a few dimensions, in
which one matrix product compares thousands of rows. The best candidates are then compared exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.scorers.neighbours import CommonSums, CoRatings
from marquee_core.scorers.packed_sums import OwnSquares
from marquee_core.scorers.sparse import RowMatrix
from marquee_trainer.threads import blas_threads, map_blocks

# The number of dimensions of the projection, and of iterations that improve it.
_DIMENSIONS = 128
_ITERATIONS = 2
# Rows are clustered by their vectors. The first number is the approximate size of a cluster, and
# the second the smallest number of rows in the nearest clusters that a cluster is compared with.
_GROUP_ROWS = 512
_PROBED_ROWS = 8_192
# Number of rows whose proximities to all probed rows fit into a core's cache.
_COMPARED_ROWS = 64
_SEED = 0


class Candidates(NamedTuple):
    """The candidates of all rows.

    Attributes:
        of_rows: Distinct candidates of each row, including the row itself, ascending (int32,
            rows × n).
        order: All rows; those with similar vectors, which share many candidates, follow one another
            (int32, rows). In this order, most candidates of a row are still in the cache.
    """

    of_rows: Int32
    order: Int32


def candidate_rows(ratings: CoRatings, count: int) -> Candidates:
    """Finds the rows with the most similar vectors for each row.

    The cost is proportional to the numbers of ratings and of rows, because each row is compared
    with a fixed number of others.

    Args:
        ratings: The residual matrix.
        count: The number of candidates of each row, limited by the number of rows it is compared
            with.
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
    scaled = vectors * np.sqrt(counts)[:, None]

    def search(number: int, _: int) -> None:
        own = members[ends[number] : ends[number + 1]]
        order = nearest_groups[number]
        enough = int(np.searchsorted(np.cumsum(sizes[order]), min(rows, _PROBED_ROWS))) + 1
        probed = np.concatenate([members[ends[g] : ends[g + 1]] for g in order[:enough]])
        probed.sort()
        probed_vectors, probed_counts = np.ascontiguousarray(scaled[probed].T), counts[probed]
        for start in range(0, len(own), _COMPARED_ROWS):
            part = own[start : start + _COMPARED_ROWS]
            # The factor √(n m) / (n + m) approximates the Jaccard index in the similarity, by which
            # rows of very different sizes are not similar.
            closeness = scaled[part] @ probed_vectors
            closeness /= counts[part, None] + probed_counts
            # A row is always one of its own candidates, so that all rows have the same number.
            closeness[np.arange(len(part)), np.searchsorted(probed, part)] = np.inf
            found[part] = probed[_greatest(closeness, kept)]

    map_blocks(search, centre_count, 1)
    return Candidates(found, members)


def _greatest(values: Float32, count: int) -> Int64:
    """The positions of the largest values of each row, ascending (int64, rows × count).

    Args:
        values: The values (float32, rows × n).
        count: The number of values, at most n.
    """
    least = np.partition(values, -count, axis=1)[:, -count]
    # Comparing with the smallest of them is faster than `argpartition`, which is needed only if
    # there are ties.
    positions = np.flatnonzero(values >= least[:, None])
    if len(positions) == len(values) * count:
        best: Int64 = positions.reshape(len(values), count) % values.shape[1]
    else:
        best = np.sort(np.argpartition(values, -count, axis=1)[:, -count:], axis=1)
    return best


def row_vectors(rows: RowMatrix) -> Float32:
    """Projects the unit-length rows on their principal directions (float32, rows × d).

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
    ratings: CoRatings, rows: Int32, candidates: Int32
) -> tuple[list[int], Int32, CommonSums]:
    """Computes the sums over common columns of some rows with their candidates.

    They are bit-identical to those of a comparison with all rows.

    Args:
        ratings: The residual matrix.
        rows: The rows (int32, B).
        candidates: The candidates of each of them, ascending (int32, B × n).

    Returns:
        The start of each row's sums, then the end of the last row's; the owning row of each sum
        (int32, n); and the sums.
    """
    matrix = ratings.rows
    own = matrix[rows]
    counts = np.diff(own.indptr)
    size = candidates.size
    others = np.empty(size + 1, dtype=np.int32)
    sums = np.empty((4, size + 1), dtype=np.float32)
    ends = np.zeros(len(rows) + 1, dtype=np.int64)
    workspace = np.zeros((matrix.shape[1], 4), dtype=np.float32)
    _compare(
        matrix.indptr,
        matrix.indices,
        matrix.data,
        ratings.row_squares,
        OwnSquares.of(own.data, counts).rounded(counts),
        rows,
        candidates,
        workspace,
        others,
        sums,
        ends,
    )
    owners = np.repeat(rows, np.diff(ends))
    end = int(ends[-1])
    return ends.tolist(), owners, CommonSums(others[:end], *sums[:, :end])


_NOTHING = (np.float32(0), np.float32(0), np.float32(0), np.float32(0))


@njit(nogil=True)
def _added(
    sums: tuple[np.float32, np.float32, np.float32, np.float32],
    workspace: Float32,
    column: np.int32 | np.int64,
    y: np.float32,
    y_square: np.float32,
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Adds one rating of y to Σ x y, Σ y², Σ x² and n.

    Columns that x lacks add zeros, which is faster than branching.
    """
    cell = np.uint64(column)
    x, given, square = workspace[cell, 0], workspace[cell, 1], workspace[cell, 2]
    return sums[0] + x * y, sums[1] + given * y_square, sums[2] + square, sums[3] + given


@njit(nogil=True)
def _compare(
    indptr: Int32 | Int64,
    columns: Int32 | Int64,
    values: Float32,
    squares: Float32,
    own_squares: Float32,
    rows: Int32,
    candidates: Int32,
    workspace: Float32,
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
        squares: y², rounded as when serving (float32, nnz).
        own_squares: x² of the rows, one after another, rounded as when serving (float32, n).
        rows: The rows (int32, B).
        candidates: The candidates of each of them (int32, B × n).
        workspace: Zeros; working memory that is zero again afterwards (float32, columns × 4).
        others: The candidates with a positive Σ x y (int32, at least B · n + 1); written.
        sums: Their sums (float32, 4 × the length of `others`); written.
        ends: The start of each row's sums, then the end of the last row's (int64, B + 1); written.
    """
    # Ratings are added from the last column to the first, in the same order as in the sums with all
    # rows.
    end = position = 0
    for row in range(len(rows)):
        start, stop = indptr[rows[row]], indptr[rows[row] + 1]
        for cell in range(start, stop):
            workspace[columns[cell], 0] = values[cell]
            workspace[columns[cell], 1] = 1.0
            workspace[columns[cell], 2] = own_squares[position]
            position += 1
        count = candidates.shape[1]
        # Two candidates at a time, because additions to the same sum depend on each other.
        for number in range(0, count, 2):
            one = candidates[row, number]
            two = candidates[row, min(number + 1, count - 1)]
            size, other_size = indptr[one + 1] - indptr[one], indptr[two + 1] - indptr[two]
            both = min(size, other_size)
            found, other_found = _NOTHING, _NOTHING
            for back in range(both):
                own = np.uint64(indptr[one + 1] - 1 - back)
                other = np.uint64(indptr[two + 1] - 1 - back)
                found = _added(found, workspace, columns[own], values[own], squares[own])
                other_found = _added(
                    other_found, workspace, columns[other], values[other], squares[other]
                )
            for back in range(both, size):
                own = np.uint64(indptr[one + 1] - 1 - back)
                found = _added(found, workspace, columns[own], values[own], squares[own])
            for back in range(both, other_size):
                other = np.uint64(indptr[two + 1] - 1 - back)
                other_found = _added(
                    other_found, workspace, columns[other], values[other], squares[other]
                )
            # Written unconditionally; the next candidate overwrites it unless it is kept.
            others[end] = one
            sums[0, end], sums[1, end], sums[2, end], sums[3, end] = found
            end += int(found[0] > 0)
            if number + 1 < count:
                others[end] = two
                sums[0, end], sums[1, end], sums[2, end], sums[3, end] = other_found
                end += int(other_found[0] > 0)
        ends[row + 1] = end
        for cell in range(start, stop):
            workspace[columns[cell], 0] = 0.0
            workspace[columns[cell], 1] = 0.0
            workspace[columns[cell], 2] = 0.0
