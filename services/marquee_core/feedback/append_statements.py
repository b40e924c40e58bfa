"""The statements that append events; each function runs inside a transaction of `EventLog`.

A few long statements insert many events each: while the database executes a statement, the
interpreter's lock is free for the event loop of the gateway. The statements are written in the
driver's SQL, because SQLAlchemy takes longer to compile a list of values than the database takes to
insert them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

from sqlalchemy import ARRAY, Connection, Row, Text, cast, func, insert, select, tuple_

from marquee_core.feedback.engine import SQLITE
from marquee_core.feedback.events import (
    Appended,
    Batch,
    EntryType,
    EventIdReused,
    FeedbackEvent,
    FeedbackKind,
    LogEntry,
    user_digest,
)
from marquee_core.feedback.schema import LOG
from marquee_core.feedback.statements import last_position, now_us, placeholder

_AT_ONCE = 500
_EVENT_COLUMNS = (
    *("type", "user_id", "item_id", "kind", "value", "time_us", "received_us", "event_id"),
    "recommendation_id",
)
_EVENT = EntryType.EVENT.value
_NAMES = ", ".join(_EVENT_COLUMNS)
# With this order the first digest is found in the index immediately.
_SOME_DIGEST = (
    f"SELECT user_digest FROM {LOG.name} "  # noqa: S608 # nosec B608 - the names are our own
    "WHERE user_digest IS NOT NULL ORDER BY user_digest LIMIT 1"
)
# A single JSON parameter for all events, because nine parameters per event are slower to send.
_INSERT_JSON = (
    f"WITH inserted AS (INSERT INTO {LOG.name} ({_NAMES}) "  # noqa: S608 # nosec B608
    f"SELECT {_EVENT}, u, i, k, v, t, %s, e, r FROM json_to_recordset(%s::json) "
    "AS event(u text, i text, k smallint, v double precision, t bigint, e text, r text) "
    "RETURNING position) SELECT min(position), max(position) FROM inserted"
)


def append_new(
    connection: Connection, batches: Sequence[Batch], limit_times: bool
) -> list[Appended | EventIdReused] | None:
    """Inserts the events of batches, in the common case that all keys are new.

    Args:
        connection: A connection with an open transaction.
        batches: The batches.
        limit_times: See `EventLog.append`.

    Returns:
        The result for each batch; None if nothing was inserted and `append_each` must be used.

    Raises:
        IntegrityError: A key is not new. Roll back the transaction, then use `append_each`.
    """
    events = [event for batch in batches for event in batch]
    keys = {(event.user_id, event.event_id) for event in events}
    if not events or len(keys) < len(events):
        return None
    if _forgotten_at(connection, {event.user_id for event in events}):
        return None
    received = now_us(connection)
    insert_part = _insert_values if connection.dialect.name == SQLITE else _insert_json
    if limit_times:
        events = _limited(events, received)
    entries: list[LogEntry] = []
    position = 0
    for start in range(0, len(events), _AT_ONCE):
        part = events[start : start + _AT_ONCE]
        first, position = insert_part(connection, part, received)
        if position - first + 1 == len(part):
            entries += [
                LogEntry(position, EntryType.EVENT, event, 0, b"", received)
                for position, event in enumerate(part, first)
            ]
    if len(entries) < len(events):
        return [Appended(len(batch), 0, 0, position) for batch in batches]
    ends = list(accumulate(map(len, batches)))
    return [
        Appended(len(batch), 0, 0, position, entries[end - len(batch) : end])
        for batch, end in zip(batches, ends, strict=True)
    ]


def _limited(events: Batch, latest: int) -> list[FeedbackEvent]:
    """Returns the events, with times after `latest` replaced by it."""
    return [event if event.time_us <= latest else event.at(latest) for event in events]


def _insert_values(
    connection: Connection, events: Sequence[FeedbackEvent], received: int
) -> tuple[int, int]:
    """Inserts events into SQLite; returns the positions of the first and the last event."""
    values = chain.from_iterable(
        (_EVENT, user, item, int(kind), value, time_us, received, key, list_id)
        for user, item, kind, value, time_us, key, list_id in events
    )
    result = connection.exec_driver_sql(_insert_text(len(events)), tuple(values))
    # SQLite assigns consecutive numbers to the rows of a statement.
    return result.lastrowid - len(events) + 1, result.lastrowid


def _insert_json(
    connection: Connection, events: Sequence[FeedbackEvent], received: int
) -> tuple[int, int]:
    """Inserts events into PostgreSQL; returns the positions of the first and the last event."""
    rows = [
        {"u": user, "i": item, "k": kind, "v": value, "t": time_us, "e": key, "r": list_id}
        for user, item, kind, value, time_us, key, list_id in events
    ]
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    first, last = connection.exec_driver_sql(_INSERT_JSON, (received, text)).one()
    return first, last


@lru_cache(maxsize=64)
def _insert_text(rows: int) -> str:
    row = ", ".join("?" * len(_EVENT_COLUMNS))
    marks = ", ".join([f"({row})"] * rows)
    # The names are our own, and the values are bound.
    return f"INSERT INTO {LOG.name} ({_NAMES}) VALUES {marks}"  # noqa: S608 # nosec B608


def append_each(
    connection: Connection, batches: Sequence[Batch], limit_times: bool
) -> list[Appended | EventIdReused]:
    """Looks up which events are new and inserts those; see `EventLog.append`.

    Args:
        connection: A connection with an open transaction.
        batches: The batches.
        limit_times: See `EventLog.append`.

    Returns:
        The result for each batch.
    """
    received = now_us(connection)
    if limit_times:
        batches = [_limited(batch, received) for batch in batches]
    forgotten = _forgotten_at(connection, {e.user_id for batch in batches for e in batch})
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
            elif present is not None and not present.equals_ignoring_time(event):
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
    """Returns the recorded events with the keys of new events; None for a deleted event."""
    keys = sorted({(event.user_id, event.event_id) for batch in batches for event in batch})
    key = tuple_(LOG.c.user_id, LOG.c.event_id)
    if connection.dialect.name == SQLITE:
        query = select(LOG).where(key.in_(keys))
    else:
        # With a long IN list, PostgreSQL would compare each row of the table with each key.
        columns = (cast([pair[i] for pair in keys], ARRAY(Text)) for i in (0, 1))
        given = func.unnest(*columns).table_valued("user_id", "event_id").render_derived()
        query = select(LOG).join(given, key == tuple_(given.c.user_id, given.c.event_id))
    return {
        (row.user_id, row.event_id): _event(row) if row.type == EntryType.EVENT else None
        for row in connection.execute(query)
    }


def _forgotten_at(connection: Connection, users: set[str]) -> Mapping[str, int]:
    """Returns when users were last forgotten, in microseconds; omits users who never were."""
    if connection.exec_driver_sql(_SOME_DIGEST).first() is None:
        return {}
    by_digest = {user_digest(user): user for user in users}
    found = {}
    digests = sorted(by_digest)
    mark = placeholder(connection)
    for first in range(0, len(digests), _AT_ONCE):
        part = tuple(digests[first : first + _AT_ONCE])
        marks = ", ".join([mark] * len(part))
        query = (
            f"SELECT user_digest, max(time_us) FROM {LOG.name} "  # noqa: S608 # nosec B608
            f"WHERE user_digest IN ({marks}) GROUP BY user_digest"
        )
        for digest, when in connection.exec_driver_sql(query, part):
            found[by_digest[bytes(digest)]] = when
    return found


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
