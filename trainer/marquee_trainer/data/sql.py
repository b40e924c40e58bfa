"""Reads the result of an SQL query from SQLite, PostgreSQL, MySQL, SQL Server and others.

No query can change a database. SQLite files are opened read only, and sessions of PostgreSQL and
MySQL are read only. For other databases, which have no such sessions, a query must be a single
SELECT.
"""

from __future__ import annotations

import re
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import polars as pl

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.files import without_secrets

DEFAULT_QUERY = "SELECT * FROM ratings"
# The protocols that connectorx supports.
_PROTOCOLS: tuple[str, ...] = (
    "postgresql",
    "postgres",
    "mysql",
    "mssql",
    "sqlite",
    "redshift",
    "clickhouse",
)
_PROTOCOLS += ("oracle", "bigquery", "trino")
# Default ports of databases whose protocol runs over TCP.
_PORTS = {
    "postgresql": 5432,
    "postgres": 5432,
    "redshift": 5439,
    "mysql": 3306,
    "mssql": 1433,
    "clickhouse": 9000,
    "oracle": 1521,
    "trino": 8080,
}
_POSTGRESQL = ("postgresql", "postgres")
# Seconds within which a database must respond. connectorx would retry for half a minute.
_CONNECT_S = 5
_SQLITE_ENDINGS = (".db", ".sqlite", ".sqlite3", ".db3")
_SQLITE_PREFIX = "sqlite://"
_SQLITE_MARK = b"SQLite format 3\0"
# What SQLite does to run a SELECT. Anything else, such as VACUUM INTO, may write a file.
_SQLITE_READS = (
    *(sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION),
    sqlite3.SQLITE_RECURSIVE,
)
# Statements that make a session read only, by protocol.
_READ_ONLY_SESSION = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "postgres": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}
# Comments and quoted texts and names, in which words and semicolons have no meaning.
_QUOTED = re.compile(
    r"""--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]""", re.DOTALL
)
_FIRST_WORDS = ("select", "with")
_WRITING_WORDS = frozenset(
    {"insert", "update", "delete", "merge", "truncate", "into", "create", "alter", "drop", "exec"}
    | {"execute", "call", "grant", "revoke"}
)
_ONLY_READS = "--query may only read: it must be a single SELECT"


def is_database(source: str) -> bool:
    """Whether a source is the URL of a database or the path of a SQLite file."""
    protocol, separator, _ = source.partition("://")
    if separator:
        return protocol.lower().split("+")[0] in _PROTOCOLS
    path = Path(source).expanduser()
    if path.suffix.lower() in _SQLITE_ENDINGS:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(_SQLITE_MARK)) == _SQLITE_MARK


def read_query(source: str, query: str) -> pl.DataFrame:
    """Runs a query, which cannot change the database, and returns its rows.

    Args:
        source: The database's URL, or the path of a SQLite file.
        query: The SQL query.

    Raises:
        RatingsError: The database cannot be reached, or the query fails or does not only read.
    """
    # Imported here because most sources are not databases.
    import connectorx

    url = _url(source)
    protocol = url.partition("://")[0].lower()
    _check_connection(source, url)
    session: str | None = None
    path = ""
    if protocol == "sqlite":
        path = _uri(unquote(url.removeprefix(_SQLITE_PREFIX)))
        _check_sqlite(path, source, query)
        url = f"{_SQLITE_PREFIX}{quote(path)}"
    else:
        session = _READ_ONLY_SESSION.get(protocol)
        if protocol not in _POSTGRESQL and not is_single_select(query):
            raise RatingsError(f"{without_secrets(source)}: {query}: {_ONLY_READS}")
    try:
        frame = pl.from_arrow(
            connectorx.read_sql(url, query, return_type="arrow", pre_execution_query=session)
        )
    except BaseException as error:  # a panic of connectorx is not a subclass of Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        if path:
            return _read_sqlite(path, source, query)
        reason = str(error).replace(_secret(source) or "\0", "…")
        raise RatingsError(f"{without_secrets(source)}: {query}: {reason}") from None
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def _check_connection(source: str, url: str) -> None:
    """Connects once, so that a wrong host, port, user or database is reported within seconds.

    Raises:
        RatingsError: The database does not respond or refuses the connection.
    """
    protocol = url.partition("://")[0].lower()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(protocol)
    except ValueError as error:
        raise RatingsError(f"{without_secrets(source)}: {error}") from None
    # Several hosts, and Unix sockets, which are query parameters, are left to the reader.
    if host is None or port is None or "," in parts.netloc:
        return
    reason = ""
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
    if not reason and protocol in _POSTGRESQL:
        reason = _refusal(url)
        if reason and not reason.endswith("expired"):
            raise RatingsError(
                f"{without_secrets(source)}: {reason.replace(_secret(source) or chr(0), '…')}"
            )
    if reason:
        raise RatingsError(
            f"{without_secrets(source)}: no database answers at {host}:{port} ({reason}); check "
            "the host and the port"
        )


def _refusal(url: str) -> str:
    """Why PostgreSQL refuses a connection; empty if it does not or the reason is unknown."""
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=_CONNECT_S).close()
    except psycopg.OperationalError as error:
        lines = str(error).strip().splitlines()
        return lines[0].rpartition("FATAL: ")[2].strip() if lines else "timeout expired"
    except psycopg.Error:
        return ""  # The URL has parameters for connectorx.
    return ""


def is_single_select(query: str) -> bool:
    """Whether a query is certainly a single SELECT, which may begin with WITH.

    Some queries that only read are not recognised, such as one that names a column `update` without
    quotes.
    """
    text = _QUOTED.sub(" ", query).strip().rstrip(";").lower()
    words = re.findall(r"[a-z_]\w*", text)
    return (
        ";" not in text
        and text.lstrip("( ").startswith(_FIRST_WORDS)
        and bool(words)
        and words[0] in _FIRST_WORDS
        and _WRITING_WORDS.isdisjoint(words)
    )


def _uri(path: str) -> str:
    """The URI that opens a SQLite file read only."""
    return f"file:{quote(path)}?mode=ro"


def _check_sqlite(uri: str, source: str, query: str) -> None:
    """Compiles a query, without running it.

    Raises:
        RatingsError: The file is not a database, or the query is wrong or does not only read.
    """
    actions: set[int] = set()

    def authorise(action: int, *_: object) -> int:
        actions.add(action)
        return sqlite3.SQLITE_OK if action in _SQLITE_READS else sqlite3.SQLITE_DENY

    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            # Reads the schema, so that only the query itself needs to be authorised.
            database.execute("SELECT name FROM sqlite_master").fetchone()
            database.set_authorizer(authorise)
            database.execute(f"EXPLAIN {query}").fetchone()
    except sqlite3.Error as error:
        only_reads = actions.issubset(_SQLITE_READS)
        reason = f"{error}{_tables(uri, error)}" if only_reads else _ONLY_READS
        raise RatingsError(f"{source}: {query}: {reason}") from error
    if sqlite3.SQLITE_SELECT not in actions:  # VACUUM asks for no authorisation.
        raise RatingsError(f"{source}: {query}: {_ONLY_READS}")


def _read_sqlite(uri: str, source: str, query: str) -> pl.DataFrame:
    """Reads columns of mixed types, which SQLite allows and connectorx does not support.

    Raises:
        RatingsError: The query fails.
    """
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            cursor = database.execute(query)
            names = [column[0] for column in cursor.description or ()]
            columns = list(zip(*cursor, strict=True)) or [()] * len(names)
    except sqlite3.Error as error:
        raise RatingsError(f"{source}: {query}: {error}") from error
    return pl.DataFrame(
        {name: _column(values) for name, values in zip(names, columns, strict=True)}
    )


def _tables(uri: str, error: sqlite3.Error) -> str:
    """Lists the tables of a SQLite file if a query names a table that does not exist."""
    if "no such table" not in str(error):
        return ""
    statement = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        names = [name for (name,) in database.execute(statement)]
    if not names:
        return "; it has no tables"
    return f"; its tables are {', '.join(names)}, of which --query can name one"


def _column(values: Sequence[object]) -> pl.Series:
    """Converts values to a column, of text if they have several types."""
    types = {type(value) for value in values} - {type(None)}
    if len(types) > 1:
        return pl.Series(
            [None if value is None else str(value) for value in values], dtype=pl.String
        )
    return pl.Series(values)


def _url(source: str) -> str:
    """The source in the form of connectorx, with an absolute path for SQLite.

    Raises:
        RatingsError: There is no such SQLite file; the reader would create it.
    """
    protocol, separator, rest = source.partition("://")
    if separator and protocol.lower().split("+")[0] != "sqlite":
        # SQLAlchemy's driver names, such as postgresql+psycopg, have no meaning here.
        return f"{protocol.split('+')[0]}://{rest}"
    candidates = [Path(source).expanduser()]
    if separator:
        path = unquote(rest.partition("?")[0])
        # Three slashes: relative for SQLAlchemy, absolute for others. Four: absolute.
        candidates = [Path("/" + path.lstrip("/")), Path(path.lstrip("/"))]
    for candidate in candidates:
        if candidate.is_file():
            return f"{_SQLITE_PREFIX}{quote(str(candidate.resolve()))}"
    raise RatingsError(f"{source} does not exist")


def _secret(source: str) -> str:
    """The user name and password of a URL; empty if it has none."""
    rest = source.partition("://")[2].partition("/")[0]
    return rest.rpartition("@")[0]
