"""Events of users, and the entries of the log that hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class FeedbackKind(IntEnum):
    """What a user did. The values are stored in the log and are those of the API."""

    RATING = 1
    LIKE = 2
    DISLIKE = 3
    VIEW = 4
    CLICK = 5
    PLAY = 6


class EntryType(IntEnum):
    """What an entry of the log says. The values are stored in the log."""

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
        """Returns whether two events differ in their time at most.

        The server replaces missing and later times, so the time of a repeated event may change.
        """
        return self.at(0) == other.at(0)


class LogEntry(NamedTuple):
    """An entry of the log.

    Attributes:
        position: The entry's place in the log. Positions grow in the order in which entries become
            visible to readers, and are never used twice.
        type: Whether it is an event, the deletion of one, or says that a user was forgotten.
        event: The event. For a deletion, the deleted event without its value and its time. None
            for a forgotten user.
        deleted_position: For a deletion, the position that the deleted event had; otherwise 0.
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
    """A place in a log that can be recognised.

    A trainer leaves a mark in the log that it reads, and notes it in the manifest. Positions alone
    would not do: a log that was replaced, or restored from a backup, uses them again for other
    events. It lacks the mark.

    Attributes:
        position: The position of the log's last entry when the mark was made.
        token: A random text that identifies the mark.
    """

    position: int
    token: str


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch of events.

    Attributes:
        recorded: Number of events that are new in the log.
        duplicates: Number of events that the log holds, or held, under the same key.
        ignored: Number of events that occurred before their user was forgotten.
        position: A position that includes the batch.
        entries: The batch as the log now holds it, which spares a follower in the same process to
            read it. Empty unless all events are new and their positions follow each other.
    """

    recorded: int
    duplicates: int
    ignored: int
    position: int
    entries: Sequence[LogEntry] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion did.

    Attributes:
        count: Number of events that were deleted.
        position: A position that includes the deletion.
    """

    count: int
    position: int


@dataclass(frozen=True, slots=True)
class ListCount:
    """How many lists of an experiment's arm a user got from one counter, or from all of them.

    Attributes:
        experiment_id: The `Experiment.experiment_id`.
        arm: The place of the arm among the experiment's.
        user_digest: The `user_digest` of the user's id.
        lists: The number of lists.
    """

    experiment_id: str
    arm: int
    user_digest: bytes
    lists: int


@dataclass(frozen=True, slots=True)
class CounterState:
    """A process, or a part of its life, that counted lists.

    Attributes:
        counter_id: Its id.
        silent_s: Seconds since it last wrote.
        is_closed: Whether it has written all that it counted.
    """

    counter_id: str
    silent_s: float
    is_closed: bool


class EventIdReused(Exception):
    """Another event is recorded under the key of an event.

    Attributes:
        event_id: The key.
    """

    def __init__(self, event_id: str) -> None:
        super().__init__(f"another event is recorded under the key {event_id!r}")
        self.event_id = event_id


class LogUnavailable(Exception):
    """The database of the log cannot be reached, or it refused a statement."""


class LogTooNew(LogUnavailable):
    """The database has tables of a newer version of the project."""


Batch = Sequence[FeedbackEvent]
"""Events that are recorded together: all or none of them."""


def user_digest(user_id: str) -> bytes:
    """The digest by which a forgotten user is recognised, without the id itself (32 bytes)."""
    return hashlib.sha256(b"marquee forgotten user\0" + user_id.encode()).digest()
