"""Detects the dialect of a delimited text file: encoding, separator and header."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from marquee_trainer.data.columns import recognise
from marquee_trainer.data.errors import RatingsError

# Number of bytes at the start of a file from which its dialect is detected.
HEAD_BYTES = 65_536
_HEAD_LINES = 50
_SEPARATORS = ("\t", ",", ";", "|", "::")
SPACES = " "
"""One or more spaces, as a separator."""
# Tried only if none of the others fits: they are rare, and spaces may be part of values.
_RARE_SEPARATORS = (SPACES, "^", "~", "\x01", "\x1f", ":", "/")
_RUN_OF_SPACES = re.compile(" +")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Microsoft Excel may write the separator to a line before the header.
_SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)
_COMMENT = "#"
_QUOTED = re.compile('"[^"]*"')
# Number of bytes of a text without byte order mark that are examined for UTF-16.
_UTF16_SAMPLE = 2_000
# Bytes that are not UTF-8, as Python's error handler `surrogateescape` decodes them, and characters
# that ASCII lacks, which include those.
_STRAY_BYTE = re.compile("[\udc80-\udcff]")
_BEYOND_ASCII = re.compile("[^\x00-\x7f]")
_NUMBER = re.compile(r"\s*[-+−]?\d+([.,]\d+)?\s*")
# The share of control characters from which on a file with NUL is binary.
_MOST_CONTROLS = 0.05


@dataclass(frozen=True)
class Dialect:
    """The dialect of a delimited text file.

    Attributes:
        separator: The text between two fields.
        header: The names of the columns; `1`, `2`, … if the file has no header.
        has_header: Whether the first line is a header.
        spaced: Whether separators are followed by spaces that are not part of the values.
        preamble: The number of lines before the header that are not data, such as comments.
    """

    separator: str
    header: tuple[str, ...]
    has_header: bool
    spaced: bool
    preamble: int = 0


class DecodedText(NamedTuple):
    """Decoded text.

    Attributes:
        text: The text.
        guessed: The name of the encoding if it was guessed; empty for UTF-8 and UTF-16.
    """

    text: str
    guessed: str


def decode(content: bytes, name: str) -> DecodedText:
    """Decodes text in UTF-8 or UTF-16, with or without a byte order mark, or in Windows-1252.

    Text in Windows-1252 is hardly ever valid UTF-8 by chance. Text of which most characters beyond
    ASCII are valid UTF-8 is not in Windows-1252, but damaged.

    Args:
        content: The text.
        name: The name of its file, for error messages.

    Raises:
        RatingsError: A byte is damaged; it is named by file, line and character.
    """
    if content.startswith(_UTF16_MARKS):
        return DecodedText(content.decode("utf-16", errors="replace"), "")
    if encoding := _utf16_without_mark(content):
        return DecodedText(content.decode(encoding, errors="replace"), "")
    try:
        return DecodedText(content.decode("utf-8-sig"), "")
    except UnicodeDecodeError as error:
        first = error.start
    escaped = content.decode("utf-8", errors="surrogateescape")
    stray = len(_STRAY_BYTE.findall(escaped))
    if len(_BEYOND_ASCII.findall(escaped)) - stray > stray:
        before = content[:first].decode()
        line, character = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise RatingsError(
            f"{name}:{line}: character {character}: the byte 0x{content[first]:02X} is not UTF-8, "
            f"but the rest of the file is ({stray:,} such byte{'s' * (stray != 1)}); correct it, "
            "or write the file again in UTF-8"
        )
    try:
        return DecodedText(content.decode("cp1252"), "Windows-1252")
    except UnicodeDecodeError:
        return DecodedText(content.decode("latin-1"), "Latin-1")


def is_utf8(head: bytes) -> bool:
    """Whether the start of a file is UTF-8 text; the last character may be truncated."""
    if head.startswith(_UTF16_MARKS) or _utf16_without_mark(head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _utf16_without_mark(content: bytes) -> str:
    """Detects UTF-16 without a byte order mark by its NUL bytes; empty for other text."""
    sample = content[:_UTF16_SAMPLE]
    for position, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = sample[position::2].count(0), sample[1 - position :: 2].count(0)
        if zeros > len(sample) // 4 and not others:
            return encoding
    return ""


def find_dialect(text: str, name: str, known_names: Collection[str] = ()) -> Dialect:
    """Detects the dialect of a file.

    Args:
        text: The first lines of the file.
        name: The file's name, for error messages.
        known_names: Column names in addition to the common ones; a first line with one of them is a
            header.

    Raises:
        RatingsError: The file is empty, is not text or has a single column.
    """
    if _is_binary(text):
        raise RatingsError(f"{name}: not a text table")
    preamble, given = _preamble(text.splitlines()[:_HEAD_LINES], known_names)
    lines = [line for line in text.splitlines()[preamble:][:_HEAD_LINES] if line.strip()]
    if not lines:
        raise RatingsError(f"{name}: there are no ratings")
    candidates = _candidates(lines, [given] if given else _SEPARATORS, known_names)
    candidates = candidates or _regular(_candidates(lines, _RARE_SEPARATORS, known_names))
    if not candidates:
        raise RatingsError(
            f"{name}: line {preamble + 1} has one column; the columns must be separated by tabs, "
            f"commas, semicolons, spaces, | or ::"
        )
    best = max(candidates, key=lambda found: found.rank)
    separator, rows = best.separator, best.rows
    width = len(rows[0])
    first = rows[0]
    has_header = _is_header(rows, known_names)
    spaced = all(cell.startswith(" ") for row in rows for cell in row[1:] if cell)
    names = tuple(cell.strip() for cell in first) if has_header else _numbered(width)
    if spaced:
        names = tuple(cell[1:-1] if _QUOTED.fullmatch(cell) else cell for cell in names)
    return Dialect(separator, names, has_header, spaced, preamble)


@dataclass(frozen=True)
class _Candidate:
    """The lines of a file as split by one separator.

    Attributes:
        separator: The separator.
        rows: The fields of each line; the first has more than one.
        recognised: Number of fields of the first line that are column names.
        same: Number of lines with as many fields as the first.
    """

    separator: str
    rows: Sequence[Sequence[str]]
    recognised: int
    same: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """A rank that is higher the better the separator fits the lines."""
        return self.recognised, self.same, len(self.rows[0])


def _candidates(
    lines: Sequence[str], separators: Sequence[str], known_names: Collection[str]
) -> list[_Candidate]:
    """The separators that occur in the first line."""
    found = []
    for separator in separators:
        rows = split_lines(lines, separator)
        width = len(rows[0])
        if width > 1:
            same = sum(len(row) == width for row in rows)
            recognised = _recognised(rows[0], known_names)
            found.append(_Candidate(separator, rows, recognised, same))
    return found


def _regular(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """The candidates that look like a table: with a header, or with three fields in each line."""
    return [
        found
        for found in candidates
        if found.same == len(found.rows) > 1 and (found.recognised > 1 or len(found.rows[0]) > 2)
    ]


def _is_binary(text: str) -> bool:
    """Whether decoded bytes are binary: they contain NUL and many other control characters."""
    if "\0" not in text:
        return False
    controls = sum(char < " " and char not in "\t\n\r" for char in text)
    return controls > len(text) * _MOST_CONTROLS


def _preamble(lines: Sequence[str], known_names: Collection[str]) -> tuple[int, str]:
    """The number of lines before the table, and the separator if one of them specifies it."""
    given = ""
    for position, line in enumerate(lines):
        named = _SEPARATOR_LINE.fullmatch(line.strip("\ufeff\r\n "))
        if named and position == 0:
            given = named[1]
        elif not line.startswith(_COMMENT) or _names_columns(line.lstrip(_COMMENT), known_names):
            return position, given
    return 0, ""


def is_plain(separator: str) -> bool:
    """Whether fields between these separators are never quoted."""
    return len(separator) > 1 or separator == SPACES


def split_line(line: str, separator: str) -> list[str]:
    """Splits a line at a separator for which `is_plain` holds."""
    return line.split() if separator == SPACES else line.split(separator)


def with_tabs(content: bytes, separator: str) -> bytes:
    """Replaces a separator for which `is_plain` holds by tabs."""
    if separator != SPACES:
        return content.replace(separator.encode(), b"\t")
    lines = (_RUN_OF_SPACES.sub("\t", line.strip()) for line in content.decode().splitlines())
    return "\n".join(lines).encode()


def split_lines(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Splits lines into fields."""
    if is_plain(separator):
        return [split_line(line, separator) for line in lines]
    return list(csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=separator))


def _names_columns(line: str, known_names: Collection[str]) -> bool:
    """Whether a line is a header with any of the separators."""
    return bool(line.strip()) and any(
        _recognised(split_lines([line], separator)[0], known_names) > 1 for separator in _SEPARATORS
    )


def _recognised(row: Sequence[str], known_names: Collection[str]) -> int:
    """Number of fields of a row that are column names."""
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
    return tuple(str(position) for position in range(1, width + 1))
