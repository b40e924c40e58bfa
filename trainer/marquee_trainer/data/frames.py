"""Converts data frames to data sets and vice versa."""

from __future__ import annotations

from typing import Any

import polars as pl

from marquee_core.arrays import Int64
from marquee_trainer.data.columns import COUNT, ITEM, RATING, USER
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.interpret import Interpretation, load_table
from marquee_trainer.data.items import Items, RatedItems, read_items
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.scale import Feedback
from marquee_trainer.data.tables import FrameTable


def from_frame(
    ratings: Any, items: Any = None, options: ReadOptions | None = None, name: str = "frame"
) -> tuple[RatingsDataset, Interpretation]:
    """Builds a data set from a data frame.

    Args:
        ratings: The ratings: a frame of polars or pandas, or an Arrow table.
        items: Item metadata, as a frame of any of these kinds; None for none.
        options: How to interpret the frame, such as the names of its columns.
        name: A name for the frame, for the source of the data set and error messages.

    Returns:
        The data set, and how the frame was interpreted.

    Raises:
        RatingsError: An argument is not a frame, or the frame cannot be interpreted.
    """
    options = options or ReadOptions()
    table = None if items is None else FrameTable(_polars(items), f"{name} of items")

    def items_of(rated: RatedItems) -> Items:
        if table is None:
            return Items({}, ())
        separator, columns = options.genre_separator, options.item_columns
        return read_items(table, table.name, separator, rated, columns)

    return load_table(FrameTable(_polars(ratings), name), name, name, options, items_of)


def ratings_frame(dataset: RatingsDataset, rows: Int64 | None = None) -> pl.DataFrame:
    """Converts ratings to a data frame, from which `from_frame` builds an equal data set.

    Args:
        dataset: The ratings.
        rows: The rows of the data set, such as the test part of a split (int64, n); None for all,
            in the order of the source.

    Returns:
        The columns `user`, `item`, `rating` (`count` for implicit feedback) and, if there are
        timestamps, `timestamp` in UTC.
    """
    rows = dataset.file_order if rows is None else rows
    strength = COUNT if dataset.feedback is Feedback.IMPLICIT else RATING
    columns = {
        USER: pl.Series(dataset.user_ids.ids(dataset.users[rows]), dtype=pl.String),
        ITEM: pl.Series(dataset.catalogue.items.ids(dataset.items[rows]), dtype=pl.String),
        strength: pl.Series(dataset.ratings[rows]),
    }
    frame = pl.DataFrame(columns)
    if dataset.has_timestamps:
        times = pl.from_epoch(pl.Series(dataset.timestamps[rows]), "s").dt.replace_time_zone("UTC")
        frame = frame.with_columns(times.alias("timestamp"))
    return frame


def items_frame(dataset: RatingsDataset) -> pl.DataFrame:
    """Converts items to a data frame: `item`, `title`, `year`, `genres` and further attributes."""
    catalogue = dataset.catalogue
    positions = range(len(catalogue))
    columns: dict[str, pl.Series] = {
        ITEM: pl.Series(catalogue.items.ids(positions), dtype=pl.String),
        "title": pl.Series([catalogue.title(position) for position in positions], dtype=pl.String),
        "year": pl.Series([year or None for year in catalogue.years.tolist()], dtype=pl.Int16),
        "genres": pl.Series(
            [list(catalogue.item_genres(position)) for position in positions],
            dtype=pl.List(pl.String),
        ),
    }
    columns |= {name: pl.Series(values) for name, values in dataset.attributes.items()}
    return pl.DataFrame(columns)


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
        if hasattr(frame, "__arrow_c_stream__"):
            converted = pl.from_arrow(frame)
            return converted if isinstance(converted, pl.DataFrame) else converted.to_frame()
        if hasattr(frame, "__dataframe__"):
            # Imported here because few frames support only the older protocol.
            from pyarrow.interchange import from_dataframe

            return pl.DataFrame(from_dataframe(frame))
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise RatingsError(f"the frame cannot be converted: {error}") from error
    raise RatingsError(f"a polars, pandas or Arrow frame is required, not {type(frame).__name__}")
