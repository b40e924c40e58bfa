"""Users' events, and the entries of the feedback log that contain them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class FeedbackKind(IntEnum):
    """What a user did. The values are stored in the log, and are the same as in the API."""

    RATING = 1
    LIKE = 2
    DISLIKE = 3
    VIEW = 4
    CLICK = 5
    PLAY = 6


class EntryType(IntEnum):
    """The type of a log entry. The values are stored in the log."""

    EVENT = 1
    DELETION = 2
    FORGOTTEN = 3


class FeedbackEvent(NamedTuple):
    """What a user did with an item.

    Attributes:
        user_id: The user's id.
        item_id: The item's id.
        kind: What the user did.
        value: Stars of a rating, or the share watched (0 to 1) of a play; 0 for other kinds.
        time_us: When it happened, in microseconds since 1970 (UTC).
        event_id: The idempotency key, unique among the user's events.
        recommendation_id: The list in which the user found the item; "" for none.
    """

    user_id: str
    item_id: str
    kind: FeedbackKind
    value: float
    time_us: int
    event_id: str
    recommendation_id: str = ""

    def at(self, time_us: int) -> FeedbackEvent:
        """Returns the same event at another time."""
        user_id, item_id, kind, value, _, event_id, recommendation_id = self
        return FeedbackEvent(user_id, item_id, kind, value, time_us, event_id, recommendation_id)

    def equals_ignoring_time(self, other: FeedbackEvent) -> bool:
        """Returns whether two events are equal except for their times.

        The server replaces missing times and times in the future, so a repeated event may have a
        different time.
        """
        return self.at(0) == other.at(0)


class LogEntry(NamedTuple):
    """An entry of the log.

    Attributes:
        position: The entry's position in the log. Positions increase in the order in which entries
            become visible to readers, and are never reused.
        type: Whether the entry is an event, the deletion of an event, or the record that a user
            was forgotten.
        event: The event. For a deletion, the deleted event without its value and time. None for a
            forgotten user.
        deleted_position: For a deletion, the position of the deleted event; otherwise 0.
        user_digest: For a forgotten user, the `user_digest` of the id; otherwise empty.
        received_us: When the log received the entry, in microseconds since 1970.
    """

    position: int
    type: EntryType
    event: FeedbackEvent | None
    deleted_position: int
    user_digest: bytes
    received_us: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark at a position in a log, by which the log can be recognised.

    A trainer writes a mark to the log that it reads, and records the mark in the manifest. A
    position is not sufficient, because a log that was replaced, or restored from a backup, reuses
    positions for other events. Such a log lacks the mark.

    Attributes:
        position: The position of the log's last entry when the mark was made.
        token: A random text that identifies the mark.
    """

    position: int
    token: str


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of appending a batch of events.

    Attributes:
        recorded: The number of new events.
        duplicates: The number of events whose key was recorded before.
        ignored: The number of events that occurred before their user was forgotten.
        position: A log position; a reader that has read up to it has seen the batch.
        entries: The entries of the batch, so that a follower in the same process need not read
            them. Empty unless all events are new and their positions are consecutive.
    """

    recorded: int
    duplicates: int
    ignored: int
    position: int
    entries: Sequence[LogEntry] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Deleted:
    """The result of a deletion.

    Attributes:
        count: The number of events that were deleted.
        position: A log position; a reader that has read up to it has seen the deletion.
    """

    count: int
    position: int


@dataclass(frozen=True, slots=True)
class ListCount:
    """The number of lists of an arm that a user received, from one counter or from all counters.

    Attributes:
        experiment_id: The `Experiment.experiment_id`.
        arm: The index of the arm in `Experiment.arms`.
        user_digest: The `user_digest` of the user's id.
        lists: The number of lists.
    """

    experiment_id: str
    arm: int
    user_digest: bytes
    lists: int


@dataclass(frozen=True, slots=True)
class CounterState:
    """The state of a counter of lists. A process uses one counter or several in succession.

    Attributes:
        counter_id: The id of the counter.
        silent_s: Seconds since the counter was last written.
        is_closed: Whether all counts have been written and the counter is no longer used.
    """

    counter_id: str
    silent_s: float
    is_closed: bool


class EventIdReused(Exception):
    """A different event is already recorded under an event's key.

    Attributes:
        event_id: The key.
    """

    def __init__(self, event_id: str) -> None:
        super().__init__(f"a different event is already recorded under the key {event_id!r}")
        self.event_id = event_id


class LogUnavailable(Exception):
    """The database of the log cannot be reached, or failed for a reason other than the data."""


class LogTooNew(LogUnavailable):
    """The tables were created by a newer version of Marquee."""


Batch = Sequence[FeedbackEvent]
"""Events that are recorded atomically: all of them or none."""


def user_digest(user_id: str) -> bytes:
    """Returns the SHA-256 digest (32 bytes) that stands for a user where the id must not be stored.

    It is used for forgotten users, for counts of lists and for outcomes of experiments.
    """
    return hashlib.sha256(b"marquee forgotten user\0" + user_id.encode()).digest()
