"""The statements that count experiments' lists; they run inside transactions of `EventLog`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from marquee_core.feedback.engine import SQLITE
from marquee_core.feedback.events import CounterState, ListCount
from marquee_core.feedback.schema import LIST_COUNTERS, LIST_COUNTS
from marquee_core.feedback.statements import now_us


def write_counts(
    connection: Connection, counter_id: str, counts: Sequence[ListCount], is_closed: bool
) -> None:
    """Replaces the totals of a counter; see `EventLog.write_list_counts`."""
    rows = [
        {
            "experiment_id": count.experiment_id,
            "user_digest": count.user_digest,
            "arm": count.arm,
            "counter_id": counter_id,
            "lists": count.lists,
        }
        for count in counts
    ]
    if rows:
        _upsert(connection, LIST_COUNTS, rows, ("lists",))
    state = {
        "counter_id": counter_id,
        "written_us": now_us(connection),
        "is_closed": is_closed,
    }
    _upsert(connection, LIST_COUNTERS, [state], ("written_us", "is_closed"))


def read_counts(connection: Connection, experiment_id: str) -> list[ListCount]:
    """Returns the number of lists of each user of an experiment, summed over all counters."""
    query = (
        select(LIST_COUNTS.c.arm, LIST_COUNTS.c.user_digest, func.sum(LIST_COUNTS.c.lists))
        .where(LIST_COUNTS.c.experiment_id == experiment_id)
        .group_by(LIST_COUNTS.c.arm, LIST_COUNTS.c.user_digest)
    )
    return [
        ListCount(experiment_id, arm, bytes(digest), int(lists))
        for arm, digest, lists in connection.execute(query)
    ]


def read_counters(connection: Connection, experiment_id: str) -> list[CounterState]:
    """Returns the counters with lists of an experiment."""
    used = select(LIST_COUNTS.c.counter_id).where(LIST_COUNTS.c.experiment_id == experiment_id)
    now = now_us(connection)
    query = select(LIST_COUNTERS).where(LIST_COUNTERS.c.counter_id.in_(used))
    return [
        CounterState(row.counter_id, (now - row.written_us) / 1e6, row.is_closed)
        for row in connection.execute(query)
    ]


def _upsert(
    connection: Connection, table: Table, rows: list[dict[str, Any]], columns: Sequence[str]
) -> None:
    """Inserts rows, or replaces the given columns of existing ones."""
    is_sqlite = connection.dialect.name == SQLITE
    insert = sqlite.insert(table) if is_sqlite else postgresql.insert(table)
    statement = insert.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={column: insert.excluded[column] for column in columns},
    )
    connection.execute(statement, rows)
