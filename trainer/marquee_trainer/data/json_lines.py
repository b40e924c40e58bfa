"""Reads files of JSON objects, one per line or all in one array."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.files import DataFile
from marquee_trainer.data.polars_errors import POLARS_ERRORS, first_line

_JSON_ERRORS = (ValueError, RecursionError)
# Text that may come from a list, an object or a Boolean.
_LIKE_JSON = r"^\s*[\[{]|^(?:true|false)$"
_MOST_SHOWN = 60  # number of characters of a value in an error message


@dataclass(frozen=True)
class JsonLinesFile:
    """A file of JSON objects, one per line or all in one array.

    Attributes:
        file: The file.
    """

    file: DataFile

    @property
    def lists(self) -> tuple[str, ...]:
        """The names of the columns of lists."""
        return tuple(column.name for column in self._frame if isinstance(column.dtype, pl.List))

    def check_ids(self, names: Sequence[str]) -> None:
        """Checks that columns of ids hold only text and numbers.

        Args:
            names: The names of the columns.

        Raises:
            RatingsError: One holds a list, an object or a Boolean.
        """
        for name in names:
            column = self._frame[name]
            if column.dtype != pl.String:
                continue
            # Text may look the same, so the values themselves are looked at.
            suspects = column.str.contains(_LIKE_JSON).fill_null(False).arg_true().to_list()
            values = self._values(name, suspects) if suspects else []
            for row, value in zip(suspects, values, strict=True):
                if isinstance(value, list | dict | bool):
                    raise RatingsError(
                        f"{self.where(row)}: column {name}: {column[row][:_MOST_SHOWN]} is not an "
                        "id; ids are text or numbers"
                    )

    def _values(self, name: str, rows: Sequence[int]) -> list[object]:
        """The values of a field in some rows, as JSON has them; None for a field of a field."""
        lines = [line for line in self._content.split(b"\n") if line.strip()]
        if len(lines) == len(self._frame):
            objects = [json.loads(lines[row]) for row in rows]
        else:
            every = json.loads(self._content)
            if isinstance(every, dict):
                (every,) = every.values()
            objects = [every[row] for row in rows]
        return [found.get(name) for found in objects]

    @property
    def header(self) -> tuple[str, ...]:
        """See `Table.header`."""
        return tuple(self._frame.columns)

    def read(self, positions: Sequence[int]) -> pl.DataFrame:
        """See `Table.read`."""
        names = [self._frame.columns[position] for position in positions]
        return self._frame.select(pl.col(name).alias(str(n)) for n, name in enumerate(names))

    def where(self, row: int) -> str:
        """See `Table.where`."""
        lines = [n for n, line in enumerate(self._content.split(b"\n"), start=1) if line.strip()]
        if len(lines) == len(self._frame):
            return f"{self.file.name}:{lines[row]}"
        return f"{self.file.name}: object {row + 1}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Table.notes`."""
        return ()

    @cached_property
    def _content(self) -> bytes:
        return self.file.read()

    @cached_property
    def _frame(self) -> pl.DataFrame:
        frame = self._parsed()
        if len(frame) == 1 and frame.width == 1 and isinstance(frame.dtypes[0], pl.List):
            # One object that holds the rows, such as {"ratings": [{…}, …]}.
            rows = frame.to_series().explode()
            frame = rows.struct.unnest() if isinstance(rows.dtype, pl.Struct) else frame
        return _flat(frame)

    def _parsed(self) -> pl.DataFrame:
        is_array = self._content.lstrip().startswith(b"[")
        try:
            if is_array:
                return pl.read_json(io.BytesIO(self._content), infer_schema_length=None)
            return pl.read_ndjson(io.BytesIO(self._content), infer_schema_length=None)
        except POLARS_ERRORS:
            pass
        try:
            return self._slow_frame(is_array)
        except (*POLARS_ERRORS, UnicodeEncodeError, OverflowError, TypeError) as error:
            raise RatingsError(f"{self.file.name}: {first_line(error)}") from error

    def _slow_frame(self, is_array: bool) -> pl.DataFrame:
        """Reads all values as text, for columns of mixed types and to report malformed lines."""
        name = self.file.name
        if is_array:
            try:
                rows = json.loads(self._content)
            except _JSON_ERRORS as error:
                raise RatingsError(f"{name}: {error}") from error
        else:
            whole = _single_object(self._content)
            if whole is not None:
                return pl.DataFrame(whole, infer_schema_length=None)
            rows, problems = [], []
            for number, line in enumerate(self._content.split(b"\n"), start=1):
                try:
                    rows += [json.loads(line)] if line.strip() else []
                except _JSON_ERRORS as error:
                    problems.append(f"{name}:{number}: {error}")
            if problems:
                raise RatingsError.listing("malformed rows", problems)
        if not all(isinstance(row, dict) for row in rows):
            raise RatingsError(f"{name}: not every value is a JSON object")
        keys = dict.fromkeys(key for row in rows for key in row)
        return pl.DataFrame(
            {
                key: pl.Series([_json_text(row.get(key)) for row in rows], dtype=pl.String)
                for key in keys
            }
        )


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Flattens columns of objects to one column per field, such as `user.id`."""
    while any(isinstance(kind, pl.Struct) for kind in frame.dtypes):
        columns: list[pl.Series] = []
        for column in frame:
            if isinstance(column.dtype, pl.Struct):
                fields = column.struct.unnest()
                columns += [field.alias(f"{column.name}.{field.name}") for field in fields]
            else:
                columns.append(column)
        frame = pl.DataFrame(columns)
    return frame


def _single_object(content: bytes) -> dict[str, list[list[object]]] | None:
    """Parses a multi-line object whose only value is a list of rows; None for anything else."""
    try:
        found = json.loads(content)
    except _JSON_ERRORS:
        return None
    if isinstance(found, dict) and len(found) == 1:
        ((name, rows),) = found.items()
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            return {name: [rows]}
    return None


def _json_text(value: object) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
