"""The statements of the log; each function runs inside a transaction of `EventLog`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Row,
    Text,
    cast,
    func,
    insert,
    or_,
    select,
    tuple_,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from marquee_core.feedback.engine import SQLITE
from marquee_core.feedback.events import (
    Appended,
    Batch,
    Deleted,
    EntryType,
    EventIdReused,
    FeedbackEvent,
    FeedbackKind,
    LogEntry,
    Mark,
    user_digest,
)
from marquee_core.feedback.schema import AUDIT, LIST_COUNTS, LOG, MARKS

_FORGET = "forget_user"
_MAX_TIME_US = (1 << 63) - 1
_INSERTED_AT_ONCE = 500
_EVENT_COLUMNS = (
    *("type", "user_id", "item_id", "kind", "value", "time_us", "received_us", "event_id"),
    "recommendation_id",
)
_ENTRY_TYPES = {int(kind): kind for kind in EntryType}
_KINDS = {int(kind): kind for kind in FeedbackKind}


def append(
    connection: Connection, batches: Sequence[Batch], limit_times: bool
) -> list[Appended | EventIdReused]:
    """Inserts the events of batches that are new; see `EventLog.append`."""
    received = now_us(connection)
    latest = received if limit_times else _MAX_TIME_US
    forgotten = _forgotten_at(connection, {e.user_id for batch in batches for e in batch})
    if not forgotten and _insert_if_new(connection, batches, received, latest):
        position = last_position(connection)
        return [Appended(len(batch), 0, 0, position) for batch in batches]
    if limit_times:
        batches = [
            [e if e.time_us <= received else replace(e, time_us=received) for e in batch]
            for batch in batches
        ]
    return _append_each(connection, batches, received, forgotten)


def _insert_if_new(
    connection: Connection, batches: Sequence[Batch], received: int, latest: int
) -> bool:
    """Inserts the events if none of their keys is recorded, as is almost always so.

    Few long statements, because the work within a statement does not hold the interpreter's lock,
    for which the event loop of the gateway waits too.

    Args:
        connection: A transaction.
        batches: The batches.
        received: The log's time in microseconds.
        latest: What replaces later times of events.

    Returns:
        Whether they are inserted; if not, nothing has changed.
    """
    events = [event for batch in batches for event in batch]
    if len({(event.user_id, event.event_id) for event in events}) < len(events):
        return False
    try:
        with connection.begin_nested():
            for first in range(0, len(events), _INSERTED_AT_ONCE):
                part = events[first : first + _INSERTED_AT_ONCE]
                values = [
                    value
                    for e in part
                    for value in (
                        EntryType.EVENT.value,
                        e.user_id,
                        e.item_id,
                        e.kind.value,
                        e.value,
                        min(e.time_us, latest),
                        received,
                        e.event_id,
                        e.recommendation_id,
                    )
                ]
                text = _insert_text(_mark_of(connection), len(part))
                connection.exec_driver_sql(text, tuple(values))
    except IntegrityError:
        return False
    return True


@lru_cache(maxsize=64)
def _insert_text(mark_of_value: str, rows: int) -> str:
    row = ", ".join([mark_of_value] * len(_EVENT_COLUMNS))
    names, marks = ", ".join(_EVENT_COLUMNS), ", ".join([f"({row})"] * rows)
    # The names are our own, and the values are bound.
    return f"INSERT INTO {LOG.name} ({names}) VALUES {marks}"  # noqa: S608 # nosec B608


def _mark_of(connection: Connection) -> str:
    """What stands for a value in a statement of the driver."""
    return "?" if connection.dialect.name == SQLITE else "%s"


def _append_each(
    connection: Connection, batches: Sequence[Batch], received: int, forgotten: Mapping[str, int]
) -> list[Appended | EventIdReused]:
    """Inserts the events that are new, after looking which are; arguments as for `append`."""
    recorded = _recorded(connection, batches)
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
    position = last_position(connection)
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
    found = {}
    digests = sorted(by_digest)
    for first in range(0, len(digests), _INSERTED_AT_ONCE):
        part = tuple(digests[first : first + _INSERTED_AT_ONCE])
        # With the driver's own statement: SQLAlchemy takes long to write out a list of values.
        # The names are our own, and the values are bound.
        marks = ", ".join([_mark_of(connection)] * len(part))
        query = (
            f"SELECT user_digest, max(time_us) FROM {LOG.name} "  # noqa: S608 # nosec B608
            f"WHERE user_digest IN ({marks}) GROUP BY user_digest"
        )
        for digest, when in connection.exec_driver_sql(query, part):
            found[by_digest[bytes(digest)]] = when
    return found


def delete(connection: Connection, user_id: str, which: ColumnElement[bool]) -> Deleted:
    """Deletes the user's events that meet a condition, and says so in the log."""
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
    # One entry for each forgotten user: the latest.
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
    made = Mark(last_position(connection), secrets.token_hex(16))
    connection.execute(
        insert(MARKS),
        {"token": made.token, "position": made.position, "time_us": time.time_ns() // 1000},
    )
    return made


def now_us(connection: Connection) -> int:
    """The time in microseconds since 1970, by the clock that all writers of the log share.

    It is the database server's, so the clocks of machines with gateways may differ. Processes that
    share a SQLite file share a machine.
    """
    if connection.dialect.name == SQLITE:
        return time.time_ns() // 1000
    clock = func.extract("epoch", func.clock_timestamp()) * 1_000_000
    return connection.scalar(select(cast(clock, BigInteger))) or 0


def last_position(connection: Connection) -> int:
    """The position of the last entry; 0 if the log is empty."""
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


def entry_of(row: Row[Any]) -> LogEntry:
    """The entry that a row of the log holds, with the columns in the order of the table."""
    columns: tuple[Any, ...] = tuple(row)
    position, number, user_id, item_id, kind, value, time_us, received_us = columns[:8]
    event_id, recommendation_id, deleted_position, digest = columns[8:]
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
