"""Feedback in memory: equal to the log, bounded, and available in earlier versions."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from marquee_core.feedback.events import (
    EntryType,
    FeedbackEvent,
    FeedbackKind,
    LogEntry,
    user_digest,
)
from marquee_services.gateway.feedback.fresh import MAX_EVENTS, FreshFeedback

MIB = 1024 * 1024


def rated(position: int, user: str = "u", item: str = "", stars: float = 4.0) -> LogEntry:
    """Return the entry of a rating."""
    event = FeedbackEvent(
        user, item or f"i{position}", FeedbackKind.RATING, stars, position, f"k{position}"
    )
    return LogEntry(position, EntryType.EVENT, event, 0, b"")


def deletion(position: int, of: LogEntry) -> LogEntry:
    """Return the entry of the deletion of an event."""
    return LogEntry(position, EntryType.DELETION, of.event, of.position, b"")


def forgotten(position: int, user: str = "u") -> LogEntry:
    """Return the entry of a forgotten user."""
    return LogEntry(position, EntryType.FORGOTTEN, None, 0, user_digest(user))


@dataclass(frozen=True)
class Step:
    """An event in the log: a rating, the deletion of the latest rating, or a forgotten user."""

    user: str
    what: EntryType


STEPS = st.lists(
    st.builds(Step, user=st.sampled_from("ab"), what=st.sampled_from(EntryType)), max_size=30
)


def entries_of(steps: list[Step]) -> list[LogEntry]:
    """Return the entries that the steps append."""
    entries: list[LogEntry] = []
    alive: dict[str, list[LogEntry]] = {}
    for step in steps:
        position = len(entries) + 1
        own = alive.setdefault(step.user, [])
        if step.what is EntryType.FORGOTTEN:
            entries.append(forgotten(position, step.user))
            own.clear()
        elif step.what is EntryType.DELETION and own:
            entries.append(deletion(position, own.pop()))
        else:
            own.append(rated(position, step.user))
            entries.append(own[-1])
    return entries


def survivors(entries: list[LogEntry]) -> list[LogEntry]:
    """Return what a reader finds in the log in the end, without deleted events."""
    gone = {entry.deleted_position for entry in entries if entry.type is EntryType.DELETION}
    last = {e.user_digest: e.position for e in entries if e.type is EntryType.FORGOTTEN}
    return [
        entry
        for entry in entries
        if entry.position not in gone
        and (
            entry.position == last[entry.user_digest]
            if entry.event is None
            else entry.position > last.get(user_digest(entry.event.user_id), 0)
        )
    ]


@given(STEPS, st.integers(0, 30), st.integers(1, 31))
def test_followers_that_read_at_different_times_agree(
    steps: list[Step], after: int, first: int
) -> None:
    """One follows each change, one starts late, and one reads an older part again."""
    entries = entries_of(steps)
    live, late, again = (FreshFeedback(MIB) for _ in range(3))
    live.apply(entries)
    late.apply(survivors(entries))
    again.drop_through(first)
    again.apply(entry for entry in survivors(entries) if entry.position > first)
    again.apply(entry for entry in survivors(entries) if entry.position <= first)
    for user in "ab":
        views = [fresh.of(user, after) for fresh in (live, late, again)]
        assert len({tuple(view.events) for view in views}) == 1
        assert len({view.is_forgotten for view in views}) == 1
        assert all(event.position > after for event in views[0].events)
        assert bool(views[0].version) >= bool(views[0].events)


@given(STEPS)
def test_an_earlier_version_is_either_unchanged_or_unavailable(steps: list[Step]) -> None:
    """The version in a page token never gives other events than the first page had."""
    fresh = FreshFeedback(MIB)
    seen = {}
    for entry in entries_of(steps):
        fresh.apply([entry])
        view = fresh.of("a", 0)
        seen[view.version] = view.events
        for version, events in seen.items():
            before = view.as_of(version)
            if before is not None:
                assert before.events == events
                assert before.version == version
        assert view.as_of(view.version) == view


def test_earlier_versions_are_available_until_an_event_is_deleted() -> None:
    """Adding events keeps all earlier versions, while a deletion drops them."""
    fresh = FreshFeedback(MIB)
    entries = [rated(n) for n in (1, 2, 3)]
    fresh.apply(entries)
    known = fresh.of("u", 0).as_of(2)
    assert known is not None
    assert [event.position for event in known.events] == [1, 2]
    nothing = fresh.of("u", 0).as_of(0)
    assert nothing is not None
    assert nothing.events == ()
    fresh.apply([deletion(4, entries[0])])
    assert fresh.of("u", 0).as_of(2) is None
    assert fresh.of("u", 0).as_of(9) is None


def test_memory_is_bounded() -> None:
    """The users that changed longest ago are dropped and counted, and forgotten users are kept."""
    fresh = FreshFeedback(MIB)
    fresh.apply([forgotten(1, "gone")])
    fresh.apply(rated(position, f"u{position % 5000}") for position in range(2, 10_000))
    assert fresh.nbytes <= MIB
    assert fresh.evicted > 0
    assert fresh.of("u4999", 0).events
    assert fresh.of("u10", 0).version == 0
    assert fresh.of("gone", 0).is_forgotten
    assert fresh.position == 9_999


def test_the_events_of_a_user_are_bounded() -> None:
    """The oldest events are dropped."""
    fresh = FreshFeedback(64 * MIB)
    fresh.apply(rated(position) for position in range(1, MAX_EVENTS + 11))
    events = fresh.of("u", 0).events
    assert [event.position for event in events] == list(range(11, MAX_EVENTS + 11))


def test_feedback_that_every_release_includes_is_dropped() -> None:
    """The memory of these events becomes free."""
    fresh = FreshFeedback(MIB)
    fresh.apply([rated(1), rated(2, "v"), forgotten(3, "w"), rated(4)])
    fresh.drop_through(3)
    assert [event.position for event in fresh.of("u", 0).events] == [4]
    assert not fresh.of("v", 0).events
    assert not fresh.of("w", 0).is_forgotten
    fresh.clear()
    assert (len(fresh), fresh.nbytes, fresh.position) == (0, 0, 0)


def test_an_undone_rating_does_not_invalidate_open_lists() -> None:
    """A rating that is recorded and deleted again leaves the user's open lists unchanged."""
    fresh = FreshFeedback(MIB)
    rating = rated(5)
    fresh.apply([rating, deletion(6, rating)])
    before = fresh.of("u", 0).as_of(0)
    assert before is not None
    assert not before.events
