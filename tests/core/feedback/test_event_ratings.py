"""The documented value of each kind of event, and which event of an item counts."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.feedback.event_ratings import (
    counts_as_rating,
    event_stars,
    is_explicit,
    latest_by_item,
)
from marquee_core.feedback.events import FeedbackKind


@dataclass(frozen=True)
class Event:
    """An event with the fields that `latest_by_item` uses."""

    item_id: str
    kind: FeedbackKind
    value: float
    time_us: int
    position: int


@pytest.mark.parametrize(
    ("kind", "value", "stars"),
    [
        (FeedbackKind.RATING, 3.5, 3.5),
        (FeedbackKind.RATING, 9.0, 5.0),
        (FeedbackKind.RATING, 0.0, 1.0),
        (FeedbackKind.LIKE, 0.0, 5.0),
        (FeedbackKind.DISLIKE, 0.0, 1.0),
        (FeedbackKind.PLAY, 0.7, 4.0),
        (FeedbackKind.PLAY, 1.0, 4.0),
        (FeedbackKind.PLAY, 0.69, None),
        (FeedbackKind.VIEW, 0.0, None),
        (FeedbackKind.CLICK, 0.0, None),
    ],
)
def test_each_kind_counts_as_documented(
    kind: FeedbackKind, value: float, stars: float | None
) -> None:
    """Values are on a scale of 1 to 5; None stands for events that do not count."""
    assert counts_as_rating(kind, value) == (stars is not None)
    if stars is not None:
        assert event_stars(kind, value, 1.0, 5.0) == stars
    elif kind is not FeedbackKind.PLAY:
        with pytest.raises(ValueError, match="does not count"):
            event_stars(kind, value, 1.0, 5.0)


EVENTS = st.lists(
    st.builds(
        Event,
        item_id=st.sampled_from("abc"),
        kind=st.sampled_from(FeedbackKind),
        value=st.sampled_from([0.0, 0.5, 0.9]),
        time_us=st.integers(0, 5),
        position=st.integers(),
    ),
    max_size=12,
    unique_by=lambda event: event.position,
)


@given(EVENTS, st.randoms())
def test_the_latest_explicit_event_of_an_item_counts(
    events: list[Event], order: random.Random
) -> None:
    """The result does not depend on the order in which the events arrive."""
    chosen = latest_by_item(events)
    shuffled = list(events)
    order.shuffle(shuffled)
    assert latest_by_item(shuffled) == chosen
    assert [(e.time_us, e.position) for e in chosen] == sorted(
        (e.time_us, e.position) for e in chosen
    )
    by_item = {event.item_id: event for event in chosen}
    assert len(by_item) == len(chosen)
    assert by_item.keys() == {e.item_id for e in events if counts_as_rating(e.kind, e.value)}
    for event in events:
        if not counts_as_rating(event.kind, event.value):
            continue
        best = by_item[event.item_id]
        if is_explicit(event.kind):
            assert is_explicit(best.kind)
        if is_explicit(event.kind) == is_explicit(best.kind):
            assert (event.time_us, event.position) <= (best.time_us, best.position)
