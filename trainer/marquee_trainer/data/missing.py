"""Rows of a table that lack a value, as exports of other programs contain them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import numpy as np
import polars as pl

from marquee_trainer.data.errors import RatingsError

ON_MISSING = ("error", "skip")
NEGATIVE = "negative"
"""Stands for all negative ratings or counts among those that mean "missing"."""
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
# How programs write a value that is missing, in lower case: pandas and R, databases, MySQL's dumps.
_MISSING = ("", "nan", "na", "n/a", "<na>", "null", "none", "\\n")


def is_missing(column: pl.Series) -> pl.Series:
    """Marks the values that are missing: null, NaN, or text such as `NA` that stands for them.

    Args:
        column: Numbers, text or categories (n).

    Returns:
        True for missing values (bool, n).
    """
    if column.dtype.is_float():
        return column.is_null() | column.is_nan().fill_null(False)
    if column.dtype == pl.String or isinstance(column.dtype, pl.Enum):
        text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
        return text.is_null() | text.is_in(_MISSING).fill_null(False)
    return column.is_null()


def is_empty_id(column: pl.Series) -> pl.Series:
    """Marks ids that are missing: null and empty text, because `NA` and `null` may be ids.

    Args:
        column: Ids (n).

    Returns:
        True for missing ids (bool, n).
    """
    if column.dtype == pl.String:
        return column.is_null() | (column == "").fill_null(False)
    return is_missing(column)


def parse_missing_values(text: str) -> tuple[str, ...]:
    """Parses values that mean that a rating is missing: numbers or `negative`, between commas.

    Raises:
        RatingsError: A value is neither a number nor `negative`.
    """
    values = tuple(part.strip().replace("−", "-") for part in text.split(",") if part.strip())
    for value in values:
        if value != NEGATIVE and not _NUMBER.fullmatch(value):
            raise RatingsError(f"--missing-values: {value!r} is neither a number nor {NEGATIVE}")
    return values


def stands_for_missing(column: pl.Series, values: Collection[str]) -> pl.Series:
    """Marks ratings or counts that mean that there is none.

    Args:
        column: Ratings or counts, as numbers, text or categories (n).
        values: Numbers, or `NEGATIVE` for all below 0.

    Returns:
        True for values that mean "missing" (bool, n).
    """
    numbers = column if column.dtype.is_numeric() else column.cast(pl.String).str.strip_chars()
    numbers = numbers.cast(pl.Float64, strict=False)
    found = numbers.is_in([float(value) for value in values if value != NEGATIVE])
    if NEGATIVE in values:
        found |= numbers < 0
    return found.fill_null(False)


def without_rows(
    frame: pl.DataFrame, dropped: pl.Series, where: Callable[[int], str]
) -> tuple[pl.DataFrame, Callable[[int], str]]:
    """Leaves out some rows.

    Args:
        frame: The rows.
        dropped: True for the rows to leave out (bool, n).
        where: Returns the location of a row of the frame.

    Returns:
        The other rows in the same order, and the location of each of these.
    """
    if not dropped.any():
        return frame, where
    kept = np.flatnonzero(~dropped.to_numpy())
    return frame.filter(~dropped), lambda row: where(int(kept[row]))
