"""Similarities from co-rated ratings, and the nearest neighbours that they give.

Users and items are treated alike. A row is a user whose columns are items, or an item whose
columns are users; what stands in the matrix are residuals, the ratings less the bias baseline.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
from scipy.sparse import csc_array, csr_array
from scipy.sparse._sparsetools import csc_matvec

from marquee_core.arrays import Float32, Int32, Int64, load_array, save_array
from marquee_core.errors import ArtifactError

RowMatrix: TypeAlias = "csr_array[np.float32, tuple[int, int]]"
ColumnMatrix: TypeAlias = "csc_array[np.float32]"


def csr_matrix(indptr: Int64, indices: Int32, values: Float32, width: int) -> RowMatrix:
    """A SciPy matrix on the given arrays, without copies of `indices` and `values`."""
    # SciPy copies both index arrays on every use unless they have one type.
    pointers = indptr.astype(np.int32)
    return csr_array((values, indices, pointers), shape=(len(indptr) - 1, width))


def column_sums(
    matrix: ColumnMatrix, columns: Int32, weights: Float32, values: Float32 | None = None
) -> Float32:
    """Σ_j w_j m_ij over some columns j: `matrix[:, columns] @ weights`, without the slice.

    To copy the columns takes SciPy longer than to multiply them, so its kernel is called on them
    where they lie.

    Args:
        matrix: m (float32, rows × columns).
        columns: The columns, ascending (int32, n).
        weights: w (float32, n).
        values: Stand in for the matrix's own (float32, nonzeros).

    Returns:
        The sums (float32, rows).
    """
    # The kernel reads the j-th of its columns from the j-th pointer to the next. Here every other
    # one is what lies between two of ours: backwards, as the last comes first, so nothing.
    pointers = np.empty(2 * len(columns) + 1, dtype=np.int32)
    pointers[0:-1:2] = matrix.indptr[columns][::-1]
    pointers[1::2] = matrix.indptr[1:][columns][::-1]
    pointers[-1] = 0
    spread = np.zeros(2 * len(columns), dtype=np.float32)
    spread[::2] = weights[::-1]
    sums = np.zeros(matrix.shape[0], dtype=np.float32)
    data = matrix.data if values is None else values
    csc_matvec(len(sums), len(spread), pointers, matrix.indices, data, spread, sums)
    return sums


@dataclass(frozen=True)
class NeighbourConfig:
    """What user-based and item-based filtering have in common.

    Attributes:
        neighbours: K, at most so many neighbours of a row.
        shrinkage: λ of the similarity, in co-ratings.
        overlap_power: q of the similarity.
        damping: δ, the weight of a prediction of no departure from the baseline, as a share of
            the total similarity of a row's neighbours.
    """

    neighbours: int
    shrinkage: float
    overlap_power: float
    damping: float

    def __post_init__(self) -> None:
        if not 1 <= self.neighbours < np.inf:
            raise ValueError(f"neighbours: {self.neighbours} is not finite and at least 1")
        for name in ("shrinkage", "overlap_power"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is not finite and at least 0")
        if not 0 < self.damping < np.inf:
            raise ValueError(f"damping: {self.damping} is not finite and above 0")


@dataclass(frozen=True)
class CommonSums:
    """Sums of a vector x and a row y over the columns that both have, where Σ x y is above 0.

    Attributes:
        rows: Which rows, ascending for each vector (int32, n).
        products: Σ x y, above 0 (float32, n).
        squares: Σ y² (float32, n).
        vector_squares: Σ x² (float32, n).
        counts: How many columns both have (float32, n).
    """

    rows: Int32
    products: Float32
    squares: Float32
    vector_squares: Float32
    counts: Float32


@dataclass(frozen=True)
class CoRatings:
    """A matrix of residuals, both ways round.

    Attributes:
        rows: Residuals by row (float32, rows × columns).
        columns: The same by column (float32, rows × columns).
        counts: How many residuals each row has (float32, rows).
    """

    rows: RowMatrix
    columns: ColumnMatrix
    counts: Float32

    @classmethod
    def of(cls, rows: RowMatrix) -> Self:
        """Sorts a matrix by column as well."""
        return cls(rows, rows.tocsc(), np.diff(rows.indptr).astype(np.float32))

    def row(self, index: int) -> tuple[Int32, Float32]:
        """The columns of a row and the residuals there."""
        part = slice(self.rows.indptr[index], self.rows.indptr[index + 1])
        return self.rows.indices[part], self.rows.data[part]

    def sums(self, columns: Int32, values: Float32) -> CommonSums:
        """What a vector and each row have on the columns that both have.

        Args:
            columns: Columns of the vector, distinct (int32, n).
            values: Its values there (float32, n).
        """
        # Only the columns that the vector has are read: the cost is the number of co-ratings.
        part = self.columns[:, columns]
        ones = np.ones(len(columns), dtype=np.float32)
        products = part @ values
        rows = np.flatnonzero(products > 0).astype(np.int32)
        part.data = np.square(part.data)
        squares = part @ ones
        part.data = np.ones_like(part.data)
        vector_squares, counts = part @ np.square(values), part @ ones
        return CommonSums(rows, products[rows], squares[rows], vector_squares[rows], counts[rows])

    def similarities(self, sizes: Float32, sums: CommonSums, config: NeighbourConfig) -> Float32:
        """Similarities of vectors and rows, s = ρ · n / (n + λ) · J^q.

        ρ = Σ x y / √(Σ x² · Σ y²), above 0, is the Pearson correlation over the n columns that
        both have. The baseline has centred the residuals; they are not centred again on the
        common columns, of which there are often few (Koren, 2010, section 2.2). The second factor
        shrinks correlations of few co-ratings (equation 2 there). The third weighs significance
        by J, the Jaccard index of the two sets of columns: who rated an item, or what a user
        chose to rate, tells of taste as well.

        Args:
            sizes: How many columns the vector has, or each vector (float32, 1 or n).
            sums: Of vectors and rows.
            config: λ and q.

        Returns:
            Similarities, at most 1, and above 0 but for rounding (float32, n).
        """
        common = sums.counts
        found: Float32 = sums.products / np.sqrt(sums.squares * sums.vector_squares)
        np.minimum(found, 1.0, out=found)
        found *= common / (common + np.float32(config.shrinkage))
        found *= (common / (sizes + self.counts[sums.rows] - common)) ** config.overlap_power
        return found


def nearest(rows: Int32, similarities: Float32, count: int) -> tuple[Int32, Float32]:
    """The rows of highest similarity above 0, in their order, and their similarities.

    Of equal similarities the first rows stay.

    Args:
        rows: The rows, ascending (int32, n).
        similarities: Of each (float32, n).
        count: At most so many.
    """
    least = np.float32(0)
    if count < len(rows):
        place = len(rows) - count
        least = np.maximum(np.partition(similarities, place)[place], least)
    best = similarities > least
    if least > 0:
        best[np.flatnonzero(similarities == least)[: count - np.count_nonzero(best)]] = True
    return rows[best], similarities[best]


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of each of n rows, in CSR form.

    Attributes:
        indptr: Where each row's neighbours begin, and the end of the last (int64, n + 1).
        indices: The neighbours, ascending within a row (int32, nnz).
        similarities: Their similarities, above 0 and at most 1 (float32, nnz).
    """

    indptr: Int64
    indices: Int32
    similarities: Float32

    @classmethod
    def of(cls, rows: Iterable[tuple[Int32, Float32]]) -> Self:
        """Joins the neighbours and similarities of each row."""
        found = [(np.empty(0, np.int32), np.empty(0, np.float32)), *rows]
        indptr = np.cumsum([len(indices) for indices, _ in found], dtype=np.int64)
        return cls(
            indptr,
            np.concatenate([indices for indices, _ in found]),
            np.concatenate([similarities for _, similarities in found]),
        )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, index: int) -> tuple[Int32, Float32]:
        """The neighbours of a row and their similarities."""
        part = slice(self.indptr[index], self.indptr[index + 1])
        return self.indices[part], self.similarities[part]

    def matrix(self) -> RowMatrix:
        """The similarities as a matrix (float32, n × n)."""
        return csr_matrix(self.indptr, self.indices, self.similarities, len(self))

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder."""
        save_array(folder / "neighbour_indptr.npy", self.indptr)
        save_array(folder / "neighbours.npy", self.indices)
        save_array(folder / "similarities.npy", self.similarities)

    @classmethod
    def load(cls, folder: Path, count: int) -> Self:
        """Maps the arrays that `save` wrote.

        Args:
            folder: Where they are.
            count: n, the number of rows that there must be.

        Raises:
            ArtifactError: A file is not the array that it should be, or they do not fit together.
        """
        indptr = load_array(folder / "neighbour_indptr.npy", np.int64, (count + 1,))
        if indptr[0] != 0 or bool((np.diff(indptr) < 0).any()):
            raise ArtifactError("neighbour_indptr.npy: not ascending from 0")
        size = int(indptr[-1])
        indices = load_array(folder / "neighbours.npy", np.int32, (size,))
        if size and not 0 <= indices.min() <= indices.max() < count:
            raise ArtifactError("neighbours.npy: a neighbour does not exist")
        similarities = load_array(folder / "similarities.npy", np.float32, (size,))
        if not bool(((similarities > 0) & (similarities <= 1)).all()):
            raise ArtifactError("similarities.npy: not all above 0 and at most 1")
        return cls(indptr, indices, similarities)
