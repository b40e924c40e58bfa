"""Ratings from databases: a SQLite file, and a PostgreSQL server if one is installed."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from marquee_trainer.data import sql
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.source import load_ratings
from marquee_trainer.data.sql import is_database, is_single_select
from toy.postgresql import PostgreSQL


def database(path: Path, create: str, rows: list[tuple[object, ...]]) -> str:
    """Write a SQLite database with a table `ratings`, and return its URL."""
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


def test_a_failed_query_is_reported(tmp_path: Path) -> None:
    """The error has the query and the reason of the database."""
    url = database(tmp_path / "own.db", "user, item, rating", [("a", "b", 1.0)])
    with pytest.raises(RatingsError, match=r"SELECT 1 FROM plays: no such table: plays"):
        load_ratings(url, options=ReadOptions(query="SELECT 1 FROM plays"))


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM ratings",
        "DELETE FROM ratings RETURNING *",
        "INSERT INTO ratings VALUES ('x', 'y', 1)",
        "DROP TABLE ratings",
        "SELECT * FROM ratings; DELETE FROM ratings",
        "VACUUM INTO 'copy.db'",
        "ATTACH 'copy.db' AS other",
        "PRAGMA user_version = 7",
    ],
)
def test_a_query_cannot_write_to_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """The file stays as it was, no other file appears, and the error has the query."""
    url = database(tmp_path / "own.db", "user TEXT, item TEXT, rating REAL", [("a", "b", 1.0)])
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "own.db").read_bytes()
    with pytest.raises(RatingsError) as raised:
        load_ratings(url, options=ReadOptions(query=query))
    assert query in str(raised.value)
    assert (tmp_path / "own.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["own.db"]


def test_sqlite_is_read_by_any_select(tmp_path: Path) -> None:
    """A query may begin with WITH or a comment, and the path may have special characters."""
    rows: list[tuple[object, ...]] = [("a", "b", 1.0), ("a", "c", 2.0)]
    name = "own %20?#&é.db"
    database(tmp_path / name, "user TEXT, item TEXT, rating REAL", rows)
    query = "-- own\nWITH own AS (SELECT * FROM ratings) SELECT * FROM own WHERE rating > 1;"
    dataset = load_ratings(str(tmp_path / name), options=ReadOptions(query=query)).dataset
    assert dataset.ratings.tolist() == [2.0]


def test_only_single_selects_are_recognised_as_such() -> None:
    """Databases without read-only sessions run nothing else."""
    for query in (
        "select * from ratings",
        "WITH own AS (SELECT 1) SELECT * FROM own;",
        "SELECT 'a; delete from ratings', \"update\", [drop] FROM r -- delete",
        "(SELECT 1) UNION (SELECT 2)",
    ):
        assert is_single_select(query), query
    for query in (
        "delete from ratings",
        "WITH own AS (SELECT 1 AS n) DELETE FROM own",
        "SELECT * INTO copy FROM ratings",
        "SELECT 1; DROP TABLE ratings",
        "selection",
        "EXEC own",
        "",
    ):
        assert not is_single_select(query), query


def test_reading_does_not_create_a_database(tmp_path: Path) -> None:
    """A misspelt path is an error."""
    with pytest.raises(RatingsError, match="does not exist"):
        load_ratings(f"sqlite:///{tmp_path}/none.db")
    assert not list(tmp_path.iterdir())


def test_databases_are_recognised(tmp_path: Path) -> None:
    """They are recognised by the protocol, the suffix or the first bytes of a file."""
    database(tmp_path / "own", "user, item, rating", [("a", "b", 1.0)])
    assert is_database(str(tmp_path / "own"))
    assert is_database("ratings.sqlite3")
    assert is_database("postgresql+psycopg://host/name")
    assert not is_database("https://host/ratings.csv")
    assert not is_database("ratings.csv")


@pytest.fixture
def postgres(postgresql: PostgreSQL) -> str:
    """The URL of an empty database on a PostgreSQL server."""
    return postgresql.new_database()


def run_sql(url: str, statement: str) -> None:
    """Run a statement that returns nothing."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_postgresql_is_read(postgres: str) -> None:
    """Integer ids, exact numerics and times with a time zone are read."""
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
    assert found.interpretation.columns == {
        "user": "user_id",
        "item": "item",
        "rating": "rating",
        "time": "at",
    }


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM ratings RETURNING *",
        "WITH gone AS (DELETE FROM ratings RETURNING *) SELECT * FROM gone",
        "SELECT nextval('own')::text AS user_id, 'b' AS item_id",
    ],
)
def test_a_query_cannot_write_to_postgresql(postgres: str, query: str) -> None:
    """The database refuses it, because the session is read only."""
    run_sql(postgres, "CREATE TABLE ratings AS SELECT 'a'::text AS user_id, 'b'::text AS item_id")
    run_sql(postgres, "CREATE SEQUENCE own")
    with pytest.raises(RatingsError, match="read-only transaction"):
        load_ratings(postgres, options=ReadOptions(query=query))
    assert len(load_ratings(postgres).dataset) == 1


@pytest.mark.parametrize("protocol", ["postgresql", "mysql", "mssql"])
def test_a_database_that_refuses_connections_is_an_error(
    protocol: str, free_port: Callable[[], int]
) -> None:
    """The error names the address but not the password, and is raised without a long wait."""
    port = free_port()
    source = f"{protocol}://own:hunter2@127.0.0.1:{port}/name"
    with pytest.raises(RatingsError, match="refused") as raised:
        load_ratings(source)
    text = str(raised.value)
    assert f"127.0.0.1:{port}/name: no database answers at 127.0.0.1:{port}" in text
    assert "hunter2" not in text


def test_connecting_to_a_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading fails if a server accepts the connection and stays silent."""
    monkeypatch.setattr(sql, "_CONNECT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(RatingsError, match=f"no database answers at 127.0.0.1:{port}"):
            load_ratings(f"postgresql://own@127.0.0.1:{port}/name")


def test_a_missing_database_is_reported(postgres: str) -> None:
    """The error has the reason given by the database."""
    with pytest.raises(RatingsError, match='database "missing" does not exist'):
        load_ratings(postgres.rpartition("/")[0] + "/missing")
