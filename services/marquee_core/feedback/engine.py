"""Connects to the database of the feedback log: SQLite or PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

SQLITE, POSTGRESQL = "sqlite", "postgresql"

# An arbitrary number that other programs are unlikely to use as a lock in the same database.
_ADVISORY_LOCK = 0x6D617271756565
# Pool sizes. Writers exclude each other anyway, and a single connection makes the best use of its
# page cache and prepared statements.
_WRITERS, _READERS = 1, 3
# The shortest connection timeout in seconds that libpq accepts.
_MIN_CONNECT_TIMEOUT_S = 2


def parse_url(url: str) -> URL:
    """Parses the URL of a feedback log.

    Args:
        url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.

    Raises:
        ValueError: The URL does not have one of these forms.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(f"the URL of the feedback log cannot be parsed: {error}") from error
    backend = parsed.get_backend_name()
    if backend == SQLITE:
        if not parsed.database or parsed.database == ":memory:":
            raise ValueError("a SQLite feedback log needs a file: sqlite:///PATH")
        return parsed.set(drivername=SQLITE)
    if backend in (POSTGRESQL, "postgres"):
        return parsed.set(drivername=f"{POSTGRESQL}+psycopg")
    raise ValueError(f"the feedback log needs SQLite or PostgreSQL, not {backend}")


def make_engine(url: URL, timeout: float, *, writes: bool = False) -> Engine:
    """Creates an engine, which connects on first use.

    Args:
        url: A URL returned by `parse_url`.
        timeout: Seconds to wait for a connection, for a lock and for a statement.
        writes: Whether the engine is for write transactions, which lock a SQLite file when they
            begin.
    """
    pool: dict[str, Any] = {
        "pool_size": _WRITERS if writes else _READERS,
        "max_overflow": 0,
        "pool_timeout": timeout,
    }
    if url.get_backend_name() == SQLITE:
        assert url.database is not None  # noqa: S101 - checked by `parse_url`
        engine = create_engine(
            url,
            connect_args={"timeout": timeout, "check_same_thread": False},
            # The statement cache of SQLAlchemy suffices.
            **pool,
        )
        event.listen(engine, "connect", _set_up_sqlite)
        # Without IMMEDIATE, a transaction that reads and then writes fails if another process
        # writes in between.
        begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        event.listen(engine, "do_connect", _make_folder)
        return engine
    milliseconds = int(timeout * 1000)
    engine = create_engine(
        url,
        connect_args={
            "connect_timeout": max(_MIN_CONNECT_TIMEOUT_S, round(timeout)),
            "application_name": "marquee",
            "tcp_user_timeout": milliseconds,
        },
        **pool,
    )

    def set_up(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {milliseconds}")
            cursor.execute(f"SET lock_timeout = {milliseconds}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {2 * milliseconds}")
            # All values except `off` wait for the disk, and some also wait for replicas.
            if cursor.execute("SHOW synchronous_commit").fetchone() == ("off",):
                cursor.execute("SET synchronous_commit = on")
        connection.commit()

    event.listen(engine, "connect", set_up)
    return engine


def lock_writers(connection: Connection) -> None:
    """Excludes other writers until the end of the transaction.

    This makes entries visible in the order of their positions, so a reader that follows the log by
    position misses none. Without the lock, a PostgreSQL transaction with lower positions could
    commit after one with higher positions.
    """
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")


def _make_folder(_dialect: Any, _record: Any, arguments: Any, _parameters: Any) -> None:
    """Creates the folder of a SQLite file."""
    Path(arguments[0]).parent.mkdir(parents=True, exist_ok=True)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # Transactions are begun explicitly by `make_engine`, not implicitly by the driver.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # A commit waits until the write-ahead log is on disk.
    cursor.execute("PRAGMA synchronous = FULL")
    # Overwrite deleted feedback in the file.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()
