"""Parses files of ratings: a million rows a second, and malformed rows named by line.

A file is parsed as columns of bytes. Only when some row is not as it should be is it read again,
line by line, to say which rows and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Float32, Int64
from marquee_trainer.data.dataset import (
    HALF_STAR,
    HIGHEST,
    LOWEST,
    RatingsError,
    distinct,
)

MAX_ID_BYTES = 64

_FIELDS = 4
_CSV_HEADER = b"userId,movieId,rating,timestamp"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# As much of a file as tells its delimiter.
_HEAD_BYTES = 4096
# Files are parsed in chunks of about so many bytes, to bound the memory.
_CHUNK_BYTES = 16_000_000
_TAB, _NEWLINE = 9, 10

_ID = re.compile(rb"[!-~]{1,%d}" % MAX_ID_BYTES)
_STARS = re.compile(rb"[0-9]{1,3}(\.[0-9]{1,6})?")
# Eighteen digits fit an int64.
_TIMESTAMP = re.compile(rb"[0-9]{1,18}")
_MAX_STARS_BYTES, _MAX_TIMESTAMP_BYTES = 10, 18


@dataclass(frozen=True)
class Rows:
    """Ratings of a file, in its order.

    Attributes:
        users: User ids (bytes, n).
        items: Item ids (bytes, n).
        ratings: Stars (float32, n).
        timestamps: Seconds since 1970 (int64, n).
        name: The file's name.
        first_line: The line of the first row, counted from 1.
    """

    users: NDArray[np.bytes_]
    items: NDArray[np.bytes_]
    ratings: Float32
    timestamps: Int64
    name: str
    first_line: int

    def __len__(self) -> int:
        return len(self.ratings)

    def line(self, row: int) -> str:
        """Where a row is: `u.data:17`."""
        return f"{self.name}:{self.first_line + row}"


def parse_ratings(content: bytes, name: str) -> Rows:
    """Parses user, item, rating and timestamp, separated by tabs, `::`, or commas with a header.

    Ids are printable ASCII without spaces, at most `MAX_ID_BYTES` long; ratings are 0.5 to 5 by
    half stars; timestamps are whole seconds since 1970.

    Args:
        content: The file.
        name: Its name, for errors.

    Raises:
        RatingsError: Rows are malformed; the first few are named by line, with their number.
    """
    content = content.removeprefix(_BYTE_ORDER_MARK).replace(b"\r\n", b"\n").rstrip(b"\n")
    delimiter = _delimiter(content[:_HEAD_BYTES])
    first_line = 1
    if delimiter == b",":
        header, _, content = content.partition(b"\n")
        first_line = 2
        if header.strip().lower() != _CSV_HEADER.lower():
            raise RatingsError(f"{name}:1: the header is not {_CSV_HEADER.decode()}")
    chunks: list[_Columns] = []
    for chunk in _chunks(content):
        parsed = _parse(chunk, delimiter)
        if parsed is None:
            problems = _problems(content, delimiter, name, first_line)
            raise RatingsError.listing("malformed rows", problems)
        chunks.append(parsed)
    users, items, ratings, timestamps = (
        np.concatenate(parts) for parts in zip(*chunks, strict=True)
    )
    return Rows(users, items, ratings, timestamps, name, first_line)


def _delimiter(head: bytes) -> bytes:
    """The delimiter that makes four fields of most lines: ids may hold the others."""
    lines = head.split(b"\n")
    return max(
        (b"\t", b"::", b","),
        key=lambda delimiter: sum(line.count(delimiter) == _FIELDS - 1 for line in lines),
    )


class _Columns(NamedTuple):
    users: NDArray[np.bytes_]
    items: NDArray[np.bytes_]
    ratings: Float32
    timestamps: Int64


def _chunks(content: bytes) -> Iterator[bytes]:
    """Whole lines, at least one chunk of them."""
    start = 0
    while (end := content.find(b"\n", start + _CHUNK_BYTES)) >= 0:
        yield content[start:end]
        start = end + 1
    yield content[start:]


def _fields(content: bytes, delimiter: bytes) -> list[NDArray[np.uint8]] | None:
    """The fields as four matrices of bytes, padded with zeros; None when a row has not four."""
    if b"\0" in content:
        return None
    if delimiter != b"\t":
        if b"\t" in content:
            return None
        content = content.replace(delimiter, b"\t")
    text = np.frombuffer(content + b"\n" if content else b"", dtype=np.uint8)
    ends = np.flatnonzero((text == _TAB) | (text == _NEWLINE))
    if len(ends) % _FIELDS:
        return None
    closers = text[ends].reshape(-1, _FIELDS)
    if not ((closers[:, :-1] == _TAB).all() and (closers[:, -1] == _NEWLINE).all()):
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)].reshape(-1, _FIELDS)
    lengths = ends.reshape(-1, _FIELDS) - starts
    limits = (MAX_ID_BYTES, MAX_ID_BYTES, _MAX_STARS_BYTES, _MAX_TIMESTAMP_BYTES)
    if len(lengths) and not ((lengths > 0) & (lengths <= limits)).all():
        return None
    return [_gather(text, starts[:, field], lengths[:, field]) for field in range(_FIELDS)]


def _gather(text: NDArray[np.uint8], starts: Int64, lengths: Int64) -> NDArray[np.uint8]:
    width = int(lengths.max(initial=1))
    column = np.zeros((len(starts), width), dtype=np.uint8)
    shortest = int(lengths.min(initial=width))
    for place in range(width):
        if place < shortest:
            column[:, place] = text[starts + place]
        else:
            long = np.flatnonzero(lengths > place)
            column[long, place] = text[starts[long] + place]
    return column


def _parse(content: bytes, delimiter: bytes) -> _Columns | None:
    """The columns of some rows; None when one is malformed."""
    fields = _fields(content, delimiter)
    if fields is None:
        return None
    users, items, stars, timestamps = fields
    for ids in (users, items):
        if not ((ids == 0) | ((ids > ord(" ")) & (ids <= ord("~")))).all():
            return None
    if not ((timestamps == 0) | ((timestamps >= ord("0")) & (timestamps <= ord("9")))).all():
        return None
    # There are few different ratings, so that each is parsed once.
    texts, which = distinct(_text(stars))
    values = [_stars(text) for text in texts.tolist()]
    if None in values:
        return None
    seconds = np.zeros(len(timestamps), dtype=np.int64)
    for digit in timestamps.T:
        seconds = np.where(digit == 0, seconds, seconds * 10 + (digit - np.int64(ord("0"))))
    ratings = np.array(values, dtype=np.float32)[which]
    return _Columns(_text(users), _text(items), ratings, seconds)


def _text(column: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    return column.view(f"S{column.shape[1]}").reshape(-1)


def _stars(text: bytes) -> float | None:
    """A rating; None when it is none."""
    if not _STARS.fullmatch(text):
        return None
    value = float(text)
    return value if LOWEST <= value <= HIGHEST and value % HALF_STAR == 0 else None


def _problems(content: bytes, delimiter: bytes, name: str, first_line: int) -> list[str]:
    """What is wrong with each malformed row."""
    found = []
    for number, line in enumerate(content.split(b"\n"), start=first_line):
        problem = _problem(line.split(delimiter))
        if problem:
            found.append(f"{name}:{number}: {problem}")
    return found


def _problem(fields: list[bytes]) -> str | None:
    if len(fields) != _FIELDS:
        return f"{len(fields)} fields, not {_FIELDS}"
    user, item, stars, timestamp = fields
    for what, field in (("user", user), ("item", item)):
        if not _ID.fullmatch(field):
            return f"{_quoted(field)} is no {what} id"
    if _stars(stars) is None:
        return f"{_quoted(stars)} is no rating from {LOWEST:g} to {HIGHEST:g} by half stars"
    if not _TIMESTAMP.fullmatch(timestamp):
        return f"{_quoted(timestamp)} is no timestamp"
    return None


def _quoted(field: bytes) -> str:
    return repr(field.decode("latin-1"))
