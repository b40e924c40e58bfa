"""Reads columns of delimited text as numbers and categories if that is lossless.

As text, millions of ids, ratings and times take several times as much memory and time.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from marquee_core.arrays import Int64
from marquee_trainer.data.dialect import HEAD_BYTES
from marquee_trainer.data.polars_errors import POLARS_ERRORS

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_INT32 = 2**31 - 1
# A column with at most this many distinct texts in the sample may be categorical.
_FEW = 64
# Ratings that may occur after the sample, if the sample has others as long.
_COMMON = [f"{value}{end}" for value in range(11) for end in ("", ".0", ".5")]
# Characters that may quote a field or end a line.
_SPECIAL = (b'"', b"\r")


def read_plain_columns(
    source: Path | bytes, separator: str, skipped_lines: int, width: int, whole: Collection[int]
) -> pl.DataFrame | None:
    """Reads columns, each as the most compact type that preserves its text.

    Numbers must convert back to the same text, so each must be written in its shortest form,
    without plus signs, leading zeros, spaces or quotes. That holds for all of them if the text is
    exactly as long as the shortest forms and the other columns together.

    Args:
        source: A local file, or its content, in UTF-8.
        separator: The character between two fields.
        skipped_lines: The number of lines before the first row.
        width: The number of columns.
        whole: The columns, counted from 0, to read as whole numbers if the first rows are.

    Returns:
        All columns, named by their positions: whole numbers (int32 or int64), categories (Enum) if
        there are few distinct texts, and text. None if the columns must be read as text, for
        example because of quotes, missing values or rows of different lengths.
    """
    with _content(source) as content:
        start = _line_start(content, skipped_lines)
        head = content[start : start + HEAD_BYTES]
        sample = _sample(head, separator)
        if not sample or any(len(row) != width for row in sample):
            return None
        texts = [[row[position] for row in sample] for position in range(width)]
        kinds = [_kind(texts[position], position in whole) for position in range(width)]
        # A number or a category has no other characters than those of its text.
        end = len(content) if pl.String in kinds else start + len(head)
        if any(content.find(special, start, end) >= 0 for special in _SPECIAL):
            return None
        # Each field is followed by a separator or the end of the line; the last end may be missing.
        size = len(content) - start + (content[-1:] != b"\n")
    frame = _read(source, separator, skipped_lines, kinds)
    if frame is None and any(kind == pl.Int32 or isinstance(kind, pl.Enum) for kind in kinds):
        kinds = [*map(_wider, kinds)]
        with _content(source) as content:
            if pl.String in kinds and any(content.find(mark, start) >= 0 for mark in _SPECIAL):
                return None
        frame = _read(source, separator, skipped_lines, kinds)
    if frame is None or not len(frame) or any(column.null_count() for column in frame):
        return None
    return frame if size == sum(map(_text_bytes, frame)) + width * len(frame) else None


class Categories(NamedTuple):
    """A categorical column.

    Attributes:
        texts: The texts of the categories.
        counts: The number of occurrences of each text (int64, texts).
        chunks: The index in `texts` of each row's text, in one or more arrays (unsigned integers, n
            in total).
    """

    texts: list[str]
    counts: Int64
    chunks: list[NDArray[np.integer[Any]]]


def categories(column: pl.Series) -> Categories:
    """Splits a categorical column into texts, counts and codes.

    Args:
        column: The column, without missing values (Enum, n).

    Raises:
        TypeError: The column is not categorical.
    """
    if not isinstance(column.dtype, pl.Enum):
        raise TypeError(f"a column of {column.dtype} has no categories")
    texts = column.dtype.categories.to_list()
    chunks = [chunk.to_numpy() for chunk in column.to_physical().get_chunks()]
    counts = np.zeros(len(texts), dtype=np.int64)
    for chunk in chunks:
        counts += np.bincount(chunk, minlength=len(texts))
    return Categories(texts, counts, chunks)


@contextmanager
def _content(source: Path | bytes) -> Iterator[bytes | mmap.mmap]:
    """The memory-mapped content of a file; an empty file cannot be mapped."""
    if isinstance(source, bytes):
        yield source
    elif not source.stat().st_size:
        yield b""
    else:
        with (
            source.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as found,
        ):
            yield found


def _line_start(content: bytes | mmap.mmap, skipped_lines: int) -> int:
    """The offset of the first byte after some lines, at most the length of the content."""
    start = 0
    for _ in range(skipped_lines):
        end = content.find(b"\n", start)
        if end < 0:
            return len(content)
        start = end + 1
    return start


def _sample(head: bytes, separator: str) -> list[list[str]]:
    """The fields of the first rows, without a last line that may be truncated."""
    lines = head.decode(errors="replace").rstrip("\n").split("\n")
    lines = lines[:-1] if len(head) == HEAD_BYTES else lines
    return [line.split(separator) for line in lines]


def _kind(texts: Sequence[str], may_be_whole: bool) -> Any:
    """The type with which to read a column."""
    if may_be_whole and all(map(_WHOLE.fullmatch, texts)):
        is_small = all(abs(int(text)) <= _INT32 for text in texts)
        return pl.Int32 if is_small else pl.Int64
    distinct = {*texts}
    if may_be_whole or len(distinct) > _FEW or "" in distinct:
        return pl.String
    lengths = {*map(len, distinct)}
    common = [text for text in _COMMON if len(text) in lengths]
    return pl.Enum([*dict.fromkeys([*common, *sorted(distinct)])])


def _wider(kind: Any) -> Any:
    """A wider type, for values that the sample of a column does not contain."""
    if isinstance(kind, pl.Enum):
        return pl.String
    return pl.Int64 if kind == pl.Int32 else kind


def _read(
    source: Path | bytes, separator: str, skipped_lines: int, kinds: Sequence[Any]
) -> pl.DataFrame | None:
    try:
        return pl.read_csv(
            source,
            has_header=False,
            skip_lines=skipped_lines,
            separator=separator,
            quote_char=None,
            schema={str(position): kind for position, kind in enumerate(kinds)},
        )
    except POLARS_ERRORS:
        return None


def _text_bytes(column: pl.Series) -> int:
    """The bytes of a column's values as text, with whole numbers in their shortest form."""
    if isinstance(column.dtype, pl.Enum):
        sizes = [len(text.encode()) for text in column.dtype.categories.to_list()]
        if len({*sizes}) == 1:
            return sizes[0] * len(column)
        return int(np.dot(categories(column).counts, sizes))
    if column.dtype == pl.String:
        return int(column.str.len_bytes().sum())
    return sum(_digits(chunk.to_numpy()) for chunk in column.get_chunks())


def _digits(numbers: NDArray[np.signedinteger[Any]]) -> int:
    """The number of characters of whole numbers in their shortest form, including signs."""
    if not len(numbers):
        return 0
    low, high = int(numbers.min()), int(numbers.max())
    # One digit for each number, another for each that is at least 10, 100 and so on, and the signs.
    total = len(numbers) + (int((numbers < 0).sum()) if low < 0 else 0)
    magnitudes = np.abs(numbers) if low < 0 else numbers
    least = int(magnitudes.min()) if low < 0 else low
    power = 10
    while power <= max(abs(low), high):
        total += len(numbers) if least >= power else int(np.count_nonzero(magnitudes >= power))
        power *= 10
    return total
