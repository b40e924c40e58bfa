"""Reads ratings in the format of the Netflix Prize: the rows of each film after a line `FILM:`."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.files import DataFile
from marquee_trainer.data.polars_errors import POLARS_ERRORS, first_line

_BEGINNING = re.compile(rb"\d+:\r?\n\d+,\d+,\d{4}-\d\d-\d\d\s")

_NOWHERE = "\x01"
"""A separator that occurs in no line, so that each is read as one field."""


def is_netflix(head: bytes) -> bool:
    """Whether a file that begins with these bytes has the format."""
    return _BEGINNING.match(head) is not None


@dataclass(frozen=True)
class NetflixFile:
    """A file with the ratings of one or more films, each a row of user, rating and date.

    Attributes:
        file: The file.
    """

    file: DataFile

    @property
    def header(self) -> tuple[str, ...]:
        """See `Table.header`."""
        return ("user", "item", "rating", "date")

    def read(self, positions: Sequence[int]) -> pl.DataFrame:
        """See `Table.read`."""
        names = [self.header[position] for position in positions]
        return self._rows.select(pl.col(name).alias(str(n)) for n, name in enumerate(names))

    def where(self, row: int) -> str:
        """See `Table.where`."""
        return f"{self.file.name}:{self._rows['line'][row]}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Table.notes`."""
        return ()

    @cached_property
    def _rows(self) -> pl.DataFrame:
        """The ratings, with the film of the line above them and their line in the file.

        Raises:
            RatingsError: The file is not text in UTF-8.
        """
        local = self.file.local
        try:
            lines = pl.read_csv(
                str(local) if local is not None else io.BytesIO(self.file.read()),
                has_header=False,
                separator=_NOWHERE,
                quote_char=None,
                schema={"text": pl.String},
            )
        except POLARS_ERRORS as error:
            raise RatingsError(f"{self.file.name}: {first_line(error)}") from error
        text = pl.col("text")
        is_film = text.str.ends_with(":")
        film = pl.when(is_film).then(text.str.strip_suffix(":")).forward_fill()
        fields = text.str.splitn(",", 3).struct.rename_fields(["user", "rating", "date"])
        return (
            lines.with_row_index("line", 1)
            .with_columns(film.alias("item"))
            .filter(~is_film)
            .select("line", "item", fields)
            .unnest("text")
        )
