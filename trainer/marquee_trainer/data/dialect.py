"""Detects how a delimited text file is written: encoding, separator and header."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from marquee_trainer.data.columns import recognise
from marquee_trainer.data.errors import RatingsError

# Bytes at the start of a file from which its dialect is found.
HEAD_BYTES = 65_536
_HEAD_LINES = 50
_SEPARATORS = ("\t", ",", ";", "|", "::")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NUMBER = re.compile(r"\s*[-+−]?\d+([.,]\d+)?\s*")


@dataclass(frozen=True)
class Dialect:
    """How a delimited text file is written.

    Attributes:
        separator: The text between two fields.
        header: The names of the columns; `1`, `2`, … if the file has no header.
        has_header: Whether the first line is a header.
        spaced: Whether separators are followed by spaces, which are not part of the values.
    """

    separator: str
    header: tuple[str, ...]
    has_header: bool
    spaced: bool


def decode(content: bytes) -> str:
    """Decodes text in UTF-8 or UTF-16, with or without a byte order mark, or else in Latin-1.

    Hardly any Latin-1 text is valid UTF-8 by chance. Latin-1 includes the additions of Windows.
    """
    if content.startswith(_UTF16_MARKS):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def is_utf8(head: bytes) -> bool:
    """Whether the start of a file is UTF-8 text; its last character may be cut off."""
    if head.startswith(_UTF16_MARKS):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def find_dialect(text: str, name: str, known_names: Collection[str] = ()) -> Dialect:
    """Detects the dialect of a file.

    Args:
        text: The first lines of the file.
        name: The file's name, for error messages.
        known_names: Names of columns, besides the common ones: a first line that has one of them
            is a header.

    Raises:
        RatingsError: The file is empty or has a single column.
    """
    lines = [line for line in text.splitlines()[:_HEAD_LINES] if line.strip()]
    if not lines:
        raise RatingsError(f"{name}: there are no ratings")
    candidates = []
    for separator in _SEPARATORS:
        rows = split_lines(lines, separator)
        width = len(rows[0])
        same = sum(len(row) == width for row in rows)
        if width > 1:
            found = _recognised(rows[0], known_names)
            candidates.append((found, same, width, separator, rows))
    if not candidates:
        raise RatingsError(
            f"{name}: line 1 has one column; the columns must be separated by tabs, commas, "
            f"semicolons, | or ::"
        )
    _, _, width, separator, rows = max(candidates, key=lambda found: found[:3])
    first = rows[0]
    has_header = _is_header(rows, known_names)
    spaced = all(cell.startswith(" ") for row in rows for cell in row[1:] if cell)
    names = tuple(cell.strip() for cell in first) if has_header else _numbered(width)
    return Dialect(separator, names, has_header, spaced)


def split_lines(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Splits lines into fields."""
    if len(separator) > 1:
        return [line.split(separator) for line in lines]
    return list(csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=separator))


def _recognised(row: Sequence[str], known_names: Collection[str]) -> int:
    """How many fields of a row are names of columns."""
    names = [cell.strip() for cell in row]
    return max(len(recognise(names)), sum(name in known_names for name in names))


def _is_header(rows: Sequence[Sequence[str]], known_names: Collection[str]) -> bool:
    """Whether the first row is a header rather than data."""
    numbers = [any(_NUMBER.fullmatch(cell) for cell in row) for row in rows[:2]]
    recognised = _recognised(rows[0], known_names)
    if recognised:
        return recognised > 1 or not numbers[0]
    return numbers == [False, True]


def _numbered(width: int) -> tuple[str, ...]:
    return tuple(str(place) for place in range(1, width + 1))
