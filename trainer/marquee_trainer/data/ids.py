"""Ids of users and items: validates and indexes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from marquee_core.arrays import Bool, Int32
from marquee_trainer.data.chunked import ChunkedArray

# Longer ids are rejected. The gateway accepts this many characters, so every valid id is accepted.
MAX_ID_BYTES = 256
# Ids of at most this many bytes are compared as one integer, which is several times faster than
# comparing text.
_WORD = 8
# A lookup table is used if the largest number is at most this many times the count of numbers.
_TABLE_SHARE = 4
# Runs of equal numbers are at least so long on average where only their beginnings are looked at.
_RUN_ROWS = 8
# Numbers from which the length of runs is estimated.
_SAMPLE = 4096


class IdColumn:
    """A column of ids, stored as the distinct ids and one index per row.

    Attributes:
        names: The distinct ids, sorted by their UTF-8 bytes (bytes, distinct ids).
        indexes: The index in `names` of each row's id (int32, n).
    """

    def __init__(self, names: NDArray[np.bytes_], indexes: Int32 | ChunkedArray[np.int32]) -> None:
        """Takes the distinct ids, and the index of each row's id."""
        self.names = names
        self.indexes = ChunkedArray.of(indexes)

    @property
    def codes(self) -> Int32:
        """The index in `names` of each row's id, as one array (int32, n)."""
        return self.indexes.array

    @classmethod
    def of(cls, ids: Sequence[str] | NDArray[np.bytes_] | pl.Series) -> IdColumn:
        """Indexes a column of ids; missing ids become the empty id.

        Whole numbers are converted to their decimal representation.
        """
        if isinstance(ids, np.ndarray):
            return cls(*distinct(ids))
        column = ids if isinstance(ids, pl.Series) else pl.Series(list(ids), dtype=pl.String)
        if column.dtype in (pl.Int32, pl.Int64) and not column.null_count():
            return distinct_numbers([chunk.to_numpy() for chunk in column.get_chunks()])
        column = column.cast(pl.String).fill_null("")
        names = column.unique().sort()
        codes = column.cast(pl.Enum(names)).to_physical().cast(pl.Int32)
        return cls(_bytes(names.to_list()), codes.to_numpy())

    @classmethod
    def concatenated(cls, parts: Sequence[IdColumn]) -> IdColumn:
        """Concatenates columns."""
        if len(parts) == 1:
            return parts[0]
        joined = cls.of([name for part in parts for name in part.texts()])
        ends = np.cumsum([len(part.names) for part in parts])[:-1]
        codes = [
            new[part.codes] for part, new in zip(parts, np.split(joined.codes, ends), strict=True)
        ]
        return cls(joined.names, np.concatenate(codes))

    def __len__(self) -> int:
        return len(self.indexes)

    def id(self, row: int) -> str:
        """The id of a row."""
        return self.text(int(self.codes[row]))

    def text(self, code: int) -> str:
        """The distinct id at an index."""
        return bytes(self.names[code]).decode()

    def texts(self) -> list[str]:
        """All distinct ids, in the order of `names`."""
        return [name.decode() for name in self.names.tolist()]

    def renamed(self, names: Sequence[str]) -> IdColumn:
        """Replaces each distinct id by the name at its index."""
        renamed = IdColumn.of(names)
        return IdColumn(renamed.names, self.indexes.mapped(renamed.codes))

    def invalid(self) -> Bool | None:
        """Marks the rows with an invalid id (bool, n); None if all are valid."""
        if all_valid(self.names):
            return None
        bad = np.array([id_problem(name) is not None for name in self.texts()], dtype=np.bool_)
        if not bad.any():
            return None
        found: Bool = bad[self.codes]
        return found


def id_problem(text: str) -> str | None:
    """Returns why a text is not a valid id; None if it is valid."""
    if not text:
        return "it is empty"
    if "\0" in text:
        return "it has a NUL character"
    if len(text) * 4 > MAX_ID_BYTES and len(text.encode()) > MAX_ID_BYTES:
        return f"it is longer than {MAX_ID_BYTES} bytes"
    return None


def all_valid(names: NDArray[np.bytes_]) -> bool:
    """Whether all names are certainly valid ids; False if they must be checked one by one."""
    if not len(names) or not 0 < names.dtype.itemsize <= MAX_ID_BYTES:
        return not len(names)
    positions = names.view(np.uint8).reshape(len(names), -1)
    # NumPy pads with NUL: a NUL before another character, or at the beginning, is not padding.
    return bool(
        positions[:, 0].all() and not ((positions[:, :-1] == 0) & (positions[:, 1:] != 0)).any()
    )


def distinct(names: NDArray[np.bytes_]) -> tuple[NDArray[np.bytes_], Int32]:
    """The sorted distinct names, and for each name its index among them (int32).

    Equivalent to `numpy.unique(names, return_inverse=True)`, but faster for short names.
    """
    if names.dtype.itemsize > _WORD:
        distinct, index = np.unique(names, return_inverse=True)
        return distinct, index.astype(np.int32)
    # Big-endian words sort in the order of their bytes.
    words = names.astype(f"S{_WORD}").view(">u8").astype(np.uint64)
    distinct_words, index = np.unique(words, return_inverse=True)
    found = distinct_words.astype(">u8").view(f"S{_WORD}").astype(names.dtype)
    return found, index.astype(np.int32)


def distinct_numbers(chunks: Sequence[NDArray[np.signedinteger[Any]]]) -> IdColumn:
    """The sorted distinct names of whole numbers, and for each number the index of its name.

    Equivalent to `distinct(numbers.astype(bytes))`, but much faster.

    Args:
        chunks: The numbers, in one or more arrays (int32 or int64, n in total).
    """
    count = sum(map(len, chunks))
    low = min((int(chunk.min(initial=0)) for chunk in chunks), default=0)
    high = max((int(chunk.max(initial=0)) for chunk in chunks), default=0)
    if low < 0 or high > _TABLE_SHARE * count:
        values, index = np.unique(np.concatenate(chunks), return_inverse=True)
        names, ranks = distinct(values.astype(np.bytes_))
        return IdColumn(names, ChunkedArray([index], ranks))
    used = np.zeros(high + 1, dtype=np.bool_)
    for chunk in chunks:
        _mark(used, chunk)
    values = np.flatnonzero(used)
    names, ranks = distinct(values.astype(np.bytes_))
    table = np.zeros(high + 1, dtype=np.int32)
    table[values] = ranks
    return IdColumn(names, ChunkedArray(chunks, table))


def _mark(used: Bool, numbers: NDArray[np.signedinteger[Any]]) -> None:
    """Marks the numbers that occur."""
    head = numbers[:_SAMPLE]
    if _RUN_ROWS * np.count_nonzero(head[1:] != head[:-1]) < len(head):
        # Equal numbers follow one another.
        used[numbers[:1]] = True
        used[numbers[1:][numbers[1:] != numbers[:-1]]] = True
    elif len(used) <= len(numbers):
        used |= np.bincount(numbers, minlength=len(used)) > 0
    else:
        used[numbers] = True


def _bytes(names: Sequence[str]) -> NDArray[np.bytes_]:
    if not names:
        return np.empty(0, dtype="S1")
    # NumPy drops trailing NULs. Ids with NUL are invalid, and must stay so, hence the suffix.
    encoded = [(name + "." if name.endswith("\0") else name).encode() for name in names]
    return np.array(encoded, dtype=np.bytes_)
