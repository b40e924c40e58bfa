"""The follower takes over what its process writes, and reads what others write."""

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
from toy.services import WAIT_S, until

# Longer than any test: without being told, the follower does not read the log again.
NEVER_S = 10 * WAIT_S


@pytest.fixture
def log(feedback_url: str) -> Iterator[EventLog]:
    """An empty log."""
    with EventLog(feedback_url, WAIT_S) as opened:
        opened.position()
        yield opened


@pytest.fixture
def fresh() -> FreshFeedback:
    """Feedback that a follower keeps up to date."""
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
    """Records that a user likes items; returns the entries."""
    events = [FeedbackEvent("u", item, FeedbackKind.LIKE, 0.0, 1, f"of-{item}") for item in items]
    (appended,) = log.append([events])
    assert isinstance(appended, Appended)
    return appended.entries


def reread(log: EventLog) -> UserFeedback:
    """The user's feedback after the log was read from its beginning."""
    fresh = FreshFeedback(1 << 20)
    fresh.apply(log.entries())
    return fresh.of("u", 0)


async def test_own_entries_count_without_being_read(
    log: EventLog, follower: FeedbackFollower, fresh: FreshFeedback
) -> None:
    """What is in memory then is what reading the log would bring."""
    start = time.monotonic()
    for items in (["i1", "i2"], ["i3"]):
        follower.take(append(log, *items))
    await until(lambda: fresh.position == log.position())
    assert fresh.of("u", 0) == reread(log)
    assert follower.lag is not None
    assert follower.lag >= time.monotonic() - start, "the log was read"


async def test_entries_of_others_in_between_are_read(
    log: EventLog, follower: FeedbackFollower, fresh: FreshFeedback
) -> None:
    """Own entries that do not follow what is in memory make the follower read all of them."""
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


async def test_what_a_write_changed_is_read_if_it_is_not_told(
    log: EventLog, follower: FeedbackFollower, fresh: FreshFeedback
) -> None:
    """Deletions come from the log."""
    follower.take(append(log, "i1", "i2"))
    deleted = log.delete_item("u", "i1")
    follower.take(())
    await until(lambda: fresh.position == deleted.position)
    assert [event.item_id for event in fresh.of("u", 0).events] == ["i2"]
