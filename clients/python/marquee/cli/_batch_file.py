"""Writes recommendations for many users to a file: Parquet, CSV or JSON lines, by its suffix.

Every format has one row per recommended item. A file appears under its name once it is complete.
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
    """Opens a file for writing rows, and yields a function that appends rows.

    If the block raises an exception or is interrupted, no file is created.

    Raises:
        click.UsageError: The suffix is not supported, the parent folder does not exist, the path is
            a folder, or the suffix is that of Parquet and pyarrow is not installed.
    """
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise click.UsageError(
            f"--out {path}: the suffix must be one of {', '.join(_OPENERS)}; it selects the format"
        )
    if path.is_dir():
        raise click.UsageError(f"--out {path}: the path is a folder")
    if not path.parent.is_dir():
        raise click.UsageError(f"--out {path}: the folder {path.parent} does not exist")
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
            # Each call writes a row group.
            values = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
            writer.write_table(arrow.table(dict(zip(COLUMNS, values, strict=True)), schema))

        yield write


_OPENERS: dict[str, Callable[[Path], AbstractContextManager[Write]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
}
