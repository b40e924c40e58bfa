"""Reads delimited text with polars or, if polars cannot parse it, line by line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from marquee_trainer.data.dialect import (
    HEAD_BYTES,
    Dialect,
    decode,
    find_dialect,
    is_plain,
    is_utf8,
    split_line,
    with_tabs,
)
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.files import DataFile
from marquee_trainer.data.plain_columns import read_plain_columns
from marquee_trainer.data.polars_errors import POLARS_ERRORS

_MARK = b"\xef\xbb\xbf"
# Fields may be long texts, such as reviews.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class DelimitedFile:
    """A file of delimited text whose dialect is known.

    Attributes:
        file: The file.
        dialect: Its dialect.
        utf8: Whether it appears to be UTF-8.
        returns: Whether lines end with a carriage return only.
        escaped: Whether quotes within quoted fields follow a backslash, as in dumps of MySQL.
        guesses: The encoding, if it was guessed; set by `read`.
    """

    file: DataFile
    dialect: Dialect
    utf8: bool
    returns: bool = False
    escaped: bool = False
    guesses: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def open(cls, file: DataFile, known_names: Collection[str] = ()) -> DelimitedFile:
        """Finds the dialect of a file.

        Args:
            file: The file.
            known_names: Column names in addition to the common ones, for detecting a header.

        Raises:
            RatingsError: The file cannot be read, is empty or has a single column.
        """
        head = file.head(HEAD_BYTES)
        if len(head) == HEAD_BYTES and b"\n" in head:
            head = head[: head.rindex(b"\n")]
        utf8 = is_utf8(head)
        text = decode(head[: len(head) & ~1] if not utf8 else head, file.name).text
        returns = "\r" in text and "\n" not in text
        dialect = find_dialect(text, file.name, known_names)
        # A backslash before the closing quote of a field is part of the field.
        end = rf"\s*(?:{re.escape(dialect.separator)}|[\r\n]|\Z)"
        escaped = not is_plain(dialect.separator) and bool(re.search(rf'\\"(?!"|{end})', text))
        return cls(file, dialect, utf8, returns, escaped)

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self.dialect.header

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Table.notes`."""
        return tuple(
            f"{self.file.name} is not in UTF-8, and is read as {guess}" for guess in self.guesses
        )

    def read(self, positions: Sequence[int]) -> pl.DataFrame:
        """Reads columns as text; missing and empty values are null.

        Args:
            positions: The positions of the columns; in the result, columns are named by their index
                in this list.

        Raises:
            RatingsError: A row has too few or too many fields; the first such rows are named by
                file and line.
        """
        frame = self._fast(positions)
        if frame is None:
            frame = self._slow(positions)
        return frame.select(map(_stripped, frame)) if self.dialect.spaced else frame

    def read_plain(self, positions: Sequence[int], whole: Collection[int]) -> pl.DataFrame | None:
        """Reads all columns faster and in less memory than as text, if that is lossless.

        Args:
            positions: See `read`.
            whole: Indexes in `positions` of the columns to read as whole numbers if possible.

        Returns:
            The columns, with the types of `read_plain_columns`; None if they must be read as text.
        """
        local, dialect = self.file.local, self.dialect
        is_simple = self.utf8 and len(dialect.separator) == 1 and not dialect.spaced
        width = len(self.header)
        if local is None or not is_simple or sorted(positions) != list(range(width)):
            return None
        skipped = dialect.preamble + int(dialect.has_header)
        indexes = {positions[index] for index in whole}
        frame = read_plain_columns(local, dialect.separator, skipped, width, indexes)
        if frame is None:
            return None
        return frame.select(
            pl.col(str(position)).alias(str(index)) for index, position in enumerate(positions)
        )

    def where(self, row: int) -> str:
        """The location of a row: the file's name and the first line of the row, counted from 1."""
        return f"{self.file.name}:{self._rows[row][0]}"

    @cached_property
    def _rows(self) -> list[tuple[int, list[str]]]:
        """All non-blank rows of data, each with its line number."""
        rows: list[tuple[int, list[str]]] = []
        text = self._text()
        separator, preamble = self.dialect.separator, self.dialect.preamble
        skip = int(self.dialect.has_header)
        text = text.split("\n", preamble)[-1]
        if is_plain(separator):
            lines = enumerate(text.splitlines(), start=1 + preamble)
            return [
                (number, split_line(line, separator)) for number, line in lines if line.strip()
            ][skip:]
        escape = "\\" if self.escaped else None
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, escapechar=escape)
        first_line = 1 + preamble
        for row in reader:
            if any(row):
                rows.append((first_line, row))
            first_line = reader.line_num + 1 + preamble
        return rows[skip:]

    def _fast(self, positions: Sequence[int]) -> pl.DataFrame | None:
        """The columns as polars reads them; None if it cannot parse them."""
        source = None if self.escaped else self._source()  # polars knows no escapes
        if source is None:
            return None
        is_long = is_plain(self.dialect.separator)
        names = [f"column_{index}" for index in range(1, len(self.header) + 1)]
        try:
            frame = pl.read_csv(
                source,
                has_header=False,
                skip_lines=self.dialect.preamble,
                skip_rows=int(self.dialect.has_header),
                separator="\t" if is_long else self.dialect.separator,
                quote_char=None if is_long else '"',
                schema=dict.fromkeys(names, pl.String),
                columns=[names[index] for index in positions],
            )
        except POLARS_ERRORS:
            return None
        frame = frame.select(names[index] for index in positions)
        frame.columns = [str(index) for index in range(len(positions))]
        # Polars reads trailing blank lines as rows of nulls.
        while len(frame) and all(value is None for value in frame.row(-1)):
            frame = frame.head(-1)
        # Nulls in part of a column mean blank or short lines; a column may be entirely empty.
        if any(0 < column.null_count() < len(frame) for column in frame):
            return None
        return frame

    def _source(self) -> bytes | str | None:
        """The input of polars: the path of a local file, or bytes in UTF-8.

        None if fields contain tabs, which are to replace the separator.
        """
        local, separator = self.file.local, self.dialect.separator
        if local is not None and self.utf8 and not is_plain(separator) and not self.returns:
            return str(local)
        if self.utf8 and not self.returns:
            content = self.file.read().removeprefix(_MARK)
        else:
            content = self._text().encode()
        if not is_plain(separator):
            return content
        return None if b"\t" in content else with_tabs(content, separator)

    def _text(self) -> str:
        """The whole text, with line feeds as line ends."""
        text, guessed = decode(self.file.read(), self.file.name)
        if guessed:
            self.guesses.add(guessed)
        return text.replace("\r", "\n") if self.returns else text

    def _slow(self, positions: Sequence[int]) -> pl.DataFrame:
        width = len(self.header)
        problems = [
            f"{self.file.name}:{line}: {len(row)} field{'s' * (len(row) != 1)}, not {width}"
            for line, row in self._rows
            if len(row) != width
        ]
        if problems:
            raise RatingsError.listing("malformed rows", problems)
        return pl.DataFrame(
            {
                str(index): pl.Series(
                    [row[position] or None for _, row in self._rows], dtype=pl.String
                )
                for index, position in enumerate(positions)
            }
        )


def _stripped(column: pl.Series) -> pl.Series:
    """Removes spaces around separators, and quotes if all values have them."""
    texts = column.str.strip_chars()
    if bool(texts.str.contains(r'(?s)^".*"$').all()):
        inner = texts.str.slice(1, texts.str.len_chars() - 2)
        texts = inner.str.replace_all('""', '"', literal=True)
    return texts
