"""Ratings from databases: a SQLite file, and a PostgreSQL server where one is installed."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.sql import is_database

_STARTUP_S = 60.0


def database(path: Path, create: str, rows: list[tuple[object, ...]]) -> str:
    """Writes a SQLite database with a table `ratings`, and returns its URL."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE ratings ({create})")
        places = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO ratings VALUES ({places})", rows)  # noqa: S608
        connection.commit()
    return f"sqlite:///{path}"


def test_columns_of_mixed_types_are_read(tmp_path: Path) -> None:
    """SQLite allows text and numbers in one column."""
    rows: list[tuple[object, ...]] = [(7, "b1", 4), ("ann", 1, 3.5), ("ann", "b1", "2")]
    url = database(tmp_path / "own.db", "user, item, rating", rows)
    dataset = load_ratings(url).dataset
    assert dataset.user_ids.ids(range(2)) == ["7", "ann"]
    assert dataset.ratings[dataset.file_order].tolist() == [4, 3.5, 2]


def test_an_empty_result_has_no_ratings(tmp_path: Path) -> None:
    """The error names the query."""
    url = database(tmp_path / "own.db", "user TEXT, item TEXT, rating REAL", [("a", "b", 1.0)])
    query = "SELECT * FROM ratings WHERE rating > 5"
    with pytest.raises(RatingsError, match="there are no ratings"):
        load_ratings(url, options=ReadOptions(query=query))


def test_a_query_that_fails_is_named(tmp_path: Path) -> None:
    """The error has the query and the reason of the database."""
    url = database(tmp_path / "own.db", "user, item, rating", [("a", "b", 1.0)])
    with pytest.raises(RatingsError, match=r"SELECT 1 FROM plays: no such table: plays"):
        load_ratings(url, options=ReadOptions(query="SELECT 1 FROM plays"))


def test_reading_does_not_create_a_database(tmp_path: Path) -> None:
    """A misspelt path is an error."""
    with pytest.raises(RatingsError, match="does not exist"):
        load_ratings(f"sqlite:///{tmp_path}/none.db")
    assert not list(tmp_path.iterdir())


def test_databases_are_recognised(tmp_path: Path) -> None:
    """By the protocol, by the ending or by the first bytes of a file."""
    database(tmp_path / "own", "user, item, rating", [("a", "b", 1.0)])
    assert is_database(str(tmp_path / "own"))
    assert is_database("ratings.sqlite3")
    assert is_database("postgresql+psycopg://host/name")
    assert not is_database("https://host/ratings.csv")
    assert not is_database("ratings.csv")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server, which is stopped afterwards."""
    if not all(map(shutil.which, ("initdb", "postgres", "psql"))):
        pytest.skip("PostgreSQL is not installed")
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path("/tmp" if user else tmp_path_factory.mktemp("postgres"))  # noqa: S108
    folder = folder / f"marquee-test-postgres-{os.getpid()}"
    folder.mkdir()
    if user:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        subprocess.run(
            ["initdb", "-D", folder / "data", "-A", "trust", "-U", "own"],
            check=True,
            user=user,
            cwd=folder,
            capture_output=True,
        )
        listen = "listen_addresses=127.0.0.1"
        server = subprocess.Popen(
            ["postgres", "-D", folder / "data", "-p", str(port), "-k", folder, "-c", listen],
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"postgresql://own@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait()
    finally:
        shutil.rmtree(folder)


def run_sql(url: str, statement: str) -> None:
    """Runs a statement once the server accepts connections."""
    deadline = time.monotonic() + _STARTUP_S
    while True:
        done = subprocess.run(["psql", url, "-c", statement], check=False, capture_output=True)
        if not done.returncode:
            return
        assert time.monotonic() < deadline, done.stderr.decode()
        time.sleep(0.1)


def test_postgresql_is_read(postgres: str) -> None:
    """Integer ids, exact numerics and times with a zone are understood."""
    run_sql(
        postgres,
        "CREATE TABLE IF NOT EXISTS ratings AS SELECT * FROM (VALUES "
        "(9999999999::bigint, 'é 1'::text, 3.5::numeric(3, 1), '2020-01-02 00:00+00'::timestamptz),"
        "(7, '007', 4, '2020-01-03 00:00+00')) AS own(user_id, item, rating, at)",
    )
    found = load_ratings(postgres)
    dataset, order = found.dataset, found.dataset.file_order
    assert dataset.user_ids.ids(dataset.users[order]) == ["9999999999", "7"]
    assert dataset.catalogue.items.ids(dataset.items[order]) == ["é 1", "007"]
    assert dataset.ratings[order].tolist() == [3.5, 4]
    assert dataset.timestamps[order].tolist() == [1_577_923_200, 1_578_009_600]
    assert found.understood.columns == {
        "user": "user_id",
        "item": "item",
        "rating": "rating",
        "time": "at",
    }
