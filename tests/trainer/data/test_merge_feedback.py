"""Recorded feedback is merged into ratings: the latest counts, and forgotten users are removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from marquee_core.feedback.events import FeedbackEvent, FeedbackKind, user_digest
from marquee_core.feedback.log import EventLog
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.item_metadata import ItemMetadata
from marquee_trainer.data.merge_feedback import MergedFeedback, merge_feedback
from marquee_trainer.data.recorded_feedback import read_feedback
from marquee_trainer.data.scale import Feedback
from marquee_trainer.training.relevance import relevant_rating

# Generous: only a test that hangs reaches this limit.
TIMEOUT_S = 60.0
GIVEN = [
    ("b", "i2", 3.0, 100),
    ("a", "i1", 5.0, 200),
    ("a", "i2", 2.0, 300),
    ("b", "i1", 4.0, 400),
]
DETAILS = {
    "i1": ItemMetadata("One", 1999, ("Drama",), {"director": "Li"}),
    "i2": ItemMetadata("Two", 2001, ("Comedy", "Drama")),
    "unrated": ItemMetadata("Three"),
}
Table = dict[tuple[str, str], float]


def given(rows: list[Any] | None = None, timed: bool = True, **options: Any) -> RatingsDataset:
    """Return a data set of rows of user, item, rating and time."""
    users, items, ratings, times = zip(*(rows or GIVEN), strict=True)
    return RatingsDataset.of(
        users,
        items,
        np.array(ratings, np.float32),
        np.array(times, np.int64) if timed else None,
        DETAILS,
        "given",
        keep_unrated=True,
        **options,
    )


def event(
    user: str, item: str, kind: FeedbackKind, value: float = 0.0, seconds: float = 1_000.0
) -> FeedbackEvent:
    """Return an event at a time in seconds."""
    key = f"{user}-{item}-{kind}-{seconds}"
    return FeedbackEvent(user, item, kind, value, int(seconds * 1e6), key)


@pytest.fixture
def log(feedback_url: str) -> Iterator[EventLog]:
    """An empty log."""
    with EventLog(feedback_url, TIMEOUT_S) as opened:
        yield opened


def url_of(log: EventLog) -> str:
    """The URL of the log's database, with its password."""
    return log._database._reading.url.render_as_string(hide_password=False)


def merged(log: EventLog, dataset: RatingsDataset) -> MergedFeedback:
    """Return the data set merged with the content of the log."""
    return merge_feedback(dataset, read_feedback(url_of(log), TIMEOUT_S))


def table(dataset: RatingsDataset) -> Table:
    """Return the ratings by user and item."""
    users = dataset.user_ids.ids(dataset.users)
    items = dataset.catalogue.items.ids(dataset.items)
    return dict(zip(zip(users, items, strict=True), dataset.ratings.tolist(), strict=True))


def test_an_empty_log_changes_nothing(log: EventLog) -> None:
    """The data set has the same ratings, items and order of rows, and therefore the same splits."""
    for timed in (True, False):
        dataset = given(timed=timed)
        result = merged(log, dataset).dataset
        assert result.fingerprint() == dataset.fingerprint()
        assert result.file_order.tolist() == dataset.file_order.tolist()
        assert (result.scale, result.source) == (dataset.scale, dataset.source)
        assert result.has_timestamps is timed
        assert result.attributes == dataset.attributes
        assert [result.catalogue.title(n) for n in range(3)] == ["One", "Two", "Three"]
        assert result.catalogue.item_genres(1) == ("Comedy", "Drama")
        assert result.catalogue.years.tolist() == dataset.catalogue.years.tolist()


def test_each_kind_becomes_the_documented_rating(log: EventLog) -> None:
    """Users and items that are not in the ratings are added to the data set."""
    kinds = [
        event("new", "i1", FeedbackKind.RATING, 4.5),
        event("new", "i2", FeedbackKind.LIKE),
        event("new", "x1", FeedbackKind.DISLIKE),
        event("new", "x2", FeedbackKind.PLAY, 0.7),
        event("new", "x3", FeedbackKind.PLAY, 0.69),
        event("new", "x4", FeedbackKind.VIEW),
        event("new", "x5", FeedbackKind.CLICK),
        event("new", "x6", FeedbackKind.RATING, 9.0),
    ]
    log.append([kinds])
    result = merged(log, given())
    assert table(result.dataset) == table(given()) | {
        ("new", "i1"): 4.5,
        ("new", "i2"): 5.0,
        ("new", "x1"): 1.0,
        ("new", "x2"): 4.0,
        ("new", "x6"): 5.0,
    }
    assert (result.used, result.new_users, result.new_items) == (5, 1, 3)
    items = result.dataset.catalogue
    assert items.title(items.items.index("x1")) == "x1"
    assert result.dataset.scale == replace(given().scale, step=0.5)
    assert result.dataset.source == "given with 5 recorded ratings"


def test_the_latest_rating_of_a_user_and_item_counts(log: EventLog) -> None:
    """The time of the event counts, not the order in the log, and ties go to the log."""
    rate, play = FeedbackKind.RATING, FeedbackKind.PLAY
    log.append(
        [
            [
                event("a", "i1", rate, 1.0, 201),
                event("a", "i1", rate, 2.0, 200.5),
                event("a", "i2", rate, 5.0, 299),
                event("b", "i1", rate, 2.0, 400),
                event("b", "i2", play, 1.0, 5_000),
                event("c", "i1", play, 1.0, 900),
                event("c", "i1", rate, 1.0, 800),
            ]
        ]
    )
    result = merged(log, given())
    assert table(result.dataset) == {
        ("a", "i1"): 1.0,
        ("a", "i2"): 2.0,
        ("b", "i1"): 2.0,
        ("b", "i2"): 3.0,
        ("c", "i1"): 1.0,
    }
    assert (result.used, result.replaced, result.outdated) == (3, 2, 2)
    untimed = merged(log, given(timed=False))
    assert table(untimed.dataset)["a", "i2"] == 5.0


def test_deleted_events_are_omitted(log: EventLog) -> None:
    """The given rating counts again."""
    log.append([[event("a", "i1", FeedbackKind.RATING, 1.0), event("c", "i2", FeedbackKind.LIKE)]])
    log.delete_item("a", "i1")
    log.delete_item("c", "i2")
    result = merged(log, given())
    assert result.dataset.fingerprint() == given().fingerprint()
    assert result.used == 0


@pytest.mark.parametrize("timed", [True, False])
def test_forgotten_users_are_removed_from_events_and_ratings(log: EventLog, timed: bool) -> None:
    """Not even their ids are left, while later events of these users count."""
    log.append([[event("a", "i1", FeedbackKind.RATING, 1.0), event("c", "i2", FeedbackKind.LIKE)]])
    log.forget("a", "test")
    log.forget("c", "test")
    result = merged(log, given(timed=timed))
    assert table(result.dataset) == {("b", "i1"): 4.0, ("b", "i2"): 3.0}
    assert result.dataset.user_ids.ids(range(len(result.dataset.user_ids))) == ["b"]
    assert (result.forgotten_users, result.forgotten_ratings) == (1, 2)
    log.append([[event("a", "i2", FeedbackKind.RATING, 1.0, time.time() + 1)]])
    assert table(merged(log, given(timed=timed)).dataset)["a", "i2"] == 1.0
    log.forget("b", "test")
    log.forget("a", "test")
    with pytest.raises(RatingsError, match="no ratings are left"):
        merged(log, given(timed=timed))


def test_given_ratings_after_a_user_was_forgotten_are_kept(log: EventLog) -> None:
    """A time in the future, however, does not show that the user came back."""
    rows = [*GIVEN, ("a", "i3", 4.0, 301), ("a", "i4", 4.0, int(time.time()) + 10**8)]
    recorded = read_feedback(url_of(log), TIMEOUT_S)
    recorded = replace(recorded, forgotten={user_digest("a"): 300_500_000})
    merged_table = table(merge_feedback(given(rows), recorded).dataset)
    assert merged_table.keys() == {("a", "i3"), ("b", "i1"), ("b", "i2")}


def test_in_implicit_feedback_a_dislike_is_neither_a_like_nor_relevant(log: EventLog) -> None:
    """A dislike only keeps the item out of the user's list."""
    rows = [("a", "i1", 1.0, 1), ("a", "i2", 7.0, 2), ("b", "i1", 2.0, 3), ("b", "i2", 1.0, 4)]
    dataset = given(rows, feedback=Feedback.IMPLICIT)
    log.append(
        [
            [
                event("a", "i2", FeedbackKind.DISLIKE),
                event("b", "i1", FeedbackKind.LIKE),
                event("c", "i1", FeedbackKind.PLAY, 1.0),
            ]
        ]
    )
    result = merged(log, dataset).dataset
    ratings = table(result)
    assert ratings["b", "i1"] == 7.0
    assert ratings["c", "i1"] == 5.25
    assert result.feedback is Feedback.IMPLICIT
    assert ratings["a", "i2"] < relevant_rating(result) == relevant_rating(dataset)
    assert min(value for cell, value in ratings.items() if cell != ("a", "i2")) >= relevant_rating(
        result
    )
    assert result.scale.low == 0.0


def test_events_with_invalid_ids_are_omitted(log: EventLog) -> None:
    """Such events are counted, and do not stop the training."""
    log.append([[event("用" * 100, "i1", FeedbackKind.LIKE), event("ok", "i1", FeedbackKind.LIKE)]])
    result = merged(log, given())
    assert (result.invalid, result.used) == (1, 1)
    assert any("not valid" in note for note in result.notes())


def test_events_recorded_during_reading_are_left_to_the_gateways(log: EventLog) -> None:
    """The mark is where the release ends, and only later deletions are applied."""
    log.append([[event("c", "i1", FeedbackKind.LIKE), event("d", "i1", FeedbackKind.LIKE)]])
    url = url_of(log)
    first = read_feedback(url, TIMEOUT_S)
    assert first.mark.position == 2
    assert {user: len(events) for user, events in first.events.items()} == {"c": 1, "d": 1}
    assert log.missing_marks([first.mark.token, "other"]) == {"other"}
    log.append([[event("e", "i1", FeedbackKind.LIKE)]])
    assert read_feedback(url, TIMEOUT_S).mark.position == 3
