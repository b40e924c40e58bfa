"""The feedback log on SQLite and on PostgreSQL: durable, idempotent, and read in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from marquee_core.feedback.engine import make_engine, parse_url
from marquee_core.feedback.events import (
    Appended,
    EntryType,
    EventIdReused,
    FeedbackEvent,
    FeedbackKind,
    LogTooNew,
    LogUnavailable,
    user_digest,
)
from marquee_core.feedback.log import READ_PAGE, EventLog
from marquee_core.feedback.schema import METADATA

# Generous: only a test that hangs reaches this limit.
TIMEOUT_S = 60.0


def event(item: str = "i1", user: str = "u1", key: str = "", **changes: Any) -> FeedbackEvent:
    """Return a rating of four stars."""
    plain = FeedbackEvent(user, item, FeedbackKind.RATING, 4.0, 1_000, key or f"{user}-{item}")
    return plain._replace(**changes)


def recorded(log: EventLog) -> list[FeedbackEvent]:
    """Return the events of the log, in order."""
    return [
        entry.event
        for entry in log.entries()
        if entry.type is EntryType.EVENT and entry.event is not None
    ]


@pytest.fixture
def log(feedback_url: str) -> Iterator[EventLog]:
    """An empty log."""
    with EventLog(feedback_url, TIMEOUT_S) as opened:
        yield opened


def test_future_times_are_limited_by_the_clock_all_writers_share(log: EventLog) -> None:
    """A gateway whose clock is fast gains no precedence, and times still increase."""
    first, second, late = (
        event("i1", time_us=2**63 - 1),
        event("i2", time_us=2**63 - 1),
        event("i3"),
    )
    for each in (first, second, late):
        log.append([[each]], limit_times=True)
    one, two, three = recorded(log)
    assert 1_600_000_000_000_000 < one.time_us < two.time_us < 2**62
    assert three == late


def test_every_field_of_an_event_is_stored(log: EventLog, feedback_url: str) -> None:
    """Another process that opens the log reads the event as it was recorded."""
    events = [
        event("i1", value=0.5, recommendation_id="a" * 64),
        event("ø" * 256, user="用" * 256, key="k" * 128, kind=FeedbackKind.PLAY, value=0.25),
        event("i2", kind=FeedbackKind.LIKE, value=0.0, time_us=253_402_300_799_999_999),
        event("\"'\\u0041\n\x01", user="{}", key="%s ?", value=0.1),
    ]
    assert log.append([events]) == [Appended(4, 0, 0, log.position())]
    with EventLog(feedback_url, TIMEOUT_S) as again:
        assert recorded(again) == events


def test_recording_an_event_again_changes_nothing(log: EventLog) -> None:
    """Events with the same key count once within a call, a transaction and between transactions."""
    first = event()
    later = first._replace(time_us=5_000)
    assert log.append([[first, first], [first]]) == [Appended(1, 1, 0, 1), Appended(0, 1, 0, 1)]
    assert log.append([[later]]) == [Appended(0, 1, 0, 1)]
    assert log.append([[]]) == [Appended(0, 0, 0, 1)]
    assert recorded(log) == [first]


def test_appending_returns_the_entries_that_a_reader_finds(log: EventLog) -> None:
    """The returned entries are those that a reader finds, even for long batches and late times."""
    batches = [[event(f"i{n}", time_us=n) for n in range(1_100)], [event("i1", "u2")]]
    batches[1].append(event("i2", "u2", time_us=2**63 - 1))
    results = log.append(batches, limit_times=True)
    given = [entry for each in results if isinstance(each, Appended) for entry in each.entries]
    assert given == list(log.entries())
    assert len(given) == 1_102


def test_keys_of_different_users_do_not_collide(log: EventLog) -> None:
    """The keys that one caller chooses cannot hide the events of others."""
    events = [event(user=user, key="1") for user in ("a", "b")]
    assert log.append([events]) == [Appended(2, 0, 0, 2)]


@pytest.mark.parametrize(
    "changes",
    [{"item_id": "i2"}, {"value": 1.0}, {"kind": FeedbackKind.LIKE}, {"recommendation_id": "r"}],
)
def test_reusing_a_key_for_another_event_refuses_the_batch(
    log: EventLog, changes: dict[str, Any]
) -> None:
    """Nothing of that batch is recorded, while other batches of the transaction are."""
    first = event()
    log.append([[first]])
    other = [event("i8"), first._replace(**changes)]
    refused, accepted = log.append([other, [event("i9")]])
    assert isinstance(refused, EventIdReused)
    assert refused.event_id == first.event_id
    assert accepted == Appended(1, 0, 0, log.position())
    assert recorded(log) == [first, event("i9")]


def test_a_deleted_event_stays_deleted(log: EventLog) -> None:
    """Readers are told which event was deleted, and sending it again does not restore it."""
    log.append([[event("i1"), event("i1", key="again"), event("i2")]])
    deleted = log.delete_event("u1", "again")
    assert deleted.count == 1
    (entry,) = log.read(3, 10)
    assert (entry.type, entry.deleted_position) == (EntryType.DELETION, 2)
    assert log.append([[event("i1", key="again")]]) == [Appended(0, 1, 0, deleted.position)]
    assert log.delete_item("u1", "i1").count == 1
    assert log.delete_item("u1", "i1").count == 0
    assert log.delete_event("nobody", "again").count == 0
    assert recorded(log) == [event("i2")]


def test_forgetting_a_user_leaves_only_a_digest(
    log: EventLog, feedback_url: str, tmp_path: Path
) -> None:
    """No row contains the user's id any more, and the audit table says who requested it."""
    log.append([[event(user="secret-user"), event("i2", user="secret-user"), event(user="other")]])
    log.delete_event("secret-user", "secret-user-i2")
    deleted = log.forget("secret-user", "operator")
    assert deleted.count == 1
    assert recorded(log) == [event(user="other")]
    (entry,) = log.read(deleted.position - 1, 10)
    assert (entry.type, entry.user_digest) == (EntryType.FORGOTTEN, user_digest("secret-user"))
    (row,) = log.audit()
    assert (row.action, row.actor, row.deleted_count) == ("forget_user", "operator", 1)
    if feedback_url.startswith("sqlite"):
        files = list(tmp_path.glob("feedback.sqlite*"))
        assert files
        assert not any(b"secret-user" in path.read_bytes() for path in files)


def test_events_from_before_the_forgetting_are_ignored(log: EventLog) -> None:
    """A late copy does not bring the user back, while later events are recorded."""
    log.append([[event()]])
    log.forget("u1", "operator")
    future = 4_000_000_000_000_000
    (appended,) = log.append([[event(), event("i2"), event("i3", time_us=future)]])
    assert isinstance(appended, Appended)
    assert (appended.recorded, appended.duplicates, appended.ignored) == (1, 0, 2)
    log.forget("u1", "operator")
    assert [entry.type for entry in log.entries()] == [EntryType.FORGOTTEN]


def test_a_users_events_are_listed_by_time_in_pages(log: EventLog) -> None:
    """The most recent events come first in any order of recording, and no page repeats an event."""
    times = [30, 10, 20, 20, 20, 40]
    events = [event(f"i{n}", time_us=time) for n, time in enumerate(times)]
    log.append([[*events, event(user="other")]])
    log.delete_item("u1", "i5")
    found: list[str] = []
    before = None
    while page := log.list_user("u1", 2, before):
        assert all(entry.event is not None for entry in page)
        found += [entry.event.item_id for entry in page if entry.event]
        last = page[-1]
        assert last.event is not None
        before = last.event.time_us, last.position
    assert found == ["i0", "i4", "i3", "i2", "i1"]


def test_entries_can_be_read_from_any_position(log: EventLog) -> None:
    """`entries` reads page after page, and stops at the requested position."""
    count = READ_PAGE + 10
    log.append([[event(f"i{n}") for n in range(count)]])
    positions = [entry.position for entry in log.entries()]
    assert positions == sorted(set(positions))
    assert len(positions) == count
    assert [e.position for e in log.entries(positions[2], positions[5])] == positions[3:6]
    assert len(log.read(0, 3)) == 3


def test_positions_are_never_reused(log: EventLog) -> None:
    """A reader that follows positions misses nothing even if the last entries are deleted."""
    log.append([[event()]])
    before = log.forget("u1", "operator").position
    log.append([[event(user="u2")]])
    after = log.forget("u2", "operator").position
    assert before < log.read(before, 10)[0].position <= after


def test_a_reader_misses_no_entry_of_concurrent_writers(feedback_url: str) -> None:
    """Entries become visible in the order of their positions, whichever process writes them."""
    writers, batches = 4, 25
    with EventLog(feedback_url, TIMEOUT_S) as log:
        log.position()
        done = threading.Event()
        seen: list[str] = []
        failures: list[BaseException] = []

        def write(number: int) -> None:
            try:
                with EventLog(feedback_url, TIMEOUT_S) as own:
                    for batch in range(batches):
                        own.append([[event(f"i{n}", f"w{number}-{batch}") for n in range(5)]])
            except BaseException as error:
                failures.append(error)

        def follow() -> None:
            position = 0
            while True:
                finished = done.is_set()
                for entry in log.read(position, 7):
                    assert entry.event is not None
                    position = entry.position
                    seen.append(entry.event.event_id)
                if finished and not log.read(position, 1):
                    return

        follower = threading.Thread(target=follow)
        follower.start()
        threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        follower.join()
    assert not failures
    assert len(seen) == len(set(seen)) == writers * batches * 5


def test_processes_that_start_together_create_the_tables_once(feedback_url: str) -> None:
    """Processes wait for each other while one creates the tables, and all of them can write."""
    results: list[Any] = []

    def start(number: int) -> None:
        with EventLog(feedback_url, TIMEOUT_S) as own:
            results.append(own.append([[event(user=f"u{number}")]]))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4


def test_migrations_produce_the_schema(log: EventLog, feedback_url: str) -> None:
    """Alembic finds no difference between the migrated database and the schema."""
    log.position()
    engine = make_engine(parse_url(feedback_url), TIMEOUT_S)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_a_log_of_an_older_version_is_migrated(log: EventLog, feedback_url: str) -> None:
    """No recorded event is lost, and the tables become those of this version."""
    log.append([[event()]])
    engine = create_engine(parse_url(feedback_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0003'"))
        index = "CREATE INDEX feedback_log_time ON feedback_log (user_id, time_us, position)"
        connection.execute(text(index))
    with EventLog(feedback_url, TIMEOUT_S) as again:
        again.append([[event("i2")]])
        assert recorded(again) == [event(), event("i2")]
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_a_log_of_a_newer_version_is_refused(log: EventLog, feedback_url: str) -> None:
    """The error names both revisions, and the tables are not changed."""
    log.append([[event()]])
    engine = create_engine(parse_url(feedback_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with (
        EventLog(feedback_url, TIMEOUT_S) as again,
        pytest.raises(LogTooNew, match=r"9999.*0004"),
    ):
        again.position()
    assert recorded(log) == [event()]


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "mysql://localhost/x", "feedback.sqlite", "://"],
)
def test_an_invalid_url_is_refused(url: str) -> None:
    """The error is raised before anything is opened."""
    with pytest.raises(ValueError, match="feedback log"):
        EventLog(url)


def test_a_database_that_cannot_be_reached_is_unavailable(tmp_path: Path, free_port: Any) -> None:
    """A file that cannot be opened and a server that is not listening are both unavailable."""
    (tmp_path / "file").touch()
    for url in (
        f"sqlite:///{tmp_path}/file/log.sqlite",
        f"postgresql://nobody:hidden@127.0.0.1:{free_port()}/none",
    ):
        with EventLog(url) as log:
            assert "hidden" not in log.name
            with pytest.raises(LogUnavailable) as caught:
                log.append([[event()]])
            assert "hidden" not in str(caught.value)


def test_a_restarted_database_is_reconnected(postgresql: Any) -> None:
    """Stale connections in the pool do not make the next call fail."""
    with EventLog(postgresql.new_database(), TIMEOUT_S) as log:
        log.append([[event()]])
        postgresql.kill()
        with pytest.raises(LogUnavailable):
            log.append([[event("i2")]])
        postgresql.start()
        log.append([[event("i2")]])
        postgresql.kill()
        postgresql.start()
        assert log.append([[event("i3")]])
        assert recorded(log) == [event("i1"), event("i2"), event("i3")]
