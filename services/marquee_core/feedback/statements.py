"""The statements of the log; each function runs inside a transaction of `EventLog`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
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


def append(
    connection: Connection, batches: Sequence[Batch], limit_times: bool
) -> list[Appended | EventIdReused]:
    """Inserts the events of batches that are new; see `EventLog.append`."""
    received = now_us(connection)
    if limit_times:
        batches = [
            [e if e.time_us <= received else replace(e, time_us=received) for e in batch]
            for batch in batches
        ]
    recorded = _recorded(connection, batches)
    forgotten = _forgotten_at(connection, {e.user_id for batch in batches for e in batch})
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
    query = (
        select(LOG.c.user_digest, func.max(LOG.c.time_us))
        .where(LOG.c.user_digest.in_(sorted(by_digest)))
        .group_by(LOG.c.user_digest)
    )
    return {by_digest[bytes(digest)]: when for digest, when in connection.execute(query)}


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
    """The entry that a row of the log holds."""
    kind = EntryType(row.type)
    return LogEntry(
        row.position,
        kind,
        None if kind is EntryType.FORGOTTEN else _event(row),
        row.deleted_position or 0,
        b"" if row.user_digest is None else bytes(row.user_digest),
        row.received_us,
    )
