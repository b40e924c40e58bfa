"""Tables of any format: delimited text, JSON lines, Parquet, and data frames in memory."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import polars as pl

from marquee_trainer.data.delimited import DelimitedFile
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.file_signatures import (
    ARROW_MARK,
    HEAD_BYTES,
    PARQUET_MARK,
    check_is_table,
    is_json,
)
from marquee_trainer.data.files import ARROW, JSON_LINES, PARQUET, DataFile
from marquee_trainer.data.json_lines import JsonLinesFile
from marquee_trainer.data.netflix import NetflixFile, is_netflix
from marquee_trainer.data.polars_errors import POLARS_ERRORS, first_line

_MOST_NOTES = 5  # number of notes on joined tables
_UUID_BYTES = 16
_UUID = "^(.{8})(.{4})(.{4})(.{4})(.{12})$"

_ARTICLES = {PARQUET: "a", ARROW: "an"}


class Table(Protocol):
    """Rows with named columns."""

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""

    def read(self, positions: Sequence[int]) -> pl.DataFrame:
        """Reads columns; in the result, they are named by their index in `positions`.

        Raises:
            RatingsError: The table cannot be read.
        """

    def where(self, row: int) -> str:
        """Returns the location of a row, for error messages."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on how the table was read, one sentence each; call `read` first."""


@dataclass(frozen=True)
class FrameTable:
    """A table in memory.

    Attributes:
        frame: The rows.
        name: The table's name, for error messages.
    """

    frame: pl.DataFrame
    name: str

    @property
    def header(self) -> tuple[str, ...]:
        """See `Table.header`."""
        return tuple(self.frame.columns)

    def read(self, positions: Sequence[int]) -> pl.DataFrame:
        """See `Table.read`."""
        names = [self.frame.columns[position] for position in positions]
        return self.frame.select(pl.col(name).alias(str(n)) for n, name in enumerate(names))

    def where(self, row: int) -> str:
        """See `Table.where`."""
        return f"{self.name}: row {row + 1}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Table.notes`."""
        return ()


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file, of which only the required columns are read.

    Attributes:
        file: The file.
    """

    file: DataFile

    @cached_property
    def header(self) -> tuple[str, ...]:
        """See `Table.header`.

        Raises:
            RatingsError: The file is damaged.
        """
        try:
            return tuple(pl.read_parquet_schema(self._source()))
        except POLARS_ERRORS as error:
            raise RatingsError(f"{self.file.name}: {first_line(error)}") from error

    def read(self, positions: Sequence[int]) -> pl.DataFrame:
        """See `Table.read`."""
        names = [self.header[position] for position in positions]
        try:
            frame = pl.read_parquet(self._source(), columns=list(dict.fromkeys(names)))
        except POLARS_ERRORS as error:
            raise RatingsError(f"{self.file.name}: {first_line(error)}") from error
        return frame.select(pl.col(name).alias(str(n)) for n, name in enumerate(names))

    def where(self, row: int) -> str:
        """See `Table.where`."""
        return f"{self.file.name}: row {row + 1}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Table.notes`."""
        return ()

    def _source(self) -> str | io.BytesIO:
        local = self.file.local
        return str(local) if local is not None else io.BytesIO(self.file.read())


class JoinedTables:
    """Concatenated tables; columns are matched by name."""

    def __init__(self, tables: Sequence[Table], names: Sequence[str]) -> None:
        """Joins tables.

        Args:
            tables: The tables, at least one.
            names: Their names, for error messages.
        """
        self.tables = tables
        self._names = names
        # The first row of each table, then the end of the last one; set by `read`.
        self._starts = [0]

    @property
    def header(self) -> tuple[str, ...]:
        """See `Table.header`: the columns of the first table."""
        return self.tables[0].header

    def read(self, positions: Sequence[int]) -> pl.DataFrame:
        """See `Table.read`.

        Raises:
            RatingsError: A table lacks a column of the first one, or cannot be read.
        """
        frames = []
        for table, name in zip(self.tables, self._names, strict=True):
            columns = [self.header[position] for position in positions]
            lacking = [column for column in columns if column not in table.header]
            if lacking:
                raise RatingsError(
                    f"{name}: there is no column {', '.join(map(repr, lacking))}, which "
                    f"{self._names[0]} has; the files are read as one table"
                )
            frames.append(table.read([table.header.index(column) for column in columns]))
        self._starts = np.cumsum([0, *map(len, frames)]).tolist()
        types = {tuple(frame.dtypes) for frame in frames}
        if len(types) > 1:
            frames = [frame.select(pl.all().cast(pl.String)) for frame in frames]
        return pl.concat(frames)

    def where(self, row: int) -> str:
        """See `Table.where`; call `read` first."""
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.tables[part].where(row - self._starts[part])

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Table.notes`."""
        notes = [note for table in self.tables for note in table.notes]
        more = len(notes) - _MOST_NOTES
        shown = (f"{more:,} more notes on files are not shown",) if more > 0 else ()
        return (*notes[:_MOST_NOTES], *shown)


def open_table(file: DataFile, known_names: Collection[str] = ()) -> Table:
    """Opens a file of any format.

    Args:
        file: The file. Its format is detected from its content; its extension decides between JSON
            and delimited text if the content does not.
        known_names: Column names in addition to the common ones, for detecting the header of
            delimited text.

    Raises:
        RatingsError: The file cannot be read.
    """
    head = file.head(HEAD_BYTES)
    if head.startswith(PARQUET_MARK):
        return ParquetFile(file)
    if head.startswith(ARROW_MARK):
        try:
            return FrameTable(pl.read_ipc(io.BytesIO(file.read())), file.name)
        except (*POLARS_ERRORS, OSError) as error:
            raise RatingsError(f"{file.name}: not an Arrow file: {first_line(error)}") from error
    check_is_table(head, file.name)
    if file.format in (PARQUET, ARROW):
        raise RatingsError(f"{file.name}: not {_ARTICLES[file.format]} {file.format} file")
    if file.format == JSON_LINES or is_json(head):
        return JsonLinesFile(file)
    if is_netflix(head):
        return NetflixFile(file)
    return DelimitedFile.open(file, known_names)


def as_text(column: pl.Series) -> pl.Series:
    """Converts a column of ids or other values to text.

    Whole numbers in a float column are written without `.0`. Binary values that are not text are
    written as UUIDs if they have 16 bytes, and otherwise in hexadecimal.
    """
    if column.dtype == pl.Binary:
        return _bytes_as_text(column)
    if column.dtype.is_float():
        known = column.drop_nulls()
        if bool((known.is_finite() & (known.floor() == known)).all()):
            column = column.cast(pl.Int64, strict=False)
    return column.cast(pl.String, strict=False)


def _bytes_as_text(column: pl.Series) -> pl.Series:
    try:
        text = column.cast(pl.String)
    except pl.exceptions.ComputeError:
        is_text = False
    else:
        is_text = not text.str.contains(r"[\x00-\x1f]").any()
    if is_text:
        return text
    digits = column.bin.encode("hex")
    if bool((column.drop_nulls().bin.size() == _UUID_BYTES).all()):
        return digits.str.replace(_UUID, "$1-$2-$3-$4-$5")
    return digits
