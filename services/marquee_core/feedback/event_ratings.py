"""The ratings that events count as in training and scoring. The API documents the same table.

| kind                        | counts as a rating of               |
|-----------------------------|-------------------------------------|
| rating                      | its stars, limited to the scale     |
| like                        | the top of the scale                |
| dislike                     | the bottom of the scale             |
| play, at least 70 % watched | three quarters of the way up        |
| play, less watched          | nothing                             |
| view, click                 | nothing                             |

A play is weaker evidence than an explicit opinion, so it counts only for items that the user has
not rated, liked or disliked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from marquee_core.feedback.events import FeedbackKind

WATCHED_SHARE = 0.7
"""The share of an item that must be watched for a play to count."""

_PLAY_ON_SCALE = 0.75

_EXPLICIT = frozenset({FeedbackKind.RATING, FeedbackKind.LIKE, FeedbackKind.DISLIKE})


class EventLike(Protocol):
    """The fields of an event that determine which rating it counts as."""

    @property
    def item_id(self) -> str:
        """The item's id."""

    @property
    def kind(self) -> FeedbackKind:
        """What the user did."""

    @property
    def value(self) -> float:
        """Stars of a rating, or the share watched of a play."""

    @property
    def time_us(self) -> int:
        """When it happened, in microseconds since 1970."""

    @property
    def position(self) -> int:
        """The event's position in the log."""


_E = TypeVar("_E", bound=EventLike)


def is_explicit(kind: FeedbackKind) -> bool:
    """Returns whether the user explicitly stated an opinion of the item."""
    return kind in _EXPLICIT


def counts_as_rating(kind: FeedbackKind, value: float) -> bool:
    """Returns whether an event counts as a rating."""
    return kind in _EXPLICIT or (kind is FeedbackKind.PLAY and value >= WATCHED_SHARE)


def event_stars(kind: FeedbackKind, value: float, low: float, high: float) -> float:
    """Returns the rating that an event counts as, in stars.

    Args:
        kind: What the user did.
        value: Stars of a rating; ignored for other kinds.
        low: The lowest rating of the scale.
        high: The highest rating of the scale.

    Raises:
        ValueError: Events of this kind do not count as ratings.
    """
    match kind:
        case FeedbackKind.RATING:
            return min(max(value, low), high)
        case FeedbackKind.LIKE:
            return high
        case FeedbackKind.DISLIKE:
            return low
        case FeedbackKind.PLAY:
            return low + _PLAY_ON_SCALE * (high - low)
        case _:
            raise ValueError(f"{kind.name} does not count as a rating")


def latest_by_item(events: Iterable[_E]) -> list[_E]:
    """Returns the event that counts for each item, ordered by time, oldest first.

    It is the latest rating, like or dislike, or else the latest play that counts. Events with the
    same time are ordered by position.

    Args:
        events: One user's events, in any order.
    """
    best: dict[str, _E] = {}
    for event in events:
        if counts_as_rating(event.kind, event.value):
            current = best.get(event.item_id)
            if current is None or _precedence(event) > _precedence(current):
                best[event.item_id] = event
    return sorted(best.values(), key=lambda event: (event.time_us, event.position))


def _precedence(event: EventLike) -> tuple[bool, int, int]:
    return is_explicit(event.kind), event.time_us, event.position
