"""Sorts rows by two columns of small codes in linear time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from marquee_core.arrays import Int32, Int64


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
