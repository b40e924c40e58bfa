"""Data frames as a source of ratings."""

from __future__ import annotations

from typing import Any

import polars as pl

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.details import Details
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.interpret import Understood, load_table
from marquee_trainer.data.items import read_items
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.tables import FrameTable


def from_frame(
    ratings: Any, items: Any = None, options: ReadOptions | None = None, name: str = "frame"
) -> tuple[RatingsDataset, Understood]:
    """Makes a data set of a data frame.

    Args:
        ratings: The ratings: a frame of polars or pandas, or an Arrow table.
        items: Item metadata, as a frame of any of these kinds; None for none.
        options: How to interpret the frame, such as the names of its columns.
        name: A name of the frame, for the source of the data set and for error messages.

    Raises:
        RatingsError: An argument is not a frame, or the frame cannot be understood.
    """
    options = options or ReadOptions()
    details: Details = {}
    notes: tuple[str, ...] = ()
    if items is not None:
        table = FrameTable(_polars(items), f"{name} of items")
        details, notes = read_items(table, table.name, options.genre_separator)
    dataset, understood = load_table(
        FrameTable(_polars(ratings), name), name, name, options, details
    )
    return dataset, Understood(understood.columns, understood.times, notes + understood.notes)


def _polars(frame: Any) -> pl.DataFrame:
    """Converts a frame of any kind to polars.

    Raises:
        RatingsError: The value is not a frame.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    try:
        if type(frame).__module__.partition(".")[0] == "pandas":
            return pl.from_pandas(frame)
        if hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__dataframe__"):
            converted = pl.from_arrow(frame)
            return converted if isinstance(converted, pl.DataFrame) else converted.to_frame()
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise RatingsError(f"the frame cannot be converted: {error}") from error
    raise RatingsError(f"a polars, pandas or Arrow frame is required, not {type(frame).__name__}")
