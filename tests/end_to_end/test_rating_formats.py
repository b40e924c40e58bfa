"""Common ways to write ratings, from the file to a served recommendation."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from click.testing import CliRunner

from marquee.cli import main as marquee_command
from marquee.cli.table import render
from marquee_core.release.store import ReleaseStore
from toy.trained_services import serve_trained
from toy.two_groups import ROWS, table

Written = tuple[str, Sequence[str]]  # the value of --data, and further options


def day(seconds: int) -> str:
    """Return a time as an ISO 8601 date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def file_with(name: str, content: str | bytes) -> Callable[[Path], Written]:
    """Return a function that writes one file with this name."""

    def write(folder: Path) -> Written:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
        return str(folder / name), ()

    return write


def parts(folder: Path) -> Written:
    """Write three files that are read by a glob."""
    for part in range(3):
        (folder / f"part{part}.csv").write_text(table("user,item,rating,time", ROWS[part::3]))
    return str(folder / "part*.csv"), ()


def parquet(folder: Path) -> Written:
    """Write a Parquet file with typed columns."""
    frame = pl.DataFrame(ROWS, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    frame.write_parquet(folder / "ratings.parquet")
    return str(folder / "ratings.parquet"), ()


def compressed_parts(folder: Path) -> Written:
    """Write a folder of parts as Spark does, with a different order of columns in each."""
    for part in range(2):
        rows = [row if part else row[1::-1] + row[2:] for row in ROWS[part::2]]
        text = table("user,item,rating,time" if part else "item,user,rating,time", rows)
        (folder / f"part-0000{part}.csv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "_SUCCESS").touch()
    return str(folder), ()


def filtered_database(folder: Path) -> Written:
    """Write rows to a database, of which a query selects some, with times as text."""
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute("create table r (user_id text, item_id text, rating real, created text)")
        rows = [(u, i, s, day(t)) for u, i, s, t in ROWS]
        rows.append(("nobody", "i1", 99, "never"))
        connection.executemany("insert into r values (?, ?, ?, ?)", rows)
    connection.close()
    query = "select user_id, item_id, rating, created as time from r where rating < 9"
    return f"sqlite:///{folder / 'shop.db'}", ("--query", query)


def database(folder: Path) -> Written:
    """Write a table of an SQLite database that is read by a query."""
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute("create table reviews (who text, what text, score integer, at integer)")
        connection.executemany("insert into reviews values (?, ?, ?, ?)", ROWS)
    connection.close()
    query = "select who as user, what as item, score as rating, at as time from reviews"
    return f"sqlite:///{folder / 'shop.db'}", ("--query", query)


def by_name(folder: Path) -> Written:
    """Write columns with meaningless names, which an option identifies."""
    (folder / "x.csv").write_text(table("a,b,c,d", ROWS))
    return str(folder / "x.csv"), ("--columns", "user=a,item=b,rating=c,time=d")


LINES = "".join(
    json.dumps({"user": u, "item": i, "rating": r, "timestamp": t}) + "\n" for u, i, r, t in ROWS
)
FORMS: dict[str, Callable[[Path], Written]] = {
    "other header names": file_with("r.csv", table("reviewerID,asin,overall,unixReviewTime", ROWS)),
    "other order, semicolons": file_with(
        "r.csv", table("time,rating,item,user", [row[::-1] for row in ROWS], ";")
    ),
    "quoted header and fields": file_with(
        "r.csv", table("User-ID,Item-ID,Rating,Time", ROWS, quoting=csv.QUOTE_ALL)
    ),
    "no timestamps": file_with("r.csv", table("userId,movieId,rating", [row[:3] for row in ROWS])),
    "ISO dates": file_with(
        "r.csv", table("user,item,rating,date", [(*r[:3], day(r[3])) for r in ROWS])
    ),
    "milliseconds": file_with(
        "r.csv", table("user,item,rating,ts", [(*r[:3], r[3] * 1000) for r in ROWS])
    ),
    "plays": file_with(
        "r.tsv",
        table("user,artist,plays", [(u, i, 9**s) for u, i, s, _ in ROWS], "\t"),
    ),
    "purchases": file_with("r.csv", table("customer,product", [r[:2] for r in ROWS if r[2] > 3])),
    "scale 1 to 10": file_with(
        "r.csv", table("user,item,rating,time", [(u, i, 2 * s, t) for u, i, s, t in ROWS])
    ),
    "scale 0 to 100": file_with(
        "r.csv", table("user,item,rating,time", [(u, i, 25 * s - 25, t) for u, i, s, t in ROWS])
    ),
    "thumbs": file_with(
        "r.csv", table("user,item,vote", [(u, i, int(s > 3)) for u, i, s, _ in ROWS])
    ),
    "repeats": file_with("r.csv", table("user,item,rating,time", [*ROWS, *ROWS[:50]])),
    "accents and spaces in ids": file_with(
        "r.csv",
        table("user,item,rating,time", [(f"Zoë {u}", f"Café №{i}", s, t) for u, i, s, t in ROWS]),
    ),
    "leading zeros and large numbers": file_with(
        "r.csv",
        table(
            "user,item,rating,time",
            [(f"00{u[1:]}", f"9{int(i[1:]):018}", s, t) for u, i, s, t in ROWS],
        ),
    ),
    "index column": file_with(
        "r.csv", table(",userId,movieId,rating,timestamp", [(n, *r) for n, r in enumerate(ROWS)])
    ),
    "gzip": file_with("r.csv.gz", gzip.compress(table("user,item,rating,time", ROWS).encode())),
    "Zstandard": file_with(
        "r.csv.zst", zstandard.compress(table("user,item,rating,time", ROWS).encode())
    ),
    "byte order mark, CRLF": file_with("r.csv", "\ufeff" + table("user,item,rating,time", ROWS)),
    "JSON lines": file_with("r.jsonl", LINES),
    "Parquet": parquet,
    "glob of parts": parts,
    "SQLite": database,
    "SQLite, with a condition": filtered_database,
    "columns by name": by_name,
    "folder of compressed parts": compressed_parts,
    "decimal commas, day first": file_with(
        "r.csv",
        "user;item;rating;date\n"
        + "".join(
            f"{u};{i};{s},0;{datetime.fromtimestamp(t, UTC):%d.%m.%Y %H:%M}\n"
            for u, i, s, t in ROWS
        ),
    ),
    "nested JSON lines": file_with(
        "r.jsonl",
        "".join(
            json.dumps({"user": {"id": u, "age": None}, "item": i, "rating": s, "time": t}) + "\n"
            for u, i, s, t in ROWS
        ),
    ),
    "UTF-16 of Excel": file_with(
        "r.txt", table("user,item,rating,time", ROWS, "\t").encode("utf-16")
    ),
    "spaces around quotes": file_with(
        "r.csv",
        '"user" , "item" , "rating"\n' + "".join(f'"{u}" , "{i}" , {s}\n' for u, i, s, _ in ROWS),
    ),
    "mixed times, not in order": file_with(
        "r.csv",
        table(
            "user,item,rating,time",
            [
                (u, i, s, day(t) if n % 2 else day(t)[:19] + ".5Z")
                for n, (u, i, s, t) in enumerate(sorted(ROWS))
            ],
        ),
    ),
    "spaces, no header": file_with("r.txt", "".join(f"{u} {i}  {s} {t}\n" for u, i, s, t in ROWS)),
    "a.m. and p.m.": file_with(
        "r.csv",
        table(
            "user,item,rating,date",
            [(*r[:3], f"{datetime.fromtimestamp(r[3], UTC):%m/%d/%Y %I:%M:%S %p}") for r in ROWS],
        ),
    ),
    "gzip under the name of CSV": file_with(
        "r.csv", gzip.compress(table("user,item,rating,time", ROWS).encode())
    ),
    "characters that are not printable": file_with(
        "r.csv",
        table(
            "user,item,rating,time", [(f"\u00a0{u}\u200d", f"\x07{i}", s, t) for u, i, s, t in ROWS]
        ),
    ),
}


# The most common formats. The others differ only in how they are read, which
# `trainer/data/test_rating_formats.py` also tests.
COMMON = (
    "other header names",
    "other order, semicolons",
    "quoted header and fields",
    "no timestamps",
    "ISO dates",
    "plays",
    "purchases",
    "scale 1 to 10",
    "thumbs",
    "repeats",
    "accents and spaces in ids",
    "gzip",
    "JSON lines",
    "Parquet",
    "glob of parts",
    "SQLite, with a condition",
)
OTHERS = tuple(name for name in FORMS if name not in COMMON)

# The id of the user u3 in the formats that write ids differently.
USER_IDS = {
    "accents and spaces in ids": "Zoë u3",
    "leading zeros and large numbers": "003",
    "characters that are not printable": "\u00a0u3\u200d",
}


def number(item_id: str) -> int:
    """Return the number of an item, however its id is written."""
    return int("".join(filter(str.isdigit, item_id))) % 100


def train(url: str, data: str, options: Sequence[str]) -> tuple[int, str]:
    """Run `marquee train` and promote the release; return the exit code and the output.

    The gate is skipped, as it would refuse ratings that are not among those in production.
    """
    command = ["train", "--data", data, "--store", url, "--models", "ease,item_cf"]
    result = CliRunner().invoke(marquee_command, [*command, "--no-promote", "--no-gate", *options])
    if result.exit_code == 0:
        store = ReleaseStore(url)
        store.promote(store.manifests()[0].release_id)
    text = result.output if result.exception is None else f"{result.output}{result.exception!r}"
    return result.exit_code, text


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "forms", [COMMON, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["common", "others"]
)
async def test_every_rating_format_is_serve_trained(
    forms: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table lists what was read in each format; users get complete lists of unseen items."""
    store = ReleaseStore(str(tmp_path / "store"))
    found: list[list[str]] = []
    failures: list[str] = []

    async def ask(name: str, client: Any) -> list[str]:
        production = store.production()
        assert production is not None
        release_id = production.release_id

        async def is_serve_trained() -> bool:
            status = await client.status()
            return status.release is not None and status.release.release_id == release_id

        while not await is_serve_trained():
            await asyncio.sleep(0.05)
        manifest = store.manifest(release_id)
        page = await client.recommend(USER_IDS.get(name, "u3"), page_size=5)
        assert page.source.release_id == release_id
        assert page.subject_kind.value == "KNOWN"
        assert not page.source.degraded
        least = 4 if name == "purchases" else 1
        rated = {number(item) for user, item, stars, _ in ROWS if user == "u3" and stars >= least}
        assert len(page) == 5
        assert not {number(item.item_id) for item in page} & rated
        data = manifest.data
        scale = f"{data.rating_min:g} to {data.rating_max:g}"
        return [name, f"{data.rating_count}", data.feedback, scale, page[0].item_id]

    async def run(name: str, client: Any = None) -> None:
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        data, options = FORMS[name](folder)
        code, output = await asyncio.to_thread(train, store.url, data, options)
        if code:
            failures.append(f"{name}: {output}")
        elif client is not None:
            found.append(await ask(name, client))

    first, *others = forms
    await run(first)
    assert not failures
    async with serve_trained(store, tmp_path) as client:
        found.append(await ask(first, client))
        for name in others:
            await run(name, client)
    headers = ["form", "ratings", "feedback", "scale", f"first of {len(forms)} lists"]
    with capsys.disabled():
        print("\n" + render(headers, found, "lrlll"))  # noqa: T201 - the table is the report
    assert not failures
    assert len(found) == len(forms)
    counts = {row[0]: int(row[1]) for row in found}
    liked = sum(row[2] > 3 for row in ROWS)
    assert counts == {name: liked if name == "purchases" else len(ROWS) for name in forms}
