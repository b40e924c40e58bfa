"""Sorts rows by two columns of small codes in linear time, and gathers values in that order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from marquee_core.arrays import Int32, Int64

_Value = TypeVar("_Value", bound=np.generic)
# Number of rows gathered at a time. NumPy converts their indexes to 8 bytes each.
_PICKED_ROWS = 1 << 20


class SortedRows(NamedTuple):
    """Rows sorted by two columns of codes.

    Attributes:
        order: The rows in their new order; rows with equal codes keep their order (int32, or int64
            for more than 2³¹ rows; n).
        first: The sorted codes of the primary column (int32, n).
        second: The sorted codes of the secondary column (int32, n).
    """

    order: Int32 | Int64
    first: Int32
    second: Int32


def sort_rows(first: Int32, second: Int32) -> SortedRows:
    """Sorts rows by two columns of codes.

    The order is that of `numpy.lexsort((second, first))`. Two stable counting sorts, by the second
    and then by the first column, are done by SciPy's conversion of a matrix from row to column
    format. Memory and time also grow with the largest codes.

    Args:
        first: The primary column, at least 0 (int32, n).
        second: The secondary column, at least 0 (int32, n).
    """
    count = len(first)
    heights = int(first.max(initial=-1)) + 1
    widths = int(second.max(initial=-1)) + 1
    is_short = count < np.iinfo(np.int32).max
    starts: Int32 | Int64
    starts = np.arange(count + 1, dtype=np.int32) if is_short else np.arange(count + 1)
    # A matrix with one entry per row; in column format, its entries are sorted by the second code.
    by_second = csr_array((first, second, starts), shape=(count, widths)).tocsc()
    del starts
    entries = (by_second.indices, by_second.data, by_second.indptr)
    by_both = csr_array(entries, shape=(widths, heights)).tocsc()
    firsts = np.repeat(np.arange(heights, dtype=np.int32), np.diff(by_both.indptr))
    return SortedRows(by_both.data, firsts, by_both.indices.astype(np.int32, copy=False))


def gather(
    values: NDArray[Any], rows: NDArray[Any], dtype: type[_Value] | None = None
) -> NDArray[_Value]:
    """Returns `values[rows]`, using less memory.

    Args:
        values: The values (n).
        rows: The rows, in any order (integers, m).
        dtype: The type of the result; None for that of the values.
    """
    starts = range(0, len(rows), _PICKED_ROWS)
    chunks = [rows[start : start + _PICKED_ROWS] for start in starts]
    return gather_chunks(values, chunks, dtype)


def gather_chunks(
    values: NDArray[Any], chunks: Sequence[NDArray[Any]], dtype: type[_Value] | None = None
) -> NDArray[_Value]:
    """Gathers values at the indexes in several arrays, and concatenates them.

    Args:
        values: The values (n).
        chunks: Their indexes (integers, m in total).
        dtype: The type of the result; None for that of the values.
    """
    picked: NDArray[_Value] = np.empty(sum(map(len, chunks)), dtype=dtype or values.dtype)
    start = 0
    for chunk in chunks:
        end = start + len(chunk)
        # Indexes are never out of range; with this mode NumPy does not check them.
        picked[start:end] = np.take(values, chunk, mode="clip")
        start = end
    return picked
