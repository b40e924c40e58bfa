"""Loads ratings from sources and data frames, converts them to data frames, and splits them.

Notes on how the ratings were interpreted go to the logger `marquee_trainer`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import polars as pl

from marquee_core.arrays import Int64
from marquee_trainer.data import frames
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.split import Split, automatic_split, split_by

AUTO = "auto"

_log = logging.getLogger("marquee_trainer")


def load(source: str, options: ReadOptions | None = None, seed: int = 0) -> RatingsDataset:
    """Loads ratings; see `marquee_trainer.data.source.load_ratings` for all sources.

    Args:
        source: `sample`, or `sample:users=…,items=…,ratings=…`; a GroupLens folder or zip file; a
            path, folder, glob or URL of CSV, TSV, JSON lines or Parquet files; the URL of a
            database; or a TensorFlow Datasets config such as `movielens/100k-ratings`.
        options: How to read the source, such as the names of its columns.
        seed: Seed of a generated sample.

    Raises:
        RatingsError: The source is unknown, or cannot be read or interpreted.
    """
    loaded = load_ratings(source, options=options, seed=seed)
    _report(loaded.interpretation.notes)
    return loaded.dataset


def from_frame(
    ratings: Any, items: Any = None, options: ReadOptions | None = None, name: str = "frame"
) -> RatingsDataset:
    """Reads ratings from a data frame; see `marquee_trainer.data.frames.from_frame`.

    Args:
        ratings: The ratings: a frame of polars or pandas, or any table that Arrow can read. Columns
            are recognised by common names, such as `user`, `item`, `rating` and `timestamp`.
        items: Item metadata, as a frame of any of these kinds; None for none.
        options: How to interpret the frame, such as the names of its columns.
        name: A name for the frame, for the release's manifest and error messages.

    Raises:
        RatingsError: An argument is not a frame, or the frame cannot be interpreted.
    """
    dataset, interpretation = frames.from_frame(ratings, items, options, name)
    _report(interpretation.notes)
    return dataset


def to_frame(dataset: RatingsDataset, rows: Int64 | None = None) -> pl.DataFrame:
    """Converts ratings to a data frame, which `.to_arrow()` and `.to_pandas()` convert further.

    Args:
        dataset: The ratings.
        rows: Rows of the data set, such as the test part of a split (int64, n); None for all.

    Returns:
        The columns `user`, `item`, `rating` (`count` for implicit feedback) and, if there are
        timestamps, `timestamp`.
    """
    return frames.ratings_frame(dataset, rows)


def items_frame(dataset: RatingsDataset) -> pl.DataFrame:
    """Converts items to a data frame: `item`, `title`, `year`, `genres` and further attributes."""
    return frames.items_frame(dataset)


def split(
    dataset: RatingsDataset, kind: str = AUTO, test_fraction: float = 0.2, seed: int = 0
) -> Split:
    """Splits ratings into a training part and a test part.

    Args:
        dataset: The ratings.
        kind: `user-last`, the latest ratings of each user; `temporal`, the latest of all;
            `user-random`, at random from each user; `random`; or `auto`: `user-last` if the ratings
            have timestamps, `random` otherwise (see `automatic_split`).
        test_fraction: Share of the ratings that are held out for the test.
        seed: Seed of a random split.

    Raises:
        KeyError: `kind` is unknown.
        RatingsError: `kind` splits by time, but the ratings have no timestamps.
    """
    if kind == AUTO:
        kind = automatic_split(dataset, dataset.file_order, test_fraction)
    return split_by(kind, dataset, dataset.file_order, test_fraction, seed)


def _report(notes: Sequence[str]) -> None:
    for note in notes:
        _log.info("%s", note)
