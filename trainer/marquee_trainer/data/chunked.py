"""Arrays in several pieces, as polars reads columns, and memory for large arrays."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from marquee_core.arrays import Int64

_Value = TypeVar("_Value", bound=np.generic)
# Rows that are picked at a time. NumPy turns their places into 8 bytes each.
_PICKED_ROWS = 1 << 17
# NumPy asks for huge pages from this size on.
_LARGE_BYTES = 1 << 22


class ChunkedArray(Generic[_Value]):
    """A read-only array in one or several pieces, which may be places in a table of its values.

    Attributes:
        chunks: The pieces; with a table, the place of each value in it (together n).
        table: The values that places stand for; None if the pieces hold the values.
        used: Places in the table that occur, ascending (int64, m); None if that is not known.
    """

    def __init__(
        self,
        chunks: Sequence[NDArray[Any]],
        table: NDArray[_Value] | None = None,
        used: Int64 | None = None,
    ) -> None:
        """Takes the pieces, and the table with the places in it that occur."""
        self.chunks = tuple(chunks)
        self.table = table
        self.used = used

    @classmethod
    def of(cls, values: NDArray[_Value] | ChunkedArray[_Value]) -> ChunkedArray[_Value]:
        """The values of an array; another of these arrays as it is."""
        return values if isinstance(values, ChunkedArray) else cls([values])

    @classmethod
    def of_series(cls, column: pl.Series) -> ChunkedArray[Any]:
        """The numbers of a column without missing values."""
        return cls([chunk.to_numpy() for chunk in column.get_chunks()] or [column.to_numpy()])

    def mapped(self, table: NDArray[_Value]) -> ChunkedArray[_Value]:
        """The array in which each value, an index, is replaced by the one at its place in a table.

        Args:
            table: The new values (of any number).
        """
        return ChunkedArray(self.chunks, table if self.table is None else table[self.table])

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    @cached_property
    def array(self) -> NDArray[_Value]:
        """The values in one array (n)."""
        if self.table is None:
            return self.joined
        return gather(self.table, self.chunks)

    def distinct(self) -> NDArray[_Value]:
        """The distinct values, in any order."""
        if self.table is None:
            return pl.Series(self.joined).unique().to_numpy()
        used = self.used
        if used is None:
            counts = np.zeros(len(self.table), dtype=np.int64)
            for chunk in self.chunks:
                counts += np.bincount(chunk, minlength=len(counts))
            used = np.flatnonzero(counts)
        return np.unique(self.table[used])

    def pick(self, rows: NDArray[Any], dtype: type[np.generic] | None = None) -> NDArray[Any]:
        """The values at some rows.

        Args:
            rows: The rows, in any order (integers, m).
            dtype: The type of the result; None for that of the values.
        """
        values = self.joined
        table = self.table
        found = large_array(len(rows), dtype or (values if table is None else table).dtype)
        # Places are never out of range; with this mode NumPy does not look for those that are.
        for part in parts(len(rows)):
            found[part] = self.values(values.take(rows[part], mode="clip"))
        return found

    def values(self, places: NDArray[Any]) -> NDArray[Any]:
        """The values that some of the entries of a piece stand for."""
        return places if self.table is None else self.table.take(places, mode="clip")

    @cached_property
    def joined(self) -> NDArray[Any]:
        """The pieces as one array, before places are looked up in the table (n)."""
        if len(self.chunks) == 1:
            return self.chunks[0]
        joined = large_array(len(self), self.chunks[0].dtype)
        np.concatenate(self.chunks, out=joined)
        return joined


def large_array(count: int, dtype: Any) -> NDArray[Any]:
    """An array whose values are still to be written, in memory that is there at once.

    For large arrays NumPy asks for huge pages. Where memory is fragmented, the kernel then moves
    other pages to make room, which may take several times as long as small pages do. Where it can,
    the system is asked for all small pages together, which costs less than one after another.

    Args:
        count: The number of values.
        dtype: Their type.
    """
    kind = np.dtype(dtype)
    if count * kind.itemsize < _LARGE_BYTES:
        return np.empty(count, dtype=kind)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
    return np.frombuffer(mmap.mmap(-1, count * kind.itemsize, flags=flags), dtype=kind)


def gather(table: NDArray[_Value], chunks: Sequence[NDArray[Any]]) -> NDArray[_Value]:
    """The values of a table at the places in several arrays one after another.

    Args:
        table: The values (n).
        chunks: Their places (integers, together m).
    """
    taken: NDArray[_Value] = large_array(sum(map(len, chunks)), table.dtype)
    start = 0
    for chunk in chunks:
        for part in parts(len(chunk)):
            places = chunk[part]
            np.take(table, places, mode="clip", out=taken[start : start + len(places)])
            start += len(places)
    return taken


def parts(count: int, size: int = _PICKED_ROWS) -> Iterator[slice]:
    """Parts of so many rows, one after another."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
