"""Interprets tables as ratings: chooses their columns and converts their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from marquee_core.arrays import Bool
from marquee_trainer.data.assembly import assemble
from marquee_trainer.data.chunked import ChunkedArray
from marquee_trainer.data.columns import (
    BY_ORDER,
    COUNT,
    ITEM,
    RATING,
    TIME,
    USER,
    ColumnChoice,
    choose_columns,
    columns_by_order,
    recognise,
)
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.delimited import DelimitedFile
from marquee_trainer.data.errors import SHOWN_PROBLEMS, RatingsError
from marquee_trainer.data.files import DataFile, find_files, short_name, without_secrets
from marquee_trainer.data.ids import IdColumn, id_problem
from marquee_trainer.data.items import Items, RatedItems, join_ids, read_items
from marquee_trainer.data.json_lines import JsonLinesFile
from marquee_trainer.data.missing import (
    NEGATIVE,
    ON_MISSING,
    is_empty_id,
    is_missing,
    stands_for_missing,
    without_rows,
)
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.rows import Rows
from marquee_trainer.data.scale import Feedback
from marquee_trainer.data.sql import DEFAULT_QUERY, read_query
from marquee_trainer.data.tables import (
    FrameTable,
    JoinedTables,
    Table,
    as_text,
    open_table,
)
from marquee_trainer.data.values import parse_rating_column, parse_time_column

_MOST_SHOWN = 60  # number of characters of a value in an error message
_MOST_FILES = 5  # number of files that are named in a note
_WHAT = {
    USER: "a user id",
    ITEM: "an item id",
    RATING: "a rating",
    COUNT: "a count",
    TIME: "a time",
}


@dataclass(frozen=True)
class Interpretation:
    """How a source was interpreted.

    Attributes:
        columns: The name of each role's column; empty for sources in a fixed format.
        times: The format of times, such as `seconds`; empty if there are none.
        notes: Further notes on the interpretation and on anything unusual, one sentence each.
    """

    columns: Mapping[str, str]
    times: str
    notes: tuple[str, ...]


def load_files(source: str, options: ReadOptions) -> tuple[RatingsDataset, Interpretation]:
    """Loads a path, folder, glob or URL of files.

    Raises:
        RatingsError: The files cannot be read or interpreted.
    """
    found = find_files(source)
    names = set(options.columns.values())
    tables = tuple(open_table(file, names) for file in found.ratings)
    table: Table = tables[0]
    if len(tables) > 1:
        table = JoinedTables(tables, tuple(file.name for file in found.ratings))

    def items_of(rated: RatedItems) -> Items:
        if options.items or found.items is None:
            return load_items(options, rated)
        return _neighbouring_items(found.items, options, rated)

    name = found.ratings[0].name
    dataset, interpretation = load_table(table, name, short_name(source), options, items_of)
    if len(tables) > 1:
        note = f"{len(tables):,} files are read as one table: {_listed(found.ratings)}"
        interpretation = replace(interpretation, notes=(note, *interpretation.notes))
    return dataset, interpretation


def load_query(source: str, options: ReadOptions) -> tuple[RatingsDataset, Interpretation]:
    """Loads the rows of an SQL query.

    Raises:
        RatingsError: The query fails, or its rows cannot be interpreted.
    """
    query = options.query or DEFAULT_QUERY
    table = FrameTable(read_query(source, query), query)
    description = f"{without_secrets(source)} ({query})"
    dataset, interpretation = load_table(
        table, "the query", description, options, lambda rated: load_items(options, rated)
    )
    notes = (f"query: {query}", *interpretation.notes)
    return dataset, Interpretation(interpretation.columns, interpretation.times, notes)


def load_items(options: ReadOptions, rated: RatedItems | None = None) -> Items:
    """Reads the file of item metadata that the options name, if any.

    Args:
        options: The file, and how to read it.
        rated: The items of the ratings; None if they are unknown.

    Raises:
        RatingsError: The file cannot be read or interpreted.
    """
    if not options.items:
        return Items({}, ())
    files = find_files(options.items).ratings
    if len(files) > 1:
        raise RatingsError(f"{options.items}: item metadata must be in one file, not {len(files)}")
    return _metadata(files[0], options, rated)


def load_table(
    table: Table,
    name: str,
    source: str,
    options: ReadOptions,
    items_of: Callable[[RatedItems], Items],
) -> tuple[RatingsDataset, Interpretation]:
    """Loads a table.

    Args:
        table: The table.
        name: Its name, for error messages.
        source: A description of where the ratings came from.
        options: How to read it.
        items_of: Returns item metadata for the rated items.

    Raises:
        RatingsError: The columns are not recognised, or values are malformed; the first few are
            reported with file, line and column.
        ValueError: `options.on_missing` is none of `ON_MISSING`.
    """
    if options.on_missing not in ON_MISSING:
        raise ValueError(f"on_missing={options.on_missing!r}: must be one of {ON_MISSING}")
    choice = _columns(table, name, options)
    rows, times, skipped = _rows(table, name, choice, options)
    metadata, item_notes = items_of(RatedItems(choice.names[ITEM], rows.items.texts()))
    feedback = None if RATING in choice.positions else Feedback.IMPLICIT
    dataset, notes = assemble(
        rows, metadata, source, options, feedback=feedback, keep_unrated=bool(metadata)
    )
    columns_notes = filter(None, (f"columns: {choice}", choice.unused_note()))
    every_note = (*item_notes, *columns_notes, *table.notes, *skipped, *notes)
    return dataset, Interpretation(choice.names, times, every_note)


def _rows(
    table: Table, name: str, choice: ColumnChoice, options: ReadOptions
) -> tuple[Rows, str, tuple[str, ...]]:
    """Converts a table to rows.

    Returns:
        The rows, the format of their times (empty if there are none), and notes on rows that were
        left out and on times.

    Raises:
        RatingsError: Values are malformed.
    """
    frame, where, skipped = _without_missing(_read(table, choice), table, name, choice, options)
    strength = RATING if RATING in choice.positions else COUNT
    columns = {role: frame[str(position)] for position, role in enumerate(choice.positions)}
    for role, column in columns.items():
        if column.dtype.is_nested():
            raise RatingsError(
                f"{name}: column {table.header[choice.positions[role]]} holds nested values; write "
                f"the {role} to a separate column"
            )
        if column.dtype == pl.Boolean and role in (USER, ITEM):
            raise RatingsError(
                f"{name}: column {table.header[choice.positions[role]]} holds true and false, "
                f"which are no ids; --columns names the column of the {role}"
            )
        if column.dtype == pl.Binary:  # Text, in files of older programs.
            columns[role] = as_text(column)
    for part in table.tables if isinstance(table, JoinedTables) else (table,):
        if isinstance(part, JsonLinesFile):
            part.check_ids([choice.names[USER], choice.names[ITEM]])
    users, items = (_ids(columns[role]) for role in (USER, ITEM))
    bad: dict[str, Bool | None] = {USER: users.invalid(), ITEM: items.invalid()}
    if strength in columns:
        ratings, bad[strength] = parse_rating_column(columns[strength])
        if strength == COUNT and ratings.distinct().min(initial=0.0) < 0:
            bad[strength] = ~(ratings.array >= 0)
    else:
        ratings = ChunkedArray([np.ones(len(frame), dtype=np.float32)])
    times = parse_time_column(columns[TIME]) if TIME in columns else None
    if times is not None:
        bad[TIME] = times.bad
    found = {role: mask for role, mask in bad.items() if mask is not None}
    if found:
        raise _malformed(table, where, columns, choice, found, options)
    if times is None:
        return Rows(users, items, ratings, None, where), "", skipped
    notes = (*skipped, times.note) if times.note else skipped
    return Rows(users, items, ratings, times.values, where), times.form, notes


def _without_missing(
    frame: pl.DataFrame, table: Table, name: str, choice: ColumnChoice, options: ReadOptions
) -> tuple[pl.DataFrame, Callable[[int], str], tuple[str, ...]]:
    """Leaves out rows that lack a value, as the options specify.

    Returns:
        The other rows, the location of each of these, and notes.

    Raises:
        RatingsError: `options.missing_values` is given, but there are no ratings or counts.
    """
    where: Callable[[int], str] = table.where
    every = len(frame)
    notes = []
    strength = RATING if RATING in choice.positions else COUNT
    roles = list(choice.positions)
    if options.missing_values:
        if strength not in roles:
            raise RatingsError(f"{name}: --missing-values requires a column of ratings or counts")
        column = frame[str(roles.index(strength))]
        frame, where = without_rows(
            frame, stands_for_missing(column, options.missing_values), where
        )
        values = " or ".join(
            "below 0" if value == NEGATIVE else f"of {value}" for value in options.missing_values
        )
        notes.append(
            f"{every - len(frame):,} of {every:,} rows have a {strength} {values} and are left out"
        )
    for position, role in enumerate(roles if options.on_missing == "skip" else ()):
        before, column = len(frame), frame[str(position)]
        missing = is_empty_id(column) if role in (USER, ITEM) else is_missing(column)
        if role == TIME and missing.all():
            continue  # There are no times.
        frame, where = without_rows(frame, missing, where)
        if len(frame) < before:
            lacking = before - len(frame)
            notes.append(f"{lacking:,} of {every:,} rows have no {role} and are left out")
    return frame, where, tuple(notes)


def _read(table: Table, choice: ColumnChoice) -> pl.DataFrame:
    """Reads the chosen columns, as numbers and categories if that is lossless."""
    positions = list(choice.positions.values())
    if isinstance(table, DelimitedFile):
        whole = [
            position for position, role in enumerate(choice.positions) if role in (USER, ITEM, TIME)
        ]
        frame = table.read_plain(positions, whole)
        if frame is not None:
            return frame
    return table.read(positions)


def _ids(column: pl.Series) -> IdColumn:
    return IdColumn.of(column if column.dtype.is_integer() else as_text(column))


def _columns(table: Table, name: str, options: ReadOptions) -> ColumnChoice:
    first = table.tables[0] if isinstance(table, JoinedTables) else table
    if not options.columns and isinstance(first, DelimitedFile) and not first.dialect.has_header:
        sample = first.read(range(len(first.header))).row(0)
        return columns_by_order(len(first.header), [str(value or "") for value in sample])
    try:
        return choose_columns(table.header, options.columns, name)
    except RatingsError as error:
        if isinstance(first, JsonLinesFile) and first.lists:
            raise RatingsError(
                f"{error}. The column {first.lists[0]} holds lists: write an object for each "
                "rating, with its user and its item"
            ) from None
        raise


def _metadata(file: DataFile, options: ReadOptions, rated: RatedItems | None) -> Items:
    table = open_table(file, set(options.item_columns.values()))
    return read_items(table, file.name, options.genre_separator, rated, options.item_columns)


def _neighbouring_items(file: DataFile, options: ReadOptions, rated: RatedItems) -> Items:
    """Reads a file of items next to the ratings, unless it is something else."""
    reason = ""
    try:
        if USER in recognise(open_table(file).header):
            reason = "it has a column of users"
        else:
            items = _metadata(file, options, rated)
            if items.metadata.keys().isdisjoint(rated.ids):
                renamed, metadata, _ = join_ids(IdColumn.of([*rated.ids]), items.metadata)
                if metadata.keys().isdisjoint(renamed.texts()):
                    reason = "none of its ids is that of a rated item"
    except RatingsError as error:
        reason = str(error)
    if reason:
        note = f"the file {file.name} next to the ratings is not used: {reason}"
        return Items({}, (note,))
    return items


def _malformed(
    table: Table,
    where: Callable[[int], str],
    columns: Mapping[str, pl.Series],
    choice: ColumnChoice,
    bad: Mapping[str, Bool],
    options: ReadOptions,
) -> RatingsError:
    """Creates the error that lists malformed rows with file, line and column."""
    wrong = np.flatnonzero(np.logical_or.reduce(list(bad.values())))
    problems = []
    for row in wrong[:SHOWN_PROBLEMS].tolist():
        role = next(role for role, mask in bad.items() if mask[row])
        value = columns[role][row]
        reason = id_problem(str(value or "")) if role in (USER, ITEM) else None
        text = value.hex() if isinstance(value, bytes) else str(value)
        shown = repr(_cut("" if value is None else text))
        problems.append(
            f"{where(row)}: column {choice.names[role]}: {shown} is not {_WHAT[role]}"
            + (f": {reason}" if reason else "")
        )
    wholly = [choice.names[role] for role, mask in bad.items() if len(mask) > 1 and mask.all()]
    hint = ""
    lacking = [
        role
        for role in bad
        if (is_empty_id if role in (USER, ITEM) else is_missing)(columns[role]).any()
    ]
    if wholly:
        hint = f"No value of {' and of '.join(wholly)} can be read. Use --columns to name other "
        hint += f"columns{_other_columns(table, choice)}."
    elif lacking and options.on_missing == "error":
        without = " or ".join(_WHAT[role] for role in lacking)
        hint = f"--on-missing skip leaves out the rows without {without}."
    elif COUNT in bad and stands_for_missing(columns[COUNT], (NEGATIVE,)).any():
        hint = (
            f"A count cannot be negative. --missing-values {NEGATIVE} leaves out rows with "
            "negative counts, such as returns."
        )
    return RatingsError.listing("malformed rows", problems, len(wrong), hint)


def _other_columns(table: Table, choice: ColumnChoice) -> str:
    """Suggests columns for a table without a header whose third column does not hold ratings."""
    if choice.basis != BY_ORDER:
        return ""
    values = table.read(range(len(table.header))).row(0)
    position = next((n for n, value in enumerate(values[3:], 4) if _is_number(str(value))), None)
    return (
        ""
        if position is None
        else f", such as user=1,item=2,rating={position} or …,count={position}"
    )


def _listed(files: Sequence[DataFile]) -> str:
    """Names some files; only the first ones if there are many."""
    names = ", ".join(file.name for file in files[:_MOST_FILES])
    more = len(files) - _MOST_FILES
    return f"{names} and {more:,} more" if more > 0 else names


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
