"""Parses GroupLens' files of ratings, and reports malformed rows with their lines.

Polars parses a file by columns. Only if a row is malformed, the file is parsed again line by line,
to report the malformed rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import polars as pl

from marquee_trainer.data.chunked import ChunkedArray
from marquee_trainer.data.dialect import decode
from marquee_trainer.data.errors import OtherFormError, RatingsError
from marquee_trainer.data.ids import IdColumn, id_problem
from marquee_trainer.data.plain_columns import categories, read_plain_columns
from marquee_trainer.data.rows import Rows
from marquee_trainer.data.scale import HALF_STAR, HIGHEST, LOWEST, RatingScale

_FIELDS = 4
_CSV_HEADER = "userId,movieId,rating,timestamp"
# Number of bytes at the start of a file from which its delimiter is detected.
_HEAD_BYTES = 4096
# If a larger share of the ratings is off GroupLens' scale, the file is on another scale.
_TYPING_ERRORS = 0.01

_STARS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?")
# Eighteen digits fit into an int64.
_TIMESTAMP = re.compile(r"[0-9]{1,18}")
_TIMESTAMP_END = 10**18
_COLUMNS = ("user", "item", "rating", "timestamp")

Where = Callable[[int], str]


def parse_ratings(content: bytes, name: str, scale: RatingScale | None = None) -> Rows:
    """Parses user, item, rating and timestamp, separated by tabs, `::`, or commas with a header.

    Timestamps are whole seconds since 1970.

    Args:
        content: The file's content.
        name: The file's name, for error messages.
        scale: The rating scale; None for GroupLens' 0.5 to 5 in half stars.

    Raises:
        OtherFormError: Most lines do not have four fields, the header of a comma-separated file is
            not that of GroupLens, or the ratings are on another scale.
        RatingsError: Rows are malformed; the first few are reported with their lines.
    """
    rows = _parse_plain(content, name, scale)
    if rows is not None:
        return rows
    text = decode(content, name).text.replace("\r\n", "\n").rstrip("\n")
    first_lines = text[:_HEAD_BYTES].split("\n")
    delimiter = _delimiter(first_lines)
    if text and sum(_has_four(line, delimiter) for line in first_lines) * 2 < len(first_lines):
        raise OtherFormError(f"{name}: most lines do not have {_FIELDS} fields")
    first_line = 1
    if delimiter == ",":
        header, _, text = text.partition("\n")
        first_line = 2
        if header.strip().lower() != _CSV_HEADER.lower():
            raise OtherFormError(f"{name}:1: the header is not {_CSV_HEADER}")

    def where(row: int) -> str:
        return f"{name}:{first_line + row}"

    rows = _parse(text, delimiter, scale, where)
    if rows is None:
        raise _malformed(text.split("\n"), delimiter, scale, where)
    return rows


def _delimiter(lines: list[str]) -> str:
    """The delimiter that splits most lines into four fields; ids may contain the others."""
    return max(
        ("\t", "::", ","),
        key=lambda delimiter: sum(_has_four(line, delimiter) for line in lines),
    )


def _has_four(line: str, delimiter: str) -> bool:
    return line.count(delimiter) == _FIELDS - 1


def _parse_plain(content: bytes, name: str, scale: RatingScale | None) -> Rows | None:
    """Parses a file whose ids are whole numbers; returns None if it must be read as text."""
    first_lines = content[:_HEAD_BYTES].decode(errors="replace").split("\n")
    delimiter = _delimiter(first_lines)
    first_line = 1
    if delimiter == ",":
        if first_lines[0].lower() != _CSV_HEADER.lower():
            return None
        first_line = 2
    elif len(delimiter) > 1:
        if b"\t" in content:
            return None
        content, delimiter = content.replace(delimiter.encode(), b"\t"), "\t"

    def where(row: int) -> str:
        return f"{name}:{first_line + row}"

    frame = read_plain_columns(content, delimiter, first_line - 1, _FIELDS, (0, 1, 3))
    if frame is None:
        return None
    frame.columns = _COLUMNS
    return _rows(frame, scale, where)


def _parse(text: str, delimiter: str, scale: RatingScale | None, where: Where) -> Rows | None:
    """Parses the columns; returns None if a row is malformed."""
    frame = _frame(text, delimiter)
    if frame is None or any(frame[name].null_count() for name in _COLUMNS):
        return None
    return _rows(frame, scale, where)


def _rows(frame: pl.DataFrame, scale: RatingScale | None, where: Where) -> Rows | None:
    """Converts the columns to ids, numbers and times; returns None if a value is malformed."""
    users, items = IdColumn.of(frame["user"]), IdColumn.of(frame["item"])
    if users.invalid() is not None or items.invalid() is not None:
        return None
    ratings = _ratings(frame["rating"], scale)
    if ratings is None:
        return None
    seconds = frame["timestamp"]
    if seconds.dtype != pl.Int32:
        seconds = seconds.cast(pl.Int64, strict=False)
    last = _TIMESTAMP_END - 1 if seconds.dtype == pl.Int64 else np.iinfo(np.int32).max
    if seconds.null_count() or not seconds.is_between(0, last).all():
        return None
    return Rows(users, items, ratings, ChunkedArray.of_series(seconds), where)


def _ratings(column: pl.Series, scale: RatingScale | None) -> ChunkedArray[np.float32] | None:
    """Converts a column with few distinct texts to ratings; returns None if one is not a rating."""
    if isinstance(column.dtype, pl.Enum):
        found = categories(column)
        used, chunks = np.flatnonzero(found.counts), [*found.chunks]
        texts = [found.texts[position] for position in used.tolist()]
    else:
        ids = IdColumn.of(column)
        texts, chunks = ids.texts(), [ids.codes]
        used = np.arange(len(texts))
    values = [_rating(text, scale) for text in texts]
    if None in values:
        return None
    table = np.zeros(int(used.max(initial=0)) + 1, dtype=np.float32)
    table[used] = values
    return ChunkedArray(chunks, table, used)


def _frame(text: str, delimiter: str) -> pl.DataFrame | None:
    """The fields as text; None if a row does not have four."""
    schema = dict.fromkeys(_COLUMNS, pl.String)
    if not text:
        return pl.DataFrame(schema=schema)
    if delimiter != "\t":
        if "\t" in text:
            # An id contains a tab. These files are rare, so they may take longer.
            rows = [line.split(delimiter) for line in text.split("\n")]
            fits = all(len(row) == _FIELDS for row in rows)
            return pl.DataFrame(rows, schema=schema, orient="row") if fits else None
        text = text.replace(delimiter, "\t")
    try:
        frame = pl.read_csv(
            text.encode(), has_header=False, separator="\t", quote_char=None, schema=schema
        )
    except pl.exceptions.PolarsError:
        return None
    return frame


def _rating(text: str, scale: RatingScale | None) -> float | None:
    """Converts a text to a rating; returns None if it is not a rating on the scale."""
    if scale is None:
        if not _STARS.fullmatch(text):
            return None
        stars = float(text)
        return stars if LOWEST <= stars <= HIGHEST and stars % HALF_STAR == 0 else None
    value = _number(text)
    return value if scale.low <= value <= scale.high else None


def _number(text: str) -> float:
    """Converts a text to a number; returns NaN if it is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _malformed(
    lines: list[str], delimiter: str, scale: RatingScale | None, where: Where
) -> RatingsError:
    """Creates the error that lists the malformed rows and what is wrong with them."""
    problems = []
    off_scale = 0
    for row, line in enumerate(lines):
        fields = line.split(delimiter)
        problem = _problem(fields, scale)
        if problem:
            problems.append(f"{where(row)}: {problem}")
            number = _number(fields[2]) if len(fields) == _FIELDS else math.nan
            off_scale += math.isfinite(number) and _rating(fields[2], scale) is None
    hint = "For ratings on another scale, use --scale LOW:HIGH." if off_scale else ""
    if off_scale == len(problems) and off_scale > _TYPING_ERRORS * len(lines):
        return OtherFormError.listing("malformed rows", problems, hint=hint)
    return RatingsError.listing("malformed rows", problems, hint=hint)


def _problem(fields: list[str], scale: RatingScale | None) -> str | None:
    if len(fields) != _FIELDS:
        return f"{len(fields)} fields, not {_FIELDS}"
    user, item, rating, timestamp = fields
    for role, field in (("a user", user), ("an item", item)):
        reason = id_problem(field)
        if reason:
            return f"{field!r} is not {role} id: {reason}"
    if _rating(rating, scale) is None:
        low, high = (LOWEST, HIGHEST) if scale is None else (scale.low, scale.high)
        steps = " in half stars" if scale is None else ""
        return f"{rating!r} is not a rating from {low:g} to {high:g}{steps}"
    if not _TIMESTAMP.fullmatch(timestamp):
        return f"{timestamp!r} is not a timestamp in whole seconds since 1970"
    return None
