"""The statements of the feedback log; each function runs inside a transaction of `EventLog`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select
from sqlalchemy.sql.elements import ColumnElement

from marquee_core.feedback.engine import SQLITE
from marquee_core.feedback.events import (
    Deleted,
    EntryType,
    FeedbackEvent,
    FeedbackKind,
    LogEntry,
    Mark,
    user_digest,
)
from marquee_core.feedback.schema import AUDIT, LIST_COUNTS, LOG, MARKS

_FORGET = "forget_user"
_ENTRY_TYPES = {int(kind): kind for kind in EntryType}
_KINDS = {int(kind): kind for kind in FeedbackKind}
# Frequent statements are written in the driver's SQL, because of SQLAlchemy's overhead.
_CLOCK = "SELECT CAST(EXTRACT(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
_LAST_POSITION = f"SELECT max(position) FROM {LOG.name}"  # noqa: S608 # nosec B608
_ENTRIES = (
    f"SELECT {', '.join(LOG.c.keys())} FROM {LOG.name} "  # noqa: S608 # nosec B608
    "WHERE position > {placeholder} ORDER BY position LIMIT {placeholder}"
)


def delete(connection: Connection, user_id: str, which: ColumnElement[bool]) -> Deleted:
    """Deletes the user's events that match a condition, and appends entries for the deletions."""
    condition = (LOG.c.user_id == user_id) & (LOG.c.type == EntryType.EVENT) & which
    found = connection.execute(select(LOG).where(condition)).all()
    if found:
        now = now_us(connection)
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
    return Deleted(len(found), last_position(connection))


def forget(connection: Connection, user_id: str, actor: str) -> Deleted:
    """Deletes everything about a user; see `EventLog.forget`."""
    now, digest = now_us(connection), user_digest(user_id)
    is_event = (LOG.c.user_id == user_id) & (LOG.c.type == EntryType.EVENT)
    count = connection.scalar(select(func.count()).select_from(LOG).where(is_event)) or 0
    # Keep only the latest entry for each forgotten user.
    connection.execute(
        LOG.delete().where(or_(LOG.c.user_id == user_id, LOG.c.user_digest == digest))
    )
    connection.execute(LIST_COUNTS.delete().where(LIST_COUNTS.c.user_digest == digest))
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
    return Deleted(count, last_position(connection))


def mark(connection: Connection) -> Mark:
    """Marks the end of the log; see `EventLog.mark`."""
    new_mark = Mark(last_position(connection), secrets.token_hex(16))
    connection.execute(
        insert(MARKS),
        {"token": new_mark.token, "position": new_mark.position, "time_us": time.time_ns() // 1000},
    )
    return new_mark


def now_us(connection: Connection) -> int:
    """Returns the time in microseconds since 1970, by a clock that all writers of the log share.

    For PostgreSQL it is the clock of the database server, so the clocks of the gateways' machines
    do not matter. Processes that share a SQLite file run on the same machine.
    """
    if connection.dialect.name == SQLITE:
        return time.time_ns() // 1000
    return int(connection.exec_driver_sql(_CLOCK).scalar_one())


def last_position(connection: Connection) -> int:
    """Returns the position of the last entry; 0 if the log is empty."""
    return connection.exec_driver_sql(_LAST_POSITION).scalar() or 0


def read_entries(connection: Connection, after: int, limit: int) -> list[LogEntry]:
    """Returns the entries after a position; see `EventLog.read`."""
    query = _ENTRIES.format(placeholder=placeholder(connection))
    return [entry_of(row) for row in connection.exec_driver_sql(query, (after, limit))]


def placeholder(connection: Connection) -> str:
    """Returns the driver's placeholder for a value."""
    return "?" if connection.dialect.name == SQLITE else "%s"


def entry_of(row: Sequence[Any]) -> LogEntry:
    """Converts a row of the log to an entry.

    Args:
        row: The values of all columns, in the order of the table.
    """
    position, number, user_id, item_id, kind, value, time_us, received_us, event_id, *rest = row
    recommendation_id, deleted_position, digest = rest
    entry_type = _ENTRY_TYPES[number]
    event = None
    if entry_type is not EntryType.FORGOTTEN:
        event = FeedbackEvent(
            user_id,
            item_id,
            _KINDS[kind],
            value or 0.0,
            time_us,
            event_id,
            recommendation_id or "",
        )
    return LogEntry(
        position,
        entry_type,
        event,
        deleted_position or 0,
        b"" if digest is None else bytes(digest),
        received_us,
    )
