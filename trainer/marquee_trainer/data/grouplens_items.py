"""Parses GroupLens' files of item metadata: `u.item`, `movies.dat` and `movies.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from marquee_trainer.data.dialect import decode
from marquee_trainer.data.errors import OtherFormError, RatingsError
from marquee_trainer.data.ids import id_problem
from marquee_trainer.data.item_metadata import ItemMetadata, MetadataById
from marquee_trainer.data.items import split_genres
from marquee_trainer.data.titles import split_title

# The genres of MovieLens 100K in the order of u.item's flags, as its README lists them.
GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
# Fields of u.item: id, title, release date, video release date, URL, then a flag for each genre.
_FLAGS_FROM = 5
# Fields of movies.dat and movies.csv: id, title, genres.
_FIELDS = 3
_CSV_HEADER = ["movieId", "title", "genres"]

# The line number of a row, and either its id, title and genres or an error message.
_Row = tuple[int, tuple[str, str, Sequence[str]] | str]


def movielens_item(title: str, genres: Iterable[str]) -> ItemMetadata:
    """Creates item metadata from a title in MovieLens' form and genre labels."""
    plain, year = split_title(title)
    return ItemMetadata(plain, year, split_genres("|".join(genres), "|"))


def parse_u_item(content: bytes, name: str) -> MetadataById:
    """Parses `u.item` of MovieLens 100K, which is in Latin-1.

    Args:
        content: The file's content.
        name: The file's name, for error messages.

    Raises:
        RatingsError: Rows are malformed; the first few are reported with their lines.
    """

    def rows() -> Iterator[_Row]:
        fields = _FLAGS_FROM + len(GENRES_100K)
        for number, line in enumerate(content.decode("latin-1").split("\n"), start=1):
            row = line.rstrip("\r").split("|")
            if row == [""]:
                continue
            flags = row[_FLAGS_FROM:]
            if len(row) != fields or not set(flags) <= {"0", "1"}:
                yield number, f"not {fields} fields, the last {len(GENRES_100K)} of them 0 or 1"
            else:
                genres = [g for g, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]
                yield number, (row[0], row[1], genres)

    return _collected(rows(), name)


def parse_movies_dat(content: bytes, name: str) -> MetadataById:
    """Parses `movies.dat` of MovieLens 1M, which is in Latin-1, and 10M, which is in UTF-8.

    Args:
        content: The file's content.
        name: The file's name, for error messages.

    Raises:
        RatingsError: Rows are malformed; the first few are reported with their lines.
    """
    text = decode(content, name).text

    def rows() -> Iterator[_Row]:
        for number, line in enumerate(text.split("\n"), start=1):
            row = line.rstrip("\r").split("::")
            if row != [""]:
                yield number, _movie(row)

    return _collected(rows(), name)


def parse_movies_csv(content: bytes, name: str) -> MetadataById:
    """Parses `movies.csv` of the latest, 20M and 25M sets.

    Args:
        content: The file's content.
        name: The file's name, for error messages.

    Raises:
        OtherFormError: The header is not that of GroupLens.
        RatingsError: Rows are malformed; the first few are reported with their lines.
    """
    text = decode(content, name).text

    def rows() -> Iterator[_Row]:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            if next(reader, None) != _CSV_HEADER:
                raise OtherFormError(f"{name}:1: the header is not {','.join(_CSV_HEADER)}")
            for row in reader:
                if row:
                    yield reader.line_num, _movie(row)
        except csv.Error as error:
            yield reader.line_num, str(error)

    return _collected(rows(), name)


def _movie(row: Sequence[str]) -> tuple[str, str, Sequence[str]] | str:
    if len(row) != _FIELDS:
        return f"{len(row)} fields, not {_FIELDS}"
    return row[0], row[1], row[2].split("|")


def _collected(rows: Iterator[_Row], name: str) -> MetadataById:
    metadata: MetadataById = {}
    problems = []
    for number, row in rows:
        if isinstance(row, str):
            problems.append(f"{name}:{number}: {row}")
        elif reason := id_problem(row[0]):
            problems.append(f"{name}:{number}: {row[0][:40]!r} is not an item id: {reason}")
        elif row[0] in metadata:
            problems.append(f"{name}:{number}: item {row[0]} is described again")
        else:
            metadata[row[0]] = movielens_item(row[1], row[2])
    if problems:
        raise RatingsError.listing("malformed rows", problems)
    return metadata
