"""Reads item metadata from a table with any columns."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import polars as pl

from marquee_trainer.data.columns import plain_name, position_of
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.ids import IdColumn, id_problem
from marquee_trainer.data.item_metadata import ItemMetadata, MetadataById
from marquee_trainer.data.tables import Table, as_text
from marquee_trainer.data.titles import split_title

_ID_NAMES = "itemid movieid filmid productid parentasin asin isbn bookid trackid songid artistid"
_ID_NAMES += " albumid articleid showid animeid gameid jokeid recipeid businessid contentid videoid"
_ID_NAMES += " courseid placeid newsid sku stockcode item movie id iid mid"
_TITLE_NAMES = "title movietitle booktitle itemtitle producttitle name itemname moviename"
_TITLE_NAMES += " productname trackname songname artistname headline label originaltitle"
_YEAR_NAMES = "year releaseyear yearofpublication publicationyear originalpublicationyear"
_YEAR_NAMES += " released releasedate published publisheddate date startyear"
_GENRE_NAMES = "genres genre categories category maincategory tags styles style topics"
ITEM_ROLES = ("id", "title", "year", "genres")
# The type of columns of words in RecBole's files, and its column of genres in those of MovieLens.
_WORDS_TYPE = ":token_seq"
_RECBOLE_GENRES = "class" + _WORDS_TYPE
_YEAR = re.compile(r"(?<!\d)(1[5-9]\d\d|20\d\d|21\d\d)(?!\d)")
_TITLE_WITH_YEAR = re.compile(r".*\(\d{4}(?:[-–]\d{0,4})?\)")
_SEPARATORS = ("|", ";", ",")
NO_GENRE = frozenset({"", "unknown", "(no genres listed)"})
_WHOLE_FLOAT = re.compile(r"-?\d+\.0+")
# The largest share of the rated items that may lack metadata.
_MOST_UNTITLED = 0.2
_SHOWN_IDS = 5


class Items(NamedTuple):
    """Item metadata of a file, with notes.

    Attributes:
        metadata: Metadata by item id.
        notes: Notes on the interpretation and on anything unusual, one sentence each.
    """

    metadata: MetadataById
    notes: tuple[str, ...]


class RatedItems(NamedTuple):
    """The items of ratings, from which the column of their ids in a table of items is found.

    Attributes:
        column: The name of their column in the ratings; empty if it has none.
        ids: Their ids; empty if they are unknown.
    """

    column: str = ""
    ids: Collection[str] = ()


def read_items(
    table: Table,
    name: str,
    genre_separator: str = "",
    rated: RatedItems | None = None,
    columns: Mapping[str, str] | None = None,
) -> Items:
    """Reads item metadata: id, title, year and genres; other columns become attributes.

    Args:
        table: The table.
        name: Its name, for messages.
        genre_separator: The separator between genres; empty to detect it.
        rated: The items of the ratings; None if they are unknown.
        columns: The name, or the position counted from 1, of the column of each of `ITEM_ROLES`;
            those that are not given are recognised by common names.

    Raises:
        RatingsError: The table cannot be read, a given column does not exist, or no column of item
            ids is recognised.
    """
    header = table.header
    plain = [plain_name(column) for column in header]
    positions: dict[str, int | None] = {
        role: next((plain.index(known) for known in names.split() if known in plain), None)
        for role, names in (
            ("title", _TITLE_NAMES),
            ("year", _YEAR_NAMES),
            ("genres", _GENRE_NAMES),
        )
    }
    if positions["genres"] is None:
        typed = [title.strip().lower() for title in header]
        if _RECBOLE_GENRES in typed:
            positions["genres"] = typed.index(_RECBOLE_GENRES)
    given: dict[str, int | None] = {
        role: position_of(header, title, name) for role, title in (columns or {}).items()
    }
    positions |= given
    frame = table.read(range(len(header)))
    id_position = given.get("id")
    if id_position is None:
        id_position = _id_column(frame, plain, rated or RatedItems())
    if id_position is None:
        raise RatingsError(
            f"{name}: no column is recognised as item ids among {', '.join(map(repr, header))}; "
            "name it with --item-columns id=…"
        )
    positions = {"id": id_position, **positions}
    texts = {header[n]: frame[str(n)] for n in range(len(header)) if header[n]}
    ids = as_text(frame[str(positions["id"])]).fill_null("").to_list()
    bad = [row for row, item in enumerate(ids) if id_problem(item)]
    if bad:
        problems = [
            f"{table.where(row)}, column {header[id_position]}: {ids[row][:40]!r} is not an "
            f"item id: {id_problem(ids[row])}"
            for row in bad[:10]
        ]
        raise RatingsError.listing("malformed rows", problems, len(bad))

    def of(role: str) -> pl.Series | None:
        position = positions[role]
        return None if position is None else frame[str(position)]

    genre_column = positions["genres"]
    if genre_column is not None and header[genre_column].strip().lower().endswith(_WORDS_TYPE):
        genre_separator = genre_separator or " "
    genres, separator = _genres(of("genres"), len(ids), genre_separator)
    titles, years = _titles(of("title"), of("year"), ids)
    used = {header[position] for position in positions.values() if position is not None}
    attributes = {
        column: _plain_texts(values) for column, values in texts.items() if column not in used
    }
    metadata: MetadataById = {}
    for row, item in enumerate(ids):
        if item not in metadata:
            extra = {key: values[row] for key, values in attributes.items() if values[row]}
            metadata[item] = ItemMetadata(titles[row], years[row], genres[row], extra)
    notes = [f"items: {_description(header, positions, separator, attributes)}"]
    if len(metadata) < len(ids):
        notes.append(
            f"{len(ids) - len(metadata):,} rows of {name} describe an item again; the first "
            f"description is used"
        )
    return Items(metadata, (*table.notes, *notes))


def _id_column(frame: pl.DataFrame, plain: Sequence[str], rated: RatedItems) -> int | None:
    """The position of the column of item ids; None if there is none.

    It has the name of the column in the ratings or, failing that, is the column with a common name
    that describes the most rated items.

    Args:
        frame: All columns, named by their positions.
        plain: Their plain names.
        rated: The items of the ratings.
    """
    common = [plain.index(known) for known in _ID_NAMES.split() if known in plain]
    stem = plain_name(rated.column).removesuffix("id")
    same = [n for n, column in enumerate(plain) if stem and column in (stem, f"{stem}id")]
    candidates = list(dict.fromkeys([*same, *common]))
    if not rated.ids or len(candidates) < 2:
        return candidates[0] if candidates else None
    ids = set(rated.ids)
    described = {
        position: len(ids.intersection(as_text(frame[str(position)]).drop_nulls()))
        for position in candidates
        if not frame[str(position)].dtype.is_nested()
    }
    joining = [position for position in same if described.get(position)]
    if joining:
        return joining[0]
    return max(described, key=lambda position: described[position], default=None)


def split_genres(text: str, separator: str) -> tuple[str, ...]:
    """Splits a text into distinct genres, without labels that mean "no genre"."""
    names = (part.strip() for part in text.split(separator))
    return tuple(dict.fromkeys(name for name in names if name not in NO_GENRE))


def join_ids(ids: IdColumn, metadata: MetadataById) -> tuple[IdColumn, MetadataById, str]:
    """Matches ids such as `1.0` with ids such as `1` if they are certainly the same.

    They are if all ids of one side are whole numbers with `.0`, as pandas writes a column of
    integers with missing values, and more items have metadata afterwards.

    Args:
        ids: The items of the ratings.
        metadata: Item metadata by item id.

    Returns:
        The matched ids and metadata, and a note; empty if nothing was changed.
    """
    if not metadata:
        return ids, metadata, ""
    names = ids.texts()
    known = sum(name in metadata for name in names)
    if known == len(names):
        return ids, metadata, ""
    if all(_WHOLE_FLOAT.fullmatch(name) for name in names):
        whole = [name.partition(".")[0] for name in names]
        if sum(name in metadata for name in whole) > known:
            note = f"item ids such as {names[0]!r} in the ratings are read as {whole[0]!r}"
            return ids.renamed(whole), metadata, note
    if all(_WHOLE_FLOAT.fullmatch(name) for name in metadata):
        renamed = {name.partition(".")[0]: value for name, value in metadata.items()}
        if len(renamed) == len(metadata) and sum(name in renamed for name in names) > known:
            first = next(iter(metadata))
            note = f"item ids such as {first!r} in the metadata are read as {next(iter(renamed))!r}"
            return ids, renamed, note
    return ids, metadata, ""


def check_titles(names: Sequence[str], metadata: MetadataById, allow_untitled: bool) -> str:
    """Checks how many rated items have no metadata.

    Args:
        names: The ids of the rated items.
        metadata: Item metadata by item id; empty if the source has none.
        allow_untitled: Whether many items may lack metadata.

    Returns:
        A note; empty if all items have metadata or the source has none.

    Raises:
        RatingsError: More than a fifth of the items lack metadata, and `allow_untitled` is not set.
    """
    missing = [name for name in names if name not in metadata] if metadata else []
    if not missing:
        return ""
    share = len(missing) / len(names)
    shown = ", ".join(map(repr, missing[:_SHOWN_IDS]))
    note = (
        f"{len(missing):,} of {len(names):,} rated items ({share:.1%}) have no metadata, for "
        f"example {shown}"
    )
    if share > _MOST_UNTITLED and not allow_untitled:
        others = ", ".join(map(repr, list(metadata)[:_SHOWN_IDS]))
        raise RatingsError(
            f"{note}; the metadata has ids such as {others}. Use --allow-untitled to title such "
            f"items by their ids"
        )
    return note


def _titles(
    titles: pl.Series | None, years: pl.Series | None, ids: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Titles and years; a title such as "Heat (1995)" includes the year."""
    texts = _plain_texts(titles) if titles is not None else [""] * len(ids)
    given = _plain_texts(years) if years is not None else [""] * len(ids)
    found_titles, found_years = [], []
    for text, year_text, item in zip(texts, given, ids, strict=True):
        match = _YEAR.search(year_text)
        title, year = text or item, int(match[0]) if match else 0
        if _TITLE_WITH_YEAR.match(title):
            title, year_of_title = split_title(title)
            year = year or year_of_title
        found_titles.append(title)
        found_years.append(year)
    return found_titles, found_years


def _genres(
    column: pl.Series | None, count: int, separator: str
) -> tuple[list[tuple[str, ...]], str]:
    """The genres of each item, and the detected separator."""
    if column is None:
        return [()] * count, ""
    if isinstance(column.dtype, pl.List):
        rows = column.fill_null([]).to_list()
        return [split_genres("\0".join(map(str, row)), "\0") for row in rows], "a list"
    texts = _plain_texts(column)
    filled = [text for text in texts if text]
    if filled and all(text.startswith("[") and text.endswith("]") for text in filled):
        return [_from_list(text) for text in texts], "a list"
    separator = separator or next(
        (mark for mark in _SEPARATORS if any(mark in text for text in filled)), ""
    )
    return [split_genres(text, separator or "|") for text in texts], separator


def _from_list(text: str) -> tuple[str, ...]:
    """The genres of a list in JSON or Python syntax."""
    try:
        values = json.loads(text)
    except ValueError:
        values = [part.strip().strip("'\"") for part in text.strip("[]").split(",")]
    names = [value.get("name", "") if isinstance(value, dict) else str(value) for value in values]
    return split_genres("\0".join(names), "\0")


def _plain_texts(column: pl.Series) -> list[str]:
    if column.dtype.is_nested():
        return [
            "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
            for value in column.to_list()
        ]
    return [text.strip() for text in as_text(column).fill_null("").to_list()]


def _description(
    header: Sequence[str],
    positions: dict[str, int | None],
    separator: str,
    attributes: dict[str, list[str]],
) -> str:
    parts = [
        f"{role}={header[position]}" for role, position in positions.items() if position is not None
    ]
    text = ", ".join(parts)
    if separator:
        text += f"; genres are separated by {separator!r}" if separator != "a list" else ""
    if attributes:
        text += f"; attributes {', '.join(attributes)}"
    return text
