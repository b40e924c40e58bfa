"""Sparse matrices, and products with them that are faster than SciPy's methods.

SciPy validates and copies the arrays whenever a matrix is created or sliced. With the few ratings
of a user, this takes longer than the products themselves, so this module calls SciPy's kernels
directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from scipy.sparse._sparsetools import csc_matvec, csc_matvecs, csr_matvec, csr_matvecs, csr_tocsc

from marquee_core.arrays import Float32, Int32, Int64, position_dtype

RowMatrix: TypeAlias = "csr_array[np.float32, tuple[int, int]]"
ColumnMatrix: TypeAlias = "csc_array[np.float32]"
_Value = TypeVar("_Value", np.float32, np.uint64)

# With more values than this, sorting them by column before a product pays off.
_MANY = 500


def csr_matrix(indptr: Int64, indices: Int32, values: Float32, width: int) -> RowMatrix:
    """Creates a SciPy matrix from the given arrays, without copying `values`.

    SciPy requires both index arrays to have the same dtype. Below 2³¹ values that is int32, and
    `indices` is not copied either. With more values, both index arrays are int64 copies.

    Args:
        indptr: Row pointers (int64, rows + 1).
        indices: The column of each value (int32, n).
        values: The values (float32, n).
        width: The number of columns.

    Raises:
        ValueError: The pointers end beyond the values.
    """
    pointers: NDArray[Any] = indptr.astype(position_dtype(int(indptr[-1])), copy=False)
    return csr_array((values, indices, pointers), shape=(len(indptr) - 1, width))


class SelectedColumns:
    """A selection of a matrix's columns that can be multiplied without copying them.

    Slicing a SciPy matrix copies the columns, which takes longer than the multiplication. This
    class calls SciPy's kernels on the columns in place.
    """

    def __init__(self, matrix: ColumnMatrix, columns: Int32) -> None:
        """Selects columns.

        Args:
            matrix: m (float32, rows × columns).
            columns: The columns, ascending; a column may occur more than once (int32, n).
        """
        # The kernels read column j between pointer j and the next one. Here every other column is a
        # selected one, and the columns in between are the gaps. The selection is in descending
        # order, so the pointers of a gap are decreasing and the kernels read nothing there.
        pointers = np.empty(2 * len(columns) + 1, dtype=matrix.indptr.dtype)
        pointers[0:-1:2] = matrix.indptr[columns][::-1]
        pointers[1::2] = matrix.indptr[1:][columns][::-1]
        pointers[-1] = 0
        self._matrix = matrix
        self._pointers = pointers

    def sums(self, weights: NDArray[_Value], values: NDArray[_Value]) -> NDArray[_Value]:
        """Computes Σ_j w_j m_ij over the columns j, the same as `matrix[:, columns] @ weights`.

        Args:
            weights: w (float32 or uint64, n).
            values: The values of the matrix, or others to use in their place, of the type of the
                weights (nonzeros).

        Returns:
            The sums, of the type of the weights (rows).
        """
        count, rows = len(weights), self._matrix.shape[0]
        spread = np.zeros(2 * count, dtype=weights.dtype)
        spread[::2] = weights[::-1]
        sums = np.zeros(rows, dtype=weights.dtype)
        csc_matvec(rows, 2 * count, self._pointers, self._matrix.indices, values, spread, sums)
        return sums

    def products(self, weights: NDArray[_Value], values: NDArray[_Value]) -> NDArray[_Value]:
        """Computes Σ_i w_i m_ij for each column j, the same as `weights @ matrix[:, columns]`.

        Args:
            weights: w (float32 or uint64, rows).
            values: The values of the matrix, or others to use in their place, of the type of the
                weights (nonzeros).

        Returns:
            The products, of the type of the weights (n).
        """
        count = len(self._pointers) - 1
        products = np.zeros(count, dtype=weights.dtype)
        # Columns stored by column are rows of the transposed matrix stored by row.
        csr_matvec(
            count, len(weights), self._pointers, self._matrix.indices, values, weights, products
        )
        return products[-2::-2] if count else products


def column_sums(
    matrix: ColumnMatrix, columns: Int32, weights: Float32, values: Float32 | None = None
) -> Float32:
    """Computes Σ_j w_j m_ij over some columns j; see `SelectedColumns`.

    Args:
        matrix: m (float32, rows × columns).
        columns: The columns, ascending (int32, n).
        weights: w (float32, n).
        values: Values to use in place of those of the matrix (float32, nonzeros).

    Returns:
        The sums (float32, rows).
    """
    return SelectedColumns(matrix, columns).sums(weights, matrix.data if values is None else values)


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Sparse rows, such as the histories of a batch of users.

    Attributes:
        indptr: Row pointers (int64, rows + 1).
        indices: The column of each value (int32, n).
        data: The values (float32, n).
        width: The number of columns.
    """

    indptr: Int64
    indices: Int32
    data: Float32
    width: int

    def matrix(self) -> RowMatrix:
        """Returns the rows as a SciPy matrix."""
        return csr_matrix(self.indptr, self.indices, self.data, self.width)

    def times(self, dense: Float32) -> Float32:
        """Returns the product with a dense matrix (float32, rows × k).

        Args:
            dense: The dense matrix, contiguous by row (float32, columns × k).
        """
        rows, count = len(self.indptr) - 1, len(self.indices)
        product = np.zeros((rows, dense.shape[1]), dtype=np.float32)
        pointers = self.indptr.astype(self.indices.dtype)
        shape, flat = (rows, self.width, dense.shape[1]), (dense.reshape(-1), product.reshape(-1))
        if count <= _MANY:
            csr_matvecs(*shape, pointers, self.indices, self.data, *flat)
            return product
        # Sorted by column, each row of the dense matrix is read only once.
        starts = np.empty(self.width + 1, dtype=np.int32)
        owners, values = np.empty_like(self.indices), np.empty_like(self.data)
        csr_tocsc(rows, self.width, pointers, self.indices, self.data, starts, owners, values)
        csc_matvecs(*shape, starts, owners, values, *flat)
        return product
