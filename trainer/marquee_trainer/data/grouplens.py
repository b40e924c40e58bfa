"""Reads MovieLens in the format of GroupLens: a folder or its zip file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from marquee_core.arrays import Float32, Int64
from marquee_trainer.data.archives import Files, FolderFiles, ZipFiles
from marquee_trainer.data.assembly import assemble
from marquee_trainer.data.chunked import ChunkedArray
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import SHOWN_PROBLEMS, RatingsError
from marquee_trainer.data.grouplens_items import parse_movies_csv, parse_movies_dat, parse_u_item
from marquee_trainer.data.grouplens_ratings import parse_ratings
from marquee_trainer.data.ids import IdColumn
from marquee_trainer.data.item_metadata import MetadataById
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.rows import Rows
from marquee_trainer.data.split import Split

# The file of all ratings, and the accompanying file of movies.
GROUPLENS_FILES = {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv"}
_METADATA_PARSERS: dict[str, Callable[[bytes, str], MetadataById]] = {
    "u.item": parse_u_item,
    "movies.dat": parse_movies_dat,
    "movies.csv": parse_movies_csv,
}


class GroupLensData(NamedTuple):
    """A data set that was read from files of GroupLens.

    Attributes:
        dataset: The ratings.
        split: The split, if files define one.
        notes: Notes for the user.
    """

    dataset: RatingsDataset
    split: Split | None
    notes: list[str]


def load_grouplens(
    path: Path,
    train_file: str | None = None,
    test_file: str | None = None,
    options: ReadOptions | None = None,
    own_metadata: MetadataById | None = None,
) -> GroupLensData:
    """Reads ratings and item metadata.

    Args:
        path: The folder or zip file.
        train_file: Name or path of a file of training ratings; None to train on all ratings
            except those of the test file.
        test_file: Name or path of a file of test ratings; None if no files define the split.
        options: The scale, and the treatment of repeated ratings and untitled items. By default,
            repeated ratings are an error; between the files of a split, they always are.
        own_metadata: Item metadata by item id that replaces that of the folder.

    Raises:
        OtherFormError: A file has another format than GroupLens' file of that name.
        RatingsError: A file is missing or malformed, a user rates an item twice, or a test rating
            is not among all ratings.
    """
    options = options or ReadOptions(on_repeat="error")
    if train_file or test_file:
        options = replace(options, on_repeat="error")
    files: Files = ZipFiles(path) if path.is_file() else FolderFiles(path)
    name = path.resolve().name.removesuffix(".zip")
    if train_file and not test_file:
        raise RatingsError("--train requires --test")
    if not test_file:
        _, rows = _all_ratings(files, path, options)
        metadata = own_metadata or _metadata(files)
        dataset, notes = assemble(
            rows, metadata, f"grouplens:{name}", options, keep_unrated=bool(metadata)
        )
        return GroupLensData(dataset, None, notes)
    if train_file:
        train_name, train = _named_ratings(files, path, train_file, options)
        test_name, test = _named_ratings(files, path, test_file, options)
        all_rows = _concatenated(train, test)
    else:
        test_name, test = _named_ratings(files, path, test_file, options)
        train_name = f"all but {test_name}"
        _, all_rows = _all_ratings(files, path, options)
    split_name = f"{train_name}, {test_name}"
    source = f"grouplens:{name} ({split_name})"
    metadata = own_metadata or _metadata(files)
    dataset, notes = assemble(all_rows, metadata, source, options, keep_unrated=bool(metadata))
    if train_file:
        parts = np.split(dataset.file_order, [len(train)])
        for part, part_name in zip(parts, (train_name, test_name), strict=True):
            if not len(part):
                raise RatingsError(f"{source}: {part_name} has no ratings")
    else:
        held_out = _rows_of(dataset, test, source)
        parts = [np.setdiff1d(np.arange(len(dataset)), held_out), held_out]
        if not len(parts[0]):
            raise RatingsError(
                f"{source}: all ratings are test ratings, and none are left for training"
            )
    return GroupLensData(dataset, Split(np.sort(parts[0]), np.sort(parts[1]), split_name), notes)


def _rows_of(dataset: RatingsDataset, test: Rows, source: str) -> Int64:
    """Finds the rows of the data set that hold the test ratings (int64, test ratings).

    Raises:
        RatingsError: A test rating is not in the data set, or is repeated.
    """
    users = dataset.user_ids.indexes(test.users.texts())[test.users.codes].astype(np.int64)
    items = dataset.catalogue.items.indexes(test.items.texts())[test.items.codes]
    width = len(dataset.catalogue)
    all_cells = dataset.users.astype(np.int64) * width + dataset.items
    cells = users * width + items
    rows = np.minimum(np.searchsorted(all_cells, cells), len(all_cells) - 1)
    is_found = (users >= 0) & (items >= 0) & (all_cells[rows] == cells)
    is_found &= dataset.ratings[rows] == test.ratings.array
    if not is_found.all():
        missing = np.flatnonzero(~is_found)
        problems = [
            f"{test.where(row)}: user {test.users.id(row)} rates item {test.items.id(row)} "
            f"{test.ratings.array[row]:g}, which is not among all ratings"
            for row in missing[:SHOWN_PROBLEMS].tolist()
        ]
        raise RatingsError.listing(f"{source}: test ratings", problems, len(missing))
    distinct, first = np.unique(rows, return_index=True)
    if len(distinct) < len(rows):
        row = int(np.setdiff1d(np.arange(len(rows)), first)[0])
        raise RatingsError(
            f"{test.where(row)}: user {test.users.id(row)} has already rated item "
            f"{test.items.id(row)} in this file"
        )
    return distinct


def _all_ratings(files: Files, path: Path, options: ReadOptions) -> tuple[str, Rows]:
    """The name and the rows of the file of all ratings."""
    for name in GROUPLENS_FILES:
        content = files.read(name)
        if content is not None:
            return name, parse_ratings(content, name, options.scale)
    raise RatingsError(f"{path.name}: it contains none of {', '.join(GROUPLENS_FILES)}")


def _named_ratings(files: Files, path: Path, name: str, options: ReadOptions) -> tuple[str, Rows]:
    """The name and the rows of a file in the folder or at another path."""
    content = files.read(name)
    if content is None and Path(name).is_file():
        content = Path(name).read_bytes()
    if content is None:
        raise RatingsError(f"there is no file {name}, neither in {path.name} nor at that path")
    return Path(name).name, parse_ratings(content, Path(name).name, options.scale)


def _metadata(files: Files) -> MetadataById:
    """Item metadata; empty if the source has none, in which case ids serve as titles."""
    for name, parse in _METADATA_PARSERS.items():
        content = files.read(name)
        if content is not None:
            return parse(content, name)
    return {}


def _concatenated(first: Rows, second: Rows) -> Rows:
    def where(row: int) -> str:
        return first.where(row) if row < len(first) else second.where(row - len(first))

    ratings: Float32 = np.concatenate([first.ratings.array, second.ratings.array])
    times: list[Int64] = [
        part.timestamps.array.astype(np.int64, copy=False)
        for part in (first, second)
        if part.timestamps is not None
    ]
    return Rows(
        IdColumn.concatenated([first.users, second.users]),
        IdColumn.concatenated([first.items, second.items]),
        ChunkedArray([ratings]),
        ChunkedArray([np.concatenate(times)]),
        where,
    )
