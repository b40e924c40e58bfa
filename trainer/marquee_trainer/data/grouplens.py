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
        train_file: Name of a file of training ratings, or its path; None for all ratings.
        test_file: Name of a file of test ratings, or its path.

    Returns:
        The ratings; and the split, when files name it.

    Raises:
        RatingsError: A file is missing or malformed, or a user rates an item twice.
    """
    files: Files = ZipFiles(path) if path.is_file() else FolderFiles(path)
    name = path.resolve().name.removesuffix(".zip")
    if train_file and test_file:
        parts = [_named_ratings(files, path, file) for file in (train_file, test_file)]
        split_name = f"{parts[0].name}, {parts[1].name}"
        source = f"grouplens:{name} ({split_name})"
    elif train_file or test_file:
        raise RatingsError("a training file and a test file belong together")
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
