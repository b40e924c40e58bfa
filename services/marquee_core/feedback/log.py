"""`EventLog`: appends events durably, and reads them in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

from sqlalchemy import ARRAY, Connection, Row, Text, cast, func, insert, or_, select, tuple_
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.sql.elements import ColumnElement

from marquee_core.feedback.engine import (
    SQLITE,
    lock_writers,
    make_engine,
    parse_url,
    writing,
)
from marquee_core.feedback.events import (
    Appended,
    Batch,
    Deleted,
    EntryType,
    EventIdReused,
    FeedbackEvent,
    FeedbackKind,
    LogEntry,
    LogUnavailable,
    user_digest,
)
from marquee_core.feedback.migrate import upgrade
from marquee_core.feedback.schema import AUDIT, LOG

_T = TypeVar("_T")

DEFAULT_TIMEOUT_S = 2.0
READ_PAGE = 5_000
"""Entries that `EventLog.entries` reads at a time."""

_FORGET = "forget_user"


class EventLog:
    """A durable log of events in SQLite or PostgreSQL. Threads and processes may share a log.

    A method returns when its changes are durable. It raises `LogUnavailable` if the database cannot
    be reached or refuses a statement. All writes may be repeated.

    The tables are created, or migrated from an older version, when the log is first used.
    """

    def __init__(self, url: str, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Takes the database; connects when the log is first used.

        Args:
            url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.
            timeout: Seconds to wait for a connection, for a lock and for a statement.

        Raises:
            ValueError: The URL is none of these.
        """
        self._engine = make_engine(parse_url(url), timeout)
        self._is_ready = False
        self._preparing = threading.Lock()

    @property
    def name(self) -> str:
        """The database's URL without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, batches: Sequence[Batch]) -> list[Appended | EventIdReused]:
        """Records batches of events in one transaction.

        An event whose key is recorded already changes nothing. A batch in which a key belongs to
        another event is not recorded at all; the others are.

        Returns:
            What became of each batch.

        Raises:
            LogUnavailable: No batch was recorded, or the connection was lost while the transaction
                was committed.
        """
        return self._write(lambda connection: _append(connection, batches))

    def delete_event(self, user_id: str, event_id: str) -> Deleted:
        """Deletes a user's event with the given key.

        Raises:
            LogUnavailable: The database does not answer.
        """
        return self._write(lambda c: _delete(c, user_id, LOG.c.event_id == event_id))

    def delete_item(self, user_id: str, item_id: str) -> Deleted:
        """Deletes all of a user's events about an item.

        Raises:
            LogUnavailable: The database does not answer.
        """
        return self._write(lambda c: _delete(c, user_id, LOG.c.item_id == item_id))

    def forget(self, user_id: str, actor: str) -> Deleted:
        """Deletes everything about a user, and records that the user was forgotten.

        Args:
            user_id: The user.
            actor: Who asked for it, for the audit table.

        Raises:
            LogUnavailable: The database does not answer.
        """
        deleted = self._write(lambda connection: _forget(connection, user_id, actor))
        if self._engine.dialect.name == SQLITE:
            # The write-ahead log still holds the deleted rows.
            with self._errors(), self._engine.connect() as connection:
                raw = connection.connection.dbapi_connection
                assert raw is not None  # noqa: S101 - the connection is open
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    def list_user(
        self, user_id: str, limit: int, before: tuple[int, int] | None = None
    ) -> list[LogEntry]:
        """A user's events by their time, the most recent first.

        Args:
            user_id: The user.
            limit: The maximum number of events.
            before: Time in microseconds and position of the last event of the page before; None
                for the first page.

        Raises:
            LogUnavailable: The database does not answer.
        """
        query = (
            select(LOG)
            .where(LOG.c.user_id == user_id, LOG.c.type == EntryType.EVENT)
            .order_by(LOG.c.time_us.desc(), LOG.c.position.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(tuple_(LOG.c.time_us, LOG.c.position) < tuple_(*before))
        return self._read(lambda connection: [_entry(row) for row in connection.execute(query)])

    def read(self, after: int, limit: int) -> list[LogEntry]:
        """The entries that follow a position, in the order of their positions.

        Deleted events are left out. If fewer than `limit` entries are returned, these were all.

        Args:
            after: The position; 0 for the beginning of the log.
            limit: The maximum number of entries.

        Raises:
            LogUnavailable: The database does not answer.
        """
        query = select(LOG).where(LOG.c.position > after).order_by(LOG.c.position).limit(limit)
        return self._read(lambda connection: [_entry(row) for row in connection.execute(query)])

    def entries(self, after: int = 0, upto: int | None = None) -> Iterator[LogEntry]:
        """Iterates over the entries between two positions.

        Args:
            after: The position before the first entry; 0 for the beginning of the log.
            upto: The last position; None for the end of the log when the iterator starts.

        Raises:
            LogUnavailable: The database does not answer.
        """
        upto = self.position() if upto is None else upto
        while after < upto:
            page = self.read(after, READ_PAGE)
            for entry in page:
                if entry.position > upto:
                    return
                yield entry
            if len(page) < READ_PAGE:
                return
            after = page[-1].position

    def position(self) -> int:
        """The position of the last entry; 0 if the log is empty.

        Raises:
            LogUnavailable: The database does not answer.
        """
        return self._read(_last_position)

    def audit(self) -> list[Row[Any]]:
        """The rows of the audit table, oldest first.

        Raises:
            LogUnavailable: The database does not answer.
        """
        query = select(AUDIT).order_by(AUDIT.c.id)
        return self._read(lambda connection: list(connection.execute(query)))

    def _write(self, work: Callable[[Connection], _T]) -> _T:
        def run() -> _T:
            with writing(self._engine).begin() as connection:
                lock_writers(connection)
                return work(connection)

        return self._run(run)

    def _read(self, work: Callable[[Connection], _T]) -> _T:
        def run() -> _T:
            with self._engine.connect() as connection:
                return work(connection)

        return self._run(run)

    def _run(self, work: Callable[[], _T]) -> _T:
        with self._errors():
            self._prepare()
            try:
                return work()
            except DBAPIError as error:
                # The pool held a connection that the database has closed since, for example because
                # it was restarted. Every operation may be repeated.
                if not error.connection_invalidated:
                    raise
            return work()

    def _prepare(self) -> None:
        """Creates or migrates the tables, once."""
        if not self._is_ready:
            with self._preparing:
                if not self._is_ready:
                    upgrade(self._engine)
                    self._is_ready = True

    @staticmethod
    def _errors() -> _Errors:
        return _Errors()


class _Errors:
    """Turns errors of the database into `LogUnavailable`, except those of a wrong statement."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, OSError) or (
            isinstance(error, SQLAlchemyError) and not isinstance(error, IntegrityError | DataError)
        ):
            cause = error.orig if isinstance(error, DBAPIError) else error
            lines = str(cause).strip().splitlines()
            raise LogUnavailable(lines[0] if lines else type(cause).__name__) from error


def _append(connection: Connection, batches: Sequence[Batch]) -> list[Appended | EventIdReused]:
    recorded = _recorded(connection, batches)
    forgotten = _forgotten_at(connection, {e.user_id for batch in batches for e in batch})
    received = time.time_ns() // 1000
    rows: list[dict[str, Any]] = []
    counts: list[tuple[int, int, int] | EventIdReused] = []
    for batch in batches:
        new: dict[tuple[str, str], FeedbackEvent] = {}
        ignored = 0
        reused: EventIdReused | None = None
        for event in batch:
            key = event.user_id, event.event_id
            if event.time_us <= forgotten.get(event.user_id, -1):
                ignored += 1
                continue
            present = new[key] if key in new else recorded.get(key)
            if present is None and key not in recorded:
                new[key] = event
            elif present is not None and not present.says_the_same_as(event):
                reused = EventIdReused(event.event_id)
                break
        if reused is not None:
            counts.append(reused)
            continue
        recorded.update(new)
        rows += [_row(event, received) for event in new.values()]
        counts.append((len(new), len(batch) - len(new) - ignored, ignored))
    if rows:
        connection.execute(insert(LOG), rows)
    position = _last_position(connection)
    return [c if isinstance(c, EventIdReused) else Appended(*c, position) for c in counts]


def _recorded(
    connection: Connection, batches: Sequence[Batch]
) -> dict[tuple[str, str], FeedbackEvent | None]:
    """The recorded events under the keys of new ones; None for a key whose event was deleted."""
    keys = sorted({(event.user_id, event.event_id) for batch in batches for event in batch})
    key = tuple_(LOG.c.user_id, LOG.c.event_id)
    if connection.dialect.name == SQLITE:
        query = select(LOG).where(key.in_(keys))
    else:
        # For a long list, PostgreSQL would compare each row of the table with each key.
        columns = (cast([pair[i] for pair in keys], ARRAY(Text)) for i in (0, 1))
        wanted = func.unnest(*columns).table_valued("user_id", "event_id").render_derived()
        query = select(LOG).join(wanted, key == tuple_(wanted.c.user_id, wanted.c.event_id))
    return {
        (row.user_id, row.event_id): _event(row) if row.type == EntryType.EVENT else None
        for row in connection.execute(query)
    }


def _forgotten_at(connection: Connection, users: set[str]) -> dict[str, int]:
    """When users were last forgotten, in microseconds; users who never were are left out."""
    by_digest = {user_digest(user): user for user in users}
    query = (
        select(LOG.c.user_digest, func.max(LOG.c.time_us))
        .where(LOG.c.user_digest.in_(sorted(by_digest)))
        .group_by(LOG.c.user_digest)
    )
    return {by_digest[bytes(digest)]: when for digest, when in connection.execute(query)}


def _delete(connection: Connection, user_id: str, which: ColumnElement[bool]) -> Deleted:
    condition = (LOG.c.user_id == user_id) & (LOG.c.type == EntryType.EVENT) & which
    found = connection.execute(select(LOG).where(condition)).all()
    if found:
        now = time.time_ns() // 1000
        connection.execute(LOG.delete().where(condition))
        connection.execute(
            insert(LOG),
            [
                {
                    "type": EntryType.DELETION,
                    "user_id": row.user_id,
                    "item_id": row.item_id,
                    "kind": row.kind,
                    "time_us": now,
                    "received_us": now,
                    "event_id": row.event_id,
                    "deleted_position": row.position,
                }
                for row in found
            ],
        )
    return Deleted(len(found), _last_position(connection))


def _forget(connection: Connection, user_id: str, actor: str) -> Deleted:
    now, digest = time.time_ns() // 1000, user_digest(user_id)
    is_event = (LOG.c.user_id == user_id) & (LOG.c.type == EntryType.EVENT)
    count = connection.scalar(select(func.count()).select_from(LOG).where(is_event)) or 0
    # One entry for each forgotten user: the latest.
    connection.execute(
        LOG.delete().where(or_(LOG.c.user_id == user_id, LOG.c.user_digest == digest))
    )
    connection.execute(
        insert(LOG),
        {
            "type": EntryType.FORGOTTEN,
            "time_us": now,
            "received_us": now,
            "user_digest": digest,
        },
    )
    connection.execute(
        insert(AUDIT),
        {
            "time_us": now,
            "action": _FORGET,
            "actor": actor,
            "user_digest": digest,
            "deleted_count": count,
        },
    )
    return Deleted(count, _last_position(connection))


def _last_position(connection: Connection) -> int:
    return connection.scalar(select(func.max(LOG.c.position))) or 0


def _row(event: FeedbackEvent, received_us: int) -> dict[str, Any]:
    return {
        "type": EntryType.EVENT,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "kind": event.kind,
        "value": event.value,
        "time_us": event.time_us,
        "received_us": received_us,
        "event_id": event.event_id,
        "recommendation_id": event.recommendation_id,
    }


def _event(row: Row[Any]) -> FeedbackEvent:
    return FeedbackEvent(
        row.user_id,
        row.item_id,
        FeedbackKind(row.kind),
        row.value or 0.0,
        row.time_us,
        row.event_id,
        row.recommendation_id or "",
    )


def _entry(row: Row[Any]) -> LogEntry:
    kind = EntryType(row.type)
    return LogEntry(
        row.position,
        kind,
        None if kind is EntryType.FORGOTTEN else _event(row),
        row.deleted_position or 0,
        b"" if row.user_digest is None else bytes(row.user_digest),
    )
