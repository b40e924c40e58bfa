"""Reads MovieLens as GroupLens ships it: a folder as unpacked, or the zip file of one."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from marquee_services.arrays import Float32, Int64
from marquee_trainer.data.dataset import ItemDetails, RatingsDataset, RatingsError
from marquee_trainer.data.split import Split
from marquee_trainer.data.titles import split_title

_RATINGS_FILES = ("u.data", "ratings.dat", "ratings.csv")
_CSV_HEADER = b"userid,movieid,rating"
_FIELDS = 4
_LOWEST, _HIGHEST = 0.5, 5.0
_MAX_ID_BYTES = 64
_SHOWN_ERRORS = 10
_NO_GENRES = "(no genres listed)"
# u.item: id, title, release date, video release date, URL, then a flag for each genre.
_FLAGS_FROM = 5


@dataclass(frozen=True)
class Rows:
    """Parsed ratings: user ids, item ids, stars, seconds since 1970."""

    users: NDArray[np.bytes_]
    items: NDArray[np.bytes_]
    ratings: Float32
    timestamps: Int64


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
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise RatingsError(f"{path.name}: {error}") from error

    def read(self, name: str) -> bytes | None:
        """As `Files.read`."""
        for entry in self._zip.namelist():
            if entry.rsplit("/", 1)[-1] == name:
                return self._zip.read(entry)
        return None


def load_grouplens(
    path: Path, train_file: str | None, test_file: str | None
) -> tuple[RatingsDataset, Split | None]:
    """Reads ratings and item metadata.

    Args:
        path: The folder or zip file.
        train_file: Name of a file of training ratings, or its path; None for all ratings.
        test_file: Name of a file of test ratings, or its path.

    Returns:
        The ratings; and the split, when files name it.

    Raises:
        RatingsError: A file is missing or malformed.
    """
    files: Files = ZipFiles(path) if path.is_file() else FolderFiles(path)
    name = path.name.removesuffix(".zip")
    details = _read_details(files)
    if train_file and test_file:
        parts = [parse_ratings(_named(files, f), Path(f).name) for f in (train_file, test_file)]
        source = f"grouplens:{name} ({Path(train_file).name}, {Path(test_file).name})"
        dataset = _dataset(parts, details, source)
        count = len(parts[0].ratings)
        split = Split(
            np.sort(dataset.file_order[:count]),
            np.sort(dataset.file_order[count:]),
            f"{Path(train_file).name} and {Path(test_file).name}",
        )
        return dataset, split
    if train_file or test_file:
        raise RatingsError("a training file and a test file belong together")
    for ratings_name in _RATINGS_FILES:
        content = files.read(ratings_name)
        if content is not None:
            rows = parse_ratings(content, ratings_name)
            return _dataset([rows], details, f"grouplens:{name}"), None
    raise RatingsError(f"{path.name}: none of {', '.join(_RATINGS_FILES)} is there")


def parse_ratings(content: bytes, name: str) -> Rows:
    """Parses a ratings file: tab-separated, `::`-separated, or CSV with a header.

    Args:
        content: The file.
        name: Its name, for errors.

    Raises:
        RatingsError: Rows are malformed; the first few are named by line, with their number.
    """
    skip, delimiter = 0, b"\t"
    if content[: len(_CSV_HEADER)].lower() == _CSV_HEADER:
        skip, delimiter = 1, b","
    elif b"::" in content[: content.find(b"\n") if b"\n" in content else len(content)]:
        content, delimiter = content.replace(b"::", b"\t"), b"\t"
    try:
        table = np.loadtxt(
            io.BytesIO(content),
            dtype=[("user", "S65"), ("item", "S65"), ("rating", "f8"), ("time", "i8")],
            delimiter=delimiter.decode(),
            skiprows=skip,
            comments=None,
            encoding="latin-1",
            ndmin=1,
        )
    except ValueError as error:
        raise _malformed(content, delimiter, skip, name) from error
    table = np.atleast_1d(table)
    blank_or_short = content.count(b"\n", 0, len(content.rstrip(b"\r\n"))) + 1 - skip != len(table)
    good = (table["rating"] >= _LOWEST) & (table["rating"] <= _HIGHEST)
    good &= (table["rating"] * 2) % 1 == 0
    for column in ("user", "item"):
        lengths = np.char.str_len(table[column])
        good &= (lengths > 0) & (lengths <= _MAX_ID_BYTES)
    if blank_or_short or not good.all() or not _plain(table["user"], table["item"]):
        raise _malformed(content, delimiter, skip, name)
    return Rows(table["user"], table["item"], table["rating"].astype(np.float32), table["time"])


def _plain(*columns: NDArray[np.bytes_]) -> bool:
    """Whether all ids are of printable ASCII without spaces."""
    for column in columns:
        letters = np.frombuffer(np.ascontiguousarray(column).tobytes(), dtype=np.uint8)
        if bool(((letters != 0) & ((letters <= ord(" ")) | (letters >= 127))).any()):
            return False
    return True


def _malformed(content: bytes, delimiter: bytes, skip: int, name: str) -> RatingsError:
    """Names the malformed rows."""
    errors = []
    for number, line in enumerate(content.splitlines(), start=1):
        problem = _problem(line, delimiter) if number > skip else None
        if problem:
            errors.append(f"{name}:{number}: {problem}")
    shown = "\n  ".join(errors[:_SHOWN_ERRORS])
    more = f"\n  … and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    return RatingsError(f"{len(errors)} malformed rows:\n  {shown}{more}")


def _problem(line: bytes, delimiter: bytes) -> str | None:
    fields = line.split(delimiter)
    if len(fields) != _FIELDS:
        return f"{len(fields)} fields, not {_FIELDS}"
    for what, field in (("user", fields[0]), ("item", fields[1])):
        if not 0 < len(field) <= _MAX_ID_BYTES or not all(32 < byte < 127 for byte in field):
            return f"{field!r} is no {what} id"
    try:
        stars = float(fields[2])
    except ValueError:
        return f"{fields[2]!r} is no rating"
    if not _LOWEST <= stars <= _HIGHEST or stars * 2 % 1:
        return f"rating {stars:g} is not in {_LOWEST:g} to {_HIGHEST:g} by half stars"
    try:
        int(fields[3])
    except ValueError:
        return f"{fields[3]!r} is no timestamp"
    return None


def _named(files: Files, name: str) -> bytes:
    content = files.read(name)
    if content is None and Path(name).is_file():
        content = Path(name).read_bytes()
    if content is None:
        raise RatingsError(f"there is no file {name}")
    return content


def _dataset(parts: list[Rows], details: dict[str, ItemDetails], source: str) -> RatingsDataset:
    return RatingsDataset.of(
        np.concatenate([part.users for part in parts]),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.ratings for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        details,
        source,
    )


def _read_details(files: Files) -> dict[str, ItemDetails]:
    """Item metadata; empty when the source has none."""
    if (content := files.read("u.item")) is not None:
        genres = _genre_names(files)
        rows = [line.split("|") for line in content.decode("latin-1").splitlines() if line]
        return {
            _field(row, 0, "u.item"): _details(
                _field(row, 1, "u.item"),
                [g for g, flag in zip(genres, row[_FLAGS_FROM:], strict=False) if flag == "1"],
            )
            for row in rows
        }
    if (content := files.read("movies.dat")) is not None:
        rows = [line.split("::") for line in content.decode("latin-1").splitlines() if line]
        name = "movies.dat"
    elif (content := files.read("movies.csv")) is not None:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8"))))[1:]
        name = "movies.csv"
    else:
        return {}
    return {
        _field(row, 0, name): _details(_field(row, 1, name), _field(row, 2, name).split("|"))
        for row in rows
    }


def _field(row: list[str], place: int, name: str) -> str:
    if len(row) <= place:
        raise RatingsError(f"{name}: a row has only {len(row)} fields: {row}")
    return row[place]


def _genre_names(files: Files) -> list[str]:
    content = files.read("u.genre")
    if content is None:
        raise RatingsError("u.genre is missing beside u.item")
    return [line.split("|")[0] for line in content.decode("latin-1").splitlines() if line]


def _details(title: str, genres: list[str]) -> ItemDetails:
    plain, year = split_title(title)
    kept = tuple(genre for genre in genres if genre and genre not in (_NO_GENRES, "unknown"))
    return ItemDetails(plain, year, kept)
