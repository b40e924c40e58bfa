"""The errors that polars raises for damaged data."""

from __future__ import annotations

import polars as pl

POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""A panic in polars' native code is not a subclass of `Exception`."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; polars' messages can be long."""
    return str(error).partition("\n")[0] or type(error).__name__
