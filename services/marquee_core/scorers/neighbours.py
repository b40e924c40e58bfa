"""Similarities between rows of a residual matrix, and the nearest neighbours of each row.

This module is used by user-based filtering, where rows are users and columns are items, and by
item-based filtering, where rows are items and columns are users. The entries are residuals: ratings
minus the bias baseline.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import numpy as np

from marquee_core.arrays import Float32, Int32, Int64, UInt64, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.scorers.hyperparameters import (
    ModelConfig,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Search,
)
from marquee_core.scorers.packed_sums import (
    OTHER_BITS,
    OwnSquares,
    count_units,
    pack_other,
    square_units,
    unpack,
)
from marquee_core.scorers.sparse import ColumnMatrix, RowMatrix, SelectedColumns, csr_matrix


@dataclass(frozen=True)
class NeighbourConfig(ModelConfig):
    """The hyperparameters shared by user-based and item-based filtering.

    Attributes:
        neighbours: K, the maximum number of neighbours of a row.
        shrinkage: λ of the similarity (see `CoRatings.similarities`), in common columns.
        overlap_power: q of the similarity; 0 ignores the overlap.
        damping: δ, the weight of a residual of 0 in a prediction, as a share of the total
            similarity of a row's neighbours. It pulls predictions with little support towards the
            baseline.
    """

    neighbours: Annotated[PositiveInt, Search(40, 300)]
    shrinkage: Annotated[NonNegativeFloat, Search(5.0, 200.0)]
    overlap_power: Annotated[NonNegativeFloat, Search(0.3, 3.0, log=False)]
    damping: Annotated[PositiveFloat, Search(0.005, 0.1)]


@dataclass(frozen=True)
class CommonSums:
    """Sums over the common columns of a vector x and each row y for which Σ x y is positive.

    Attributes:
        rows: The rows, ascending for each vector (int32, n).
        products: Σ x y, positive (float32, n).
        squares: Σ y² (float32, n).
        vector_squares: Σ x² (float32, n).
        counts: The number of common columns (float32, n).
    """

    rows: Int32
    products: Float32
    squares: Float32
    vector_squares: Float32
    counts: Float32


@dataclass(frozen=True)
class CoRatings:
    """A residual matrix, stored by row and by column.

    Attributes:
        rows: The residuals by row (float32, rows × columns).
        columns: The same residuals by column (float32, rows × columns).
        counts: The number of residuals in each row (float32, rows).
    """

    rows: RowMatrix
    columns: ColumnMatrix
    counts: Float32

    @classmethod
    def of(cls, rows: RowMatrix) -> Self:
        """Creates both representations from a matrix stored by row."""
        return cls(rows, rows.tocsc(), np.diff(rows.indptr).astype(np.float32))

    @classmethod
    def of_columns(cls, columns: ColumnMatrix) -> Self:
        """Creates both representations from a matrix stored by column, with ascending rows."""
        rows = columns.tocsr()
        return cls(rows, columns, np.diff(rows.indptr).astype(np.float32))

    def row(self, index: int) -> tuple[Int32, Float32]:
        """Returns the columns of a row (int32, n) and its residuals (float32, n)."""
        part = slice(self.rows.indptr[index], self.rows.indptr[index + 1])
        return self.rows.indices[part], self.rows.data[part]

    @property
    def width(self) -> int:
        """The number of columns."""
        return int(self.rows.shape[1])

    def rows_size(self, rows: Int32) -> int:
        """Returns the number of residuals in some rows."""
        return int(self.counts[rows].sum())

    def columns_size(self, columns: Int32) -> int:
        """Returns the number of residuals in some columns."""
        return int(self._column_counts[columns].sum())

    @cached_property
    def _column_counts(self) -> Float32:
        """The number of residuals in each column (float32, columns)."""
        return np.diff(self.columns.indptr).astype(np.float32)

    def sums(self, columns: Int32, values: Float32, own: OwnSquares | None = None) -> CommonSums:
        """Computes the sums over the common columns of a vector and each row.

        Args:
            columns: The columns of the vector, distinct and ascending (int32, n).
            values: The values of the vector (float32, n).
            own: The squares of the values, if they have been counted already.
        """
        # Reads only the vector's columns, in place and twice, so the cost is proportional to the
        # number of co-ratings.
        if own is None:
            own = OwnSquares.of(values, np.array([len(values)]))
        selected = SelectedColumns(self.columns, columns)
        products = selected.sums(values, self.columns.data)
        packed = selected.sums(own.packed, self.packed)
        rows = (products > 0).nonzero()[0]
        sums = unpack(packed[rows], own.units, self.units[rows])
        return CommonSums(rows.astype(np.int32), products[rows], *sums)

    @cached_property
    def units(self) -> Float32:
        """The unit of the squares of each row, as other rows use them (float32, rows)."""
        return square_units(
            np.square(self.columns.data), self.columns.indices, len(self.counts), OTHER_BITS
        )

    @cached_property
    def packed(self) -> UInt64:
        """1 and y² for each entry of `columns`, as one integer (uint64, nnz); see `pack_other`."""
        return pack_other(
            count_units(np.square(self.columns.data), self.units[self.columns.indices])
        )

    @cached_property
    def column_squares(self) -> Float32:
        """y² for each entry of `columns`, rounded like in `packed` (float32, nnz)."""
        units = self.units[self.columns.indices]
        return count_units(np.square(self.columns.data), units) * units

    @cached_property
    def row_squares(self) -> Float32:
        """y² for each entry of `rows`, rounded like in `packed` (float32, nnz)."""
        units = np.repeat(self.units, np.diff(self.rows.indptr))
        return count_units(np.square(self.rows.data), units) * units

    def own_squares(self, first: int, last: int) -> Float32:
        """Returns x² for each entry of some rows, rounded like those of the vector in `sums`.

        Args:
            first: The first row.
            last: The end of the rows.

        Returns:
            The squares (float32, number of entries).
        """
        indptr = self.rows.indptr[first : last + 1]
        counts = np.diff(indptr)
        return OwnSquares.of(self.rows.data[indptr[0] : indptr[-1]], counts).rounded(counts)

    def similarities(self, sizes: Float32, sums: CommonSums, config: NeighbourConfig) -> Float32:
        """Computes the similarities of vectors and rows, s = ρ · n / (n + λ) · J^q.

        ρ = Σ x y / √(Σ x² · Σ y²) is the Pearson correlation over the n common columns; only
        positive correlations occur. The residuals are already centred by the baseline. They are
        not centred again on the common columns, of which there are often few (Koren, 2010, section
        2.2). The second factor shrinks correlations based on few co-ratings (equation 2 there).
        The third factor is significance weighting by J, the Jaccard index of the two sets of
        columns, because the choice of items to rate also reveals taste.

        Args:
            sizes: The number of columns of the vector, or of each vector (float32, 1 or n).
            sums: The sums of vectors and rows.
            config: λ and q.

        Returns:
            The similarities, from 0 to 1; 0 only if a small value underflows (float32, n).
        """
        common = sums.counts
        result: Float32 = sums.products / np.sqrt(sums.squares * sums.vector_squares)
        np.minimum(result, 1.0, out=result)
        result *= common / (common + np.float32(config.shrinkage))
        result *= (common / (sizes + self.counts[sums.rows] - common)) ** config.overlap_power
        return result


def nearest(rows: Int32, similarities: Float32, count: int) -> tuple[Int32, Float32]:
    """Selects the rows with the highest positive similarities.

    Ties are broken in favour of lower row indexes.

    Args:
        rows: The rows, ascending (int32, n).
        similarities: The similarity of each row (float32, n).
        count: The maximum number of rows to select.

    Returns:
        The selected rows, ascending (int32, k), and their similarities (float32, k).
    """
    least = np.float32(0)
    if count < len(rows):
        cut = len(rows) - count
        least = np.maximum(np.partition(similarities, cut)[cut], least)
    best = similarities > least
    if least > 0:
        best[np.flatnonzero(similarities == least)[: count - np.count_nonzero(best)]] = True
    return rows[best], similarities[best]


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of each of n rows, in CSR form.

    Attributes:
        indptr: The start of each row's neighbours in the other arrays, then the end of the last
            row's (int64, n + 1).
        indices: The neighbours, ascending within a row (int32, nnz).
        similarities: Their similarities, positive and at most 1 (float32, nnz).
    """

    indptr: Int64
    indices: Int32
    similarities: Float32

    @classmethod
    def of(cls, rows: Iterable[tuple[Int32, Float32]]) -> Self:
        """Concatenates the neighbours and similarities of all rows."""
        result = [(np.empty(0, np.int32), np.empty(0, np.float32)), *rows]
        indptr = np.cumsum([len(indices) for indices, _ in result], dtype=np.int64)
        return cls(
            indptr,
            np.concatenate([indices for indices, _ in result]),
            np.concatenate([similarities for _, similarities in result]),
        )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, index: int) -> tuple[Int32, Float32]:
        """Returns the neighbours of a row (int32, k) and their similarities (float32, k)."""
        part = slice(self.indptr[index], self.indptr[index + 1])
        return self.indices[part], self.similarities[part]

    def matrix(self) -> RowMatrix:
        """Returns the similarities as a matrix (float32, n × n)."""
        return csr_matrix(self.indptr, self.indices, self.similarities, len(self))

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder."""
        save_array(folder / "neighbour_indptr.npy", self.indptr)
        save_array(folder / "neighbours.npy", self.indices)
        save_array(folder / "similarities.npy", self.similarities)

    @classmethod
    def load(cls, folder: Path, count: int) -> Self:
        """Loads neighbours written by `save`; the arrays are memory-mapped.

        Args:
            folder: The folder.
            count: n, the expected number of rows.

        Raises:
            ArtifactError: A file is missing or damaged, or the arrays are inconsistent.
        """
        indptr = load_array(folder / "neighbour_indptr.npy", np.int64, (count + 1,))
        if indptr[0] != 0 or bool((np.diff(indptr) < 0).any()):
            raise ArtifactError("neighbour_indptr.npy: values must start at 0 and never decrease")
        size = int(indptr[-1])
        indices = load_array(folder / "neighbours.npy", np.int32, (size,))
        if size and not 0 <= indices.min() <= indices.max() < count:
            raise ArtifactError("neighbours.npy: a value is not the index of a row")
        similarities = load_array(folder / "similarities.npy", np.float32, (size,))
        if not bool(((similarities > 0) & (similarities <= 1)).all()):
            raise ArtifactError("similarities.npy: values must be above 0 and at most 1")
        return cls(indptr, indices, similarities)
