"""Connections to the database of the log, with transactions, retries and error conversion."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from marquee_core.feedback.engine import SQLITE, lock_writers, make_engine, parse_url
from marquee_core.feedback.events import LogUnavailable
from marquee_core.feedback.migrate import upgrade

_T = TypeVar("_T")


class Database:
    """The database of a feedback log. Its tables are created or migrated on first use.

    Methods raise `LogUnavailable` if the database cannot be reached, or fails for a reason other
    than the data.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """Creates the engines, which connect on first use.

        Args:
            url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.
            timeout: Seconds to wait for a connection, for a lock and for a statement.

        Raises:
            ValueError: The URL does not have one of these forms.
        """
        self._reading = make_engine(parse_url(url), timeout)
        self._writing = make_engine(parse_url(url), timeout, writes=True)
        self._is_ready = False
        self._preparing = threading.Lock()

    @property
    def name(self) -> str:
        """The database's URL without its password."""
        return self._reading.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Closes the connections."""
        self._reading.dispose()
        self._writing.dispose()

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """Executes statements that only read, and returns their result.

        Args:
            work: Executes the statements. It is called again if the connection was closed.

        Raises:
            DataError: The database cannot represent a value in a statement.
            LogUnavailable: The database does not respond, or fails for another reason.
        """

        def run() -> _T:
            with self._reading.connect() as connection:
                return work(connection)

        return self._run(run)

    def write(self, work: Callable[[Connection], _T]) -> _T:
        """Executes statements in a transaction, which is durable when this method returns.

        Args:
            work: Executes the statements. It is called again if the connection was closed.

        Raises:
            IntegrityError: A statement violates a constraint; nothing was written.
            DataError: The database cannot represent a value in a statement; nothing was written.
            LogUnavailable: Nothing was written, or the connection was lost while the transaction
                was committed.
        """

        def run() -> _T:
            with self._writing.begin() as connection:
                lock_writers(connection)
                return work(connection)

        return self._run(run)

    def erase_deleted(self) -> None:
        """Erases deleted rows from SQLite's write-ahead log.

        Raises:
            LogUnavailable: The database does not respond.
        """
        if self._reading.dialect.name == SQLITE:
            with _as_log_errors(), self._reading.connect() as connection:
                raw = connection.connection.dbapi_connection
                assert raw is not None  # noqa: S101 - the connection is open
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _run(self, work: Callable[[], _T]) -> _T:
        with _as_log_errors():
            self._prepare()
            try:
                return work()
            except DBAPIError as error:
                # The pooled connection was closed by the database, for example because the server
                # was restarted. Retry, which is safe for every operation.
                if not error.connection_invalidated:
                    raise
            return work()

    def _prepare(self) -> None:
        """Creates or migrates the tables, once."""
        if not self._is_ready:
            with self._preparing:
                if not self._is_ready:
                    upgrade(self._writing)
                    self._is_ready = True


@contextmanager
def _as_log_errors() -> Iterator[None]:
    """Converts database errors to `LogUnavailable`, except for integrity and data errors."""
    try:
        yield
    except (IntegrityError, DataError):
        raise
    except (OSError, SQLAlchemyError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        lines = str(cause).strip().splitlines()
        raise LogUnavailable(lines[0] if lines else type(cause).__name__) from error
