"""Reads MovieLens as GroupLens ships it: a folder as unpacked, or the zip file of one."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from marquee_trainer.data.dataset import RatingsDataset, RatingsError
from marquee_trainer.data.metadata import (
    Details,
    parse_movies_csv,
    parse_movies_dat,
    parse_u_item,
)
from marquee_trainer.data.parsing import Rows, parse_ratings
from marquee_trainer.data.split import Split

_RATINGS_FILES = ("u.data", "ratings.dat", "ratings.csv")
# What reading a damaged, an encrypted or a strangely compressed entry raises.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
_DETAILS_FILES: dict[str, Callable[[bytes, str], Details]] = {
    "u.item": parse_u_item,
    "movies.dat": parse_movies_dat,
    "movies.csv": parse_movies_csv,
}


class Files(Protocol):
    """Files by name."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when there is none of that name."""


class FolderFiles:
    """Files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """As `Files.read`."""
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None


class ZipFiles:
    """Files of a zip file, whatever folder of it they lie in."""

    def __init__(self, path: Path) -> None:
        """Opens it.

        Raises:
            RatingsError: It is not a zip file.
        """
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.rsplit("/", 1)[-1]: entry for entry in archive.namelist()}
        except zipfile.BadZipFile as error:
            raise RatingsError(f"{path.name}: {error}") from error

    def read(self, name: str) -> bytes | None:
        """As `Files.read`.

        Raises:
            RatingsError: The file is damaged or cannot be unpacked.
        """
        entry = self._entries.get(name)
        if entry is None:
            return None
        try:
            with zipfile.ZipFile(self._path) as archive:
                return archive.read(entry)
        except _DAMAGE as error:
            raise RatingsError(f"{self._path.name}: {name}: {error}") from error


def load_grouplens(
    path: Path, train_file: str | None = None, test_file: str | None = None
) -> tuple[RatingsDataset, Split | None]:
    """Reads ratings and item metadata.

    Args:
        path: The folder or zip file.
        train_file: Name of a file of training ratings, or its path; None for all ratings, less
            those of the test.
        test_file: Name of a file of test ratings, or its path.

    Returns:
        The ratings; and the split, when files name it.

    Raises:
        RatingsError: A file is missing or malformed, a user rates an item twice, or a test rating
            is not one of all ratings.
    """
    files: Files = ZipFiles(path) if path.is_file() else FolderFiles(path)
    name = path.resolve().name.removesuffix(".zip")
    if train_file and test_file:
        parts = [_named_ratings(files, path, file) for file in (train_file, test_file)]
        split_name = f"{parts[0].name}, {parts[1].name}"
        source = f"grouplens:{name} ({split_name})"
    elif test_file:
        return _all_but(files, path, test_file, name)
    elif train_file:
        raise RatingsError("a training file needs a test file beside it")
    else:
        parts = [_all_ratings(files, path)]
        source = f"grouplens:{name}"
    dataset = _dataset(parts, _details(files), source)
    if len(parts) == 1:
        return dataset, None
    train, test = np.split(dataset.file_order, [len(parts[0])])
    if not len(train) or not len(test):
        raise RatingsError(f"{source}: there are no ratings in one of the files")
    return dataset, Split(np.sort(train), np.sort(test), split_name)


def _all_but(files: Files, path: Path, test_file: str, name: str) -> tuple[RatingsDataset, Split]:
    """All ratings, of which those in the test file are for the test."""
    test = _named_ratings(files, path, test_file)
    source = f"grouplens:{name} (all but {test.name}, {test.name})"
    dataset = _dataset([_all_ratings(files, path)], _details(files), source)
    users = dataset.user_ids.indexes([user.decode() for user in test.users.tolist()])
    items = dataset.catalogue.items.indexes([item.decode() for item in test.items.tolist()])
    width = len(dataset.catalogue)
    every = dataset.users.astype(np.int64) * width + dataset.items
    cells = users.astype(np.int64) * width + items
    rows = np.minimum(np.searchsorted(every, cells), len(every) - 1)
    there = (users >= 0) & (items >= 0) & (every[rows] == cells)
    there &= dataset.ratings[rows] == test.ratings
    if not there.all():
        problems = [
            f"{test.line(row)}: user {test.users[row].decode()} rates item "
            f"{test.items[row].decode()} {test.ratings[row]:g}, which is none of all ratings"
            for row in np.flatnonzero(~there).tolist()
        ]
        raise RatingsError.listing(f"{source}: test ratings", problems)
    held, first = np.unique(rows, return_index=True)
    if len(held) < len(rows):
        row = int(np.setdiff1d(np.arange(len(rows)), first)[0])
        raise RatingsError(f"{test.line(row)}: the rating is in the file already")
    if len(held) == len(every):
        raise RatingsError(f"{source}: there are no ratings for training")
    train = np.setdiff1d(np.arange(len(every)), held)
    return dataset, Split(train, held, f"all but {test.name}, {test.name}")


def _all_ratings(files: Files, path: Path) -> Rows:
    for name in _RATINGS_FILES:
        content = files.read(name)
        if content is not None:
            return parse_ratings(content, name)
    raise RatingsError(f"{path.name}: none of {', '.join(_RATINGS_FILES)} is there")


def _named_ratings(files: Files, path: Path, name: str) -> Rows:
    content = files.read(name)
    if content is None and Path(name).is_file():
        content = Path(name).read_bytes()
    if content is None:
        raise RatingsError(f"there is no file {name}, neither in {path.name} nor by itself")
    return parse_ratings(content, Path(name).name)


def _details(files: Files) -> Details:
    """Item metadata; empty when the source has none, and items are then titled by their ids."""
    for name, parse in _DETAILS_FILES.items():
        content = files.read(name)
        if content is not None:
            return parse(content, name)
    return {}


def _dataset(parts: list[Rows], details: Details, source: str) -> RatingsDataset:
    starts = np.cumsum([0] + [len(part) for part in parts])

    def name_row(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part].line(row - int(starts[part]))

    return RatingsDataset.of(
        np.concatenate([part.users for part in parts]),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.ratings for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        details,
        source,
        name_row,
    )
