"""Rows of a table that lack a rating, as exports of other programs contain them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

ON_MISSING = ("error", "skip")
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


def without_missing(
    frame: pl.DataFrame, name: str, where: Callable[[int], str]
) -> tuple[pl.DataFrame, Callable[[int], str]]:
    """Leaves out the rows of which a column's value is missing.

    Args:
        frame: The rows.
        name: The column.
        where: Returns the location of a row of the frame.

    Returns:
        The other rows in the same order, and the location of each of these.
    """
    missing = is_missing(frame[name])
    if not missing.any():
        return frame, where
    kept = np.flatnonzero(~missing.to_numpy())
    return frame.filter(~missing), lambda row: where(int(kept[row]))
