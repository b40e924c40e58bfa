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

from marquee_core.arrays import Float32, Float64, Int32, Int64, UInt64, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.scorers.hyperparameters import (
    ModelConfig,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Search,
)
from marquee_core.scorers.sparse import ColumnMatrix, RowMatrix, SelectedColumns, csr_matrix

# `CoRatings.sums` computes three sums as one sum of integers: n in the lowest bits, and Σ x² and
# Σ y² from these bits on, in units that leave 20 and 22 bits for them. The integer of a column of
# x, 1 + 2²² X, times that of an entry of y, 1 + 2⁴² Y, is 1 + 2²² X + 2⁴² Y + 2⁶⁴ X Y. The last
# term does not fit into 64 bits, so it vanishes.
_FIRST, _SECOND = 22, 42
_OWN_BITS, _OTHER_BITS = _SECOND - _FIRST, 64 - _SECOND
# Weights are summed over entries as multiples of 2 to the power of minus this.
_WEIGHT_BITS = 26
# 2 to the power of this is the lowest normal number of float32.
_LEAST_EXPONENT = -126


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


@dataclass(frozen=True, eq=False)
class OwnSquares:
    """The squares x² of the values of vectors x, in the form that `CoRatings.sums` adds up.

    Attributes:
        packed: 1 and x² in units, as one integer (uint64, nnz).
        units: The unit of each vector (float32, n).
    """

    packed: UInt64
    units: Float32

    @classmethod
    def of(cls, values: Float32, counts: Int64) -> Self:
        """Counts the units in the squares.

        Args:
            values: The values of one vector after the other (float32, nnz).
            counts: The number of values of each vector (int64, n).
        """
        squares = np.square(values)
        vectors = np.repeat(np.arange(len(counts)), counts)
        units = square_units(np.bincount(vectors, squares, minlength=len(counts)), _OWN_BITS)
        packed = count_units(squares, units[vectors]).astype(np.uint64)
        packed <<= _FIRST
        packed |= 1
        return cls(packed, units)

    def vector(self, index: int, part: slice) -> OwnSquares:
        """Selects a vector.

        Args:
            index: The vector.
            part: The positions of its values.
        """
        return OwnSquares(self.packed[part], self.units[index : index + 1])


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
        # Signed integers, which the sums fit into, are converted faster.
        sums = packed[rows].view(np.int64)
        return CommonSums(
            rows.astype(np.int32),
            products[rows],
            (sums >> _SECOND).astype(np.float32) * self.units[rows],
            (sums >> _FIRST & _mask(_OWN_BITS)).astype(np.float32) * own.units,
            (sums & _mask(_FIRST)).astype(np.float32),
        )

    @cached_property
    def units(self) -> Float32:
        """The unit of the squares of each row, as other rows use them (float32, rows)."""
        squares, rows = np.square(self.columns.data), self.columns.indices
        return square_units(np.bincount(rows, squares, minlength=len(self.counts)), _OTHER_BITS)

    @cached_property
    def packed(self) -> UInt64:
        """1 and y² for each entry of `columns`, as one integer (uint64, nnz).

        The bits are explained at the top of this module.
        """
        squares = count_units(np.square(self.columns.data), self.units[self.columns.indices])
        packed = squares.astype(np.uint64)
        packed <<= _SECOND
        packed |= 1
        return packed

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
        own = OwnSquares.of(self.rows.data[indptr[0] : indptr[-1]], counts)
        return (own.packed >> _FIRST).astype(np.float32) * np.repeat(own.units, counts)

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


def _mask(bits: int) -> int:
    return (1 << bits) - 1


def square_units(totals: Float64, bits: int) -> Float32:
    """Returns the units in which the squares of vectors are counted; see `count_units`.

    A unit is a power of 2, and the sum of the squares is less than half of 2 to the power of `bits`
    units.

    Args:
        totals: The sum of the squares of each vector, added one by one (float64, n).
        bits: The number of bits that the sum of the squares may take, at most 24.

    Returns:
        The units (float32, n).
    """
    exponents = np.frexp(totals)[1] - (bits - 1)
    units: Float32 = np.ldexp(np.float32(1), np.maximum(exponents, _LEAST_EXPONENT))
    return units


def count_units(squares: Float32, units: Float32) -> Float32:
    """Returns the number of units in each square: rounded, but at least 1 unless the square is 0.

    The sum over a vector of up to half as many values as there may be units fits into the bits, so
    that any sum of its squares is exact, whether it adds integers or float32 multiples of the unit.

    Args:
        squares: The squares (float32, n).
        units: The unit of the vector of each square, or of all squares (float32, n or 1).

    Returns:
        The integers (float32, n).
    """
    counts: Float32 = squares / units
    np.rint(counts, out=counts)
    np.maximum(counts, squares > 0, out=counts)
    return counts


def weights_to_integers(weights: Float32) -> UInt64:
    """Returns weights between 0 and 1 as integers that can be summed with `CoRatings.packed`."""
    return np.rint(weights * np.float32(1 << _WEIGHT_BITS)).astype(np.uint64)


def integers_to_weights(sums: UInt64) -> Float32:
    """Returns the sums of weights, given their sums as integers with `CoRatings.packed`.

    Up to 2¹⁶ weights may be summed. The weights occupy the lower bits of a sum. The squares in
    `packed` only affect those above.
    """
    return (sums & _mask(_SECOND)).view(np.int64).astype(np.float32) * np.float32(
        2.0**-_WEIGHT_BITS
    )


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
