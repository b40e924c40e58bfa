"""What polars raises for damaged data."""

from __future__ import annotations

import polars as pl

POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""A panic in polars' native code is no `Exception`."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, to which polars may add many."""
    return str(error).partition("\n")[0] or type(error).__name__
