"""Functions that write ratings to files, folders and databases of many kinds."""

from __future__ import annotations

import sqlite3
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import polars as pl

Row = tuple[str, str, float, int]
# The ratings that most tests write in their own format.
ROWS: list[Row] = [
    ("ann", "b1", 4.0, 1_577_934_245),
    ("ann", "b2", 3.5, 1_577_934_300),
    ("bob", "b1", 1.0, 1_577_934_400),
]
# The files of a folder in GroupLens' format with one item.
GROUPLENS = {
    "ratings.dat": "1::10::4::5\n2::10::3::6\n",
    "movies.dat": "10::Matrix, The (1999)::Action|Sci-Fi\n",
}


def named(name: str, content: str | bytes) -> Callable[[Path], str]:
    """Return a function that writes one file and returns its path."""

    def write(folder: Path) -> str:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def csv_text(
    header: str, rows: list[Row], separator: str = ",", form: Callable[[int], Any] = int
) -> str:
    """Return the text of a file with all four columns."""
    lines = [separator.join([u, i, f"{r:g}", str(form(t))]) for u, i, r, t in rows]
    return "\n".join([header, *lines]) + "\n"


def parquet(frame: pl.DataFrame, name: str = "ratings.parquet") -> Callable[[Path], str]:
    """Return a function that writes a Parquet file."""

    def write(folder: Path) -> str:
        frame.write_parquet(folder / name)
        return str(folder / name)

    return write


def arrow(folder: Path) -> str:
    """Write the rows to an Arrow file."""
    frame_of(ROWS).write_ipc(folder / "ratings.feather")
    return str(folder / "ratings.feather")


def folder_of(files: Mapping[str, str], source: str = "") -> Callable[[Path], str]:
    """Return a function that writes files and returns their folder, or a pattern in it."""

    def write(folder: Path) -> str:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content)
        return str(folder / source) if source else str(folder)

    return write


def zipped(files: Mapping[str, str]) -> Callable[[Path], str]:
    """Return a function that writes files to a zip file."""

    def write(folder: Path) -> str:
        with zipfile.ZipFile(folder / "data.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return str(folder / "data.zip")

    return write


def sqlite(path: str, table: str = "ratings") -> Callable[[Path], str]:
    """Return a function that writes a SQLite database; `{}` in `path` stands for its file."""

    def write(folder: Path) -> str:
        with sqlite3.connect(folder / "own data.db") as database:
            database.execute(f"CREATE TABLE {table} (who TEXT, item TEXT, rating REAL, time INT)")
            insert = f"INSERT INTO {table} VALUES (?, ?, ?, ?)"  # noqa: S608
            database.executemany(insert, ROWS)
        database.close()
        return path.format(folder / "own data.db")

    return write


def memory_url(folder: Path) -> str:
    """Write a file to a file system that fsspec accesses by URL."""
    url = f"memory://{folder.name}/ratings.csv"
    with fsspec.open(url, "wb") as stream:
        stream.write(csv_text("user,item,rating,time", ROWS).encode())
    return url


def frame_of(rows: list[Row]) -> pl.DataFrame:
    """Return a data frame of all four columns."""
    return pl.DataFrame(rows, schema=["user", "item", "rating", "time"], orient="row")
