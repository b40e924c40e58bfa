"""`EventLog`, which appends events durably and reads them in order."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Self

from sqlalchemy import Row, select, tuple_
from sqlalchemy.exc import IntegrityError

from marquee_core.feedback.append_statements import append_each, append_new
from marquee_core.feedback.database import Database
from marquee_core.feedback.events import (
    Appended,
    Batch,
    CounterState,
    Deleted,
    EntryType,
    EventIdReused,
    ListCount,
    LogEntry,
    Mark,
)
from marquee_core.feedback.list_statements import read_counters, read_counts, write_counts
from marquee_core.feedback.schema import AUDIT, LOG, MARKS
from marquee_core.feedback.statements import (
    delete,
    entry_of,
    forget,
    last_position,
    mark,
    read_entries,
)

DEFAULT_TIMEOUT_S = 2.0
READ_PAGE = 5_000
"""The number of entries that `EventLog.entries` reads at a time."""


class EventLog:
    """A durable log of events in SQLite or PostgreSQL, which threads and processes may share.

    Methods return when their changes are durable, and raise `LogUnavailable` if the database
    cannot be reached, or fails for a reason other than the data. All writes are idempotent.

    The tables are created, or migrated from an older version, on first use.
    """

    def __init__(self, url: str, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Creates a log, which connects on first use.

        Args:
            url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.
            timeout: Seconds to wait for a connection, for a lock and for a statement.

        Raises:
            ValueError: The URL does not have one of these forms.
        """
        self._database = Database(url, timeout)

    @property
    def name(self) -> str:
        """The database's URL without its password."""
        return self._database.name

    def close(self) -> None:
        """Closes the connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(
        self, batches: Sequence[Batch], limit_times: bool = False
    ) -> list[Appended | EventIdReused]:
        """Records batches of events in one transaction.

        Events whose keys are already recorded are skipped. If a key in a batch is recorded for a
        different event, that batch is rejected as a whole; other batches are not affected.

        Args:
            batches: The batches.
            limit_times: Whether to replace times in the future by the current time. The time is
                that of a clock shared by all writers, so a wrong local clock has no effect.

        Returns:
            The result for each batch.

        Raises:
            LogUnavailable: No batch was recorded, or the connection was lost while the transaction
                was committed.
        """
        try:
            appended = self._database.write(lambda c: append_new(c, batches, limit_times))
        except IntegrityError:
            appended = None
        if appended is None:
            appended = self._database.write(lambda c: append_each(c, batches, limit_times))
        return appended

    def delete_event(self, user_id: str, event_id: str) -> Deleted:
        """Deletes a user's event with the given key.

        Raises:
            LogUnavailable: The database does not respond.
        """
        return self._database.write(lambda c: delete(c, user_id, LOG.c.event_id == event_id))

    def delete_item(self, user_id: str, item_id: str) -> Deleted:
        """Deletes all of a user's events about an item.

        Raises:
            LogUnavailable: The database does not respond.
        """
        return self._database.write(lambda c: delete(c, user_id, LOG.c.item_id == item_id))

    def forget(self, user_id: str, actor: str) -> Deleted:
        """Deletes everything about a user, and records that the user was forgotten.

        Args:
            user_id: The user.
            actor: Who requested it, for the audit table.

        Raises:
            LogUnavailable: The database does not respond.
        """
        deleted = self._database.write(lambda connection: forget(connection, user_id, actor))
        self._database.erase_deleted()
        return deleted

    def list_user(
        self, user_id: str, limit: int, before: tuple[int, int] | None = None
    ) -> list[LogEntry]:
        """Returns a user's events ordered by time, the most recent first.

        Args:
            user_id: The user.
            limit: The maximum number of events.
            before: Time in microseconds and position of the last event on the previous page; None
                for the first page.

        Raises:
            LogUnavailable: The database does not respond.
        """
        query = (
            select(LOG)
            .where(LOG.c.user_id == user_id, LOG.c.type == EntryType.EVENT)
            .order_by(LOG.c.time_us.desc(), LOG.c.position.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(tuple_(LOG.c.time_us, LOG.c.position) < tuple_(*before))
        return self._database.read(lambda c: [entry_of(row) for row in c.execute(query).all()])

    def read(self, after: int, limit: int) -> list[LogEntry]:
        """Returns the entries after a position, ordered by position.

        Deleted events are omitted. If fewer than `limit` entries are returned, the end of the log
        was reached.

        Args:
            after: The position; 0 for the beginning of the log.
            limit: The maximum number of entries.

        Raises:
            LogUnavailable: The database does not respond.
        """
        return self._database.read(lambda connection: read_entries(connection, after, limit))

    def entries(self, after: int = 0, up_to: int | None = None) -> Iterator[LogEntry]:
        """Iterates over the entries between two positions.

        Args:
            after: The position before the first entry; 0 for the beginning of the log.
            up_to: The last position; None for the end of the log when the iterator starts.

        Raises:
            LogUnavailable: The database does not respond.
        """
        up_to = self.position() if up_to is None else up_to
        while after < up_to:
            page = self.read(after, READ_PAGE)
            for entry in page:
                if entry.position > up_to:
                    return
                yield entry
            if len(page) < READ_PAGE:
                return
            after = page[-1].position

    def events_from_lists(self, prefix: str, after: int = 0) -> Iterator[LogEntry]:
        """Iterates over events whose recommendation ids begin with a prefix.

        Args:
            prefix: The prefix, which consists of letters, digits and hyphens.
            after: The position before the first entry; 0 for the beginning of the log.

        Raises:
            LogUnavailable: The database does not respond.
        """
        query = (
            select(LOG)
            .where(LOG.c.type == EntryType.EVENT, LOG.c.recommendation_id.startswith(prefix))
            .order_by(LOG.c.position)
            .limit(READ_PAGE)
        )

        def read(after: int) -> list[LogEntry]:
            following = query.where(LOG.c.position > after)
            return self._database.read(lambda c: [entry_of(row) for row in c.execute(following)])

        while page := read(after):
            yield from page
            after = page[-1].position

    def write_list_counts(
        self, counter_id: str, counts: Sequence[ListCount], is_closed: bool
    ) -> None:
        """Replaces the totals of a counter of lists, and records the time of the write.

        Args:
            counter_id: The counter.
            counts: The totals that have changed.
            is_closed: Whether this is the counter's last write.

        Raises:
            LogUnavailable: Nothing was written, or the connection was lost while the transaction
                was committed.
        """
        self._database.write(
            lambda connection: write_counts(connection, counter_id, counts, is_closed)
        )

    def list_counts(self, experiment_id: str) -> list[ListCount]:
        """Returns the number of an experiment's lists that each user received.

        Raises:
            LogUnavailable: The database does not respond.
        """
        return self._database.read(lambda connection: read_counts(connection, experiment_id))

    def list_counters(self, experiment_id: str) -> list[CounterState]:
        """Returns the counters with lists of an experiment.

        Raises:
            LogUnavailable: The database does not respond.
        """
        return self._database.read(lambda connection: read_counters(connection, experiment_id))

    def position(self) -> int:
        """Returns the position of the last entry; 0 if the log is empty.

        Raises:
            LogUnavailable: The database does not respond.
        """
        return self._database.read(last_position)

    def mark(self) -> Mark:
        """Marks the end of the log, so that a reader can check later whether it is the same log.

        Raises:
            LogUnavailable: The database does not respond, or the log is read-only.
        """
        return self._database.write(mark)

    def missing_marks(self, tokens: Collection[str]) -> frozenset[str]:
        """Returns the tokens of those marks that the log does not contain.

        Raises:
            LogUnavailable: The database does not respond.
        """
        if not tokens:
            return frozenset()
        query = select(MARKS.c.token).where(MARKS.c.token.in_(sorted(tokens)))
        return self._database.read(lambda c: frozenset(tokens) - frozenset(c.scalars(query)))

    def received(self, positions: Collection[int]) -> dict[int, int]:
        """Returns when the log received the entries at some positions; omits deleted entries.

        Args:
            positions: The positions.

        Returns:
            The time in microseconds since 1970, by position.

        Raises:
            LogUnavailable: The database does not respond.
        """
        query = select(LOG.c.position, LOG.c.received_us).where(
            LOG.c.position.in_(sorted(positions))
        )
        return self._database.read(
            lambda c: {row.position: row.received_us for row in c.execute(query)}
        )

    def audit(self) -> list[Row[Any]]:
        """Returns the rows of the audit table, oldest first.

        Raises:
            LogUnavailable: The database does not respond.
        """
        query = select(AUDIT).order_by(AUDIT.c.id)
        return self._database.read(lambda connection: list(connection.execute(query)))
