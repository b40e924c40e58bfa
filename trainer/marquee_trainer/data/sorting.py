"""Sorts many rows by two columns of small codes in linear time, and picks rows in that order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from marquee_core.arrays import Int32, Int64

_Value = TypeVar("_Value", bound=np.generic)
# Rows that are picked at a time. NumPy turns their places into 8 bytes each.
_PICKED_ROWS = 1 << 20


class SortedRows(NamedTuple):
    """Rows sorted by two columns of codes.

    Attributes:
        order: The rows in their new order; rows with equal codes keep their order (int32, or int64
            for more than 2³¹ rows; n).
        first: The sorted codes that matter most (int32, n).
        second: The sorted codes that decide among equal ones of the first column (int32, n).
    """

    order: Int32 | Int64
    first: Int32
    second: Int32


def sort_rows(first: Int32, second: Int32) -> SortedRows:
    """Sorts rows by two columns of codes.

    The order is that of `numpy.lexsort((second, first))`. The rows are sorted by counting, first by
    the second column and then, stably, by the first one: that is how SciPy turns a matrix by rows
    into one by columns. Memory and time also grow with the greatest codes.

    Args:
        first: The column that matters most, at least 0 (int32, n).
        second: The column that decides among equal codes of the first one, at least 0 (int32, n).
    """
    count = len(first)
    heights = int(first.max(initial=-1)) + 1
    widths = int(second.max(initial=-1)) + 1
    is_short = count < np.iinfo(np.int32).max
    starts: Int32 | Int64
    starts = np.arange(count + 1, dtype=np.int32) if is_short else np.arange(count + 1)
    # A matrix with one entry in each row: by columns, its entries are sorted by the second code.
    by_second = csr_array((first, second, starts), shape=(count, widths)).tocsc()
    del starts
    entries = (by_second.indices, by_second.data, by_second.indptr)
    by_both = csr_array(entries, shape=(widths, heights)).tocsc()
    firsts = np.repeat(np.arange(heights, dtype=np.int32), np.diff(by_both.indptr))
    return SortedRows(by_both.data, firsts, by_both.indices.astype(np.int32, copy=False))


def gather(
    values: NDArray[Any], rows: NDArray[Any], dtype: type[_Value] | None = None
) -> NDArray[_Value]:
    """The values at some rows: `values[rows]` in less memory.

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
    """The values at the places in several arrays one after another.

    Args:
        values: The values (n).
        chunks: Their places (integers, together m).
        dtype: The type of the result; None for that of the values.
    """
    picked: NDArray[_Value] = np.empty(sum(map(len, chunks)), dtype=dtype or values.dtype)
    start = 0
    for chunk in chunks:
        end = start + len(chunk)
        # Places are never out of range; with this mode NumPy does not look for those that are.
        picked[start:end] = np.take(values, chunk, mode="clip")
        start = end
    return picked
