"""The feedback follower applies what its own process writes, and reads what others write."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from marquee_core.feedback.events import Appended, FeedbackEvent, FeedbackKind, LogEntry
from marquee_core.feedback.log import EventLog
from marquee_core.release.store import ReleaseStore
from marquee_services.gateway.feedback.follower import FeedbackFollower
from marquee_services.gateway.feedback.fresh import FreshFeedback, UserFeedback
from toy.release import publish_toy
from toy.waiting import WAIT_S, until

# Longer than any test: the follower does not read the log again unless it is triggered.
NEVER_S = 10 * WAIT_S


@pytest.fixture
def log(feedback_url: str) -> Iterator[EventLog]:
    """An empty log."""
    with EventLog(feedback_url, WAIT_S) as opened:
        opened.position()
        yield opened


@pytest.fixture
def fresh() -> FreshFeedback:
    """The feedback in memory that a follower keeps up to date."""
    return FreshFeedback(1 << 20)


@pytest_asyncio.fixture
async def follower(
    log: EventLog, fresh: FreshFeedback, tmp_path: Path
) -> AsyncIterator[FeedbackFollower]:
    """A follower that has read the log once."""
    started = FeedbackFollower(log, fresh, NEVER_S)
    started.set_releases([publish_toy(ReleaseStore(str(tmp_path / "store")), tmp_path / "trained")])
    started.start()
    await until(lambda: started.healthy)
    yield started
    started.stop()


def append(log: EventLog, *items: str) -> Sequence[LogEntry]:
    """Record that a user likes items, and return the entries."""
    events = [FeedbackEvent("u", item, FeedbackKind.LIKE, 0.0, 1, f"of-{item}") for item in items]
    (appended,) = log.append([events])
    assert isinstance(appended, Appended)
    return appended.entries


def reread(log: EventLog) -> UserFeedback:
    """Return the user's feedback after reading the log from the beginning."""
    fresh = FreshFeedback(1 << 20)
    fresh.apply(log.entries())
    return fresh.of("u", 0)


async def test_own_entries_are_applied_without_reading_the_log(
    log: EventLog, follower: FeedbackFollower, fresh: FreshFeedback
) -> None:
    """The result in memory equals that of reading the log."""
    start = time.monotonic()
    for items in (["i1", "i2"], ["i3"]):
        follower.take(append(log, *items))
    await until(lambda: fresh.position == log.position())
    assert fresh.of("u", 0) == reread(log)
    assert follower.lag is not None
    assert follower.lag >= time.monotonic() - start, "the log was read"


async def test_entries_of_other_processes_in_between_are_read(
    log: EventLog, follower: FeedbackFollower, fresh: FreshFeedback
) -> None:
    """If own entries do not follow directly on those in memory, the follower reads all of them."""
    append(log, "of-another-gateway")
    own = append(log, "i1")
    follower.take(own)
    await until(lambda: fresh.position == log.position())
    follower.take(own)
    follower.take(append(log, "i2"))
    await until(lambda: fresh.position == log.position())
    assert fresh.of("u", 0) == reread(log)
    assert [event.item_id for event in fresh.of("u", 0).events] == [
        "of-another-gateway",
        "i1",
        "i2",
    ]


async def test_changes_that_are_not_passed_on_are_read(
    log: EventLog, follower: FeedbackFollower, fresh: FreshFeedback
) -> None:
    """Deletions, for example, are read from the log."""
    follower.take(append(log, "i1", "i2"))
    deleted = log.delete_item("u", "i1")
    follower.take(())
    await until(lambda: fresh.position == deleted.position)
    assert [event.item_id for event in fresh.of("u", 0).events] == ["i2"]
