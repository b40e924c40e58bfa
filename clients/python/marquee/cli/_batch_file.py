"""Recommendations for many users as a file: Parquet, CSV or JSON lines, by the file's suffix.

Every format has a row for each recommended item. A file appears under its name when it is complete.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import click

import marquee

COLUMNS = (
    "user_id",
    "rank",
    "item_id",
    "title",
    "year",
    "genres",
    "score",
    "predicted_stars",
)
_GENRE_SEPARATOR = "|"  # in CSV, as in MovieLens

Rows: TypeAlias = Sequence[Sequence[Any]]
Write: TypeAlias = Callable[[Rows], None]


def rows(answer: marquee.BatchAnswer) -> list[list[Any]]:
    """Returns the rows of a user's answer, with a value for each of `COLUMNS`.

    Raises:
        MarqueeError: The answer is an error.
    """
    names = COLUMNS[1:]
    return [
        [answer.subject.user_id, *(getattr(item, name) for name in names)]
        for item in answer.unwrap()
    ]


@contextmanager
def open_batch_file(path: Path) -> Iterator[Write]:
    """Opens a file for rows, and yields the function that adds some.

    If the block raises an error, or Ctrl-C ends it, there is no file.

    Raises:
        click.UsageError: The suffix is not that of a format, the folder does not exist, the path is
            a folder, or Parquet was chosen and pyarrow is not installed.
    """
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise click.UsageError(
            f"--out {path}: the file must end in {', '.join(_OPENERS)}, which chooses its format"
        )
    if path.is_dir():
        raise click.UsageError(f"--out {path}: there is a folder of that name")
    if not path.parent.is_dir():
        raise click.UsageError(f"--out {path}: there is no folder {path.parent}")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with opener(unfinished) as write:
            yield write
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)

        def write(rows: Rows) -> None:
            for row in rows:
                cells = [_GENRE_SEPARATOR.join(v) if isinstance(v, tuple) else v for v in row]
                writer.writerow(cells)

        yield write


@contextmanager
def _json_lines(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:

        def write(rows: Rows) -> None:
            for row in rows:
                record = dict(zip(COLUMNS, row, strict=True))
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise click.UsageError(
            "Parquet needs pyarrow, which is not installed: "
            "pip install 'marquee-recommender[batch]'; or choose .csv or .jsonl"
        ) from error
    text = arrow.string()
    types = (
        text,
        arrow.int32(),
        text,
        text,
        arrow.int32(),
        arrow.list_(text),
        arrow.float64(),
        arrow.float64(),
    )
    schema = arrow.schema(list(zip(COLUMNS, types, strict=True)))
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:

        def write(rows: Rows) -> None:
            # Each call makes a row group.
            values = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
            writer.write_table(arrow.table(dict(zip(COLUMNS, values, strict=True)), schema))

        yield write


_OPENERS: dict[str, Callable[[Path], AbstractContextManager[Write]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
}
