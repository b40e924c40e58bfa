"""Reads recorded feedback from the gateways' log, for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marquee_core.feedback.event_ratings import counts_as_rating, latest_by_item
from marquee_core.feedback.events import EntryType, FeedbackKind, LogEntry, Mark
from marquee_core.feedback.log import EventLog


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event that counts as a rating.

    Attributes:
        item_id: The item's id.
        kind: The user's action.
        value: Stars of a rating, or the share watched of a play; 0 for other kinds.
        time_us: When it happened, in microseconds since 1970.
        position: Its position in the log.
    """

    item_id: str
    kind: FeedbackKind
    value: float
    time_us: int
    position: int


@dataclass(frozen=True)
class RecordedFeedback:
    """The feedback of users in the log.

    Attributes:
        mark: The position up to which the log was read.
        events: By user id, the event that counts for each item, oldest first.
        forgotten: The times at which users were forgotten, in microseconds since 1970, by
            `user_digest` of the user's id.
    """

    mark: Mark
    events: Mapping[str, Sequence[RecordedEvent]]
    forgotten: Mapping[bytes, int]


def read_feedback(url: str, timeout: float, up_to: Mark | None = None) -> RecordedFeedback:
    """Reads a log from its beginning, and sets a mark at its end.

    Deletions and requests to forget a user that are logged after the mark, while the log is being
    read, are applied too.

    Args:
        url: The URL of the log.
        timeout: Seconds to wait for a connection, for a lock and for a statement.
        up_to: An earlier mark to read up to, if the log still has it; None to set a new one.

    Raises:
        LogUnavailable: The database does not answer, or the log may not be written to.
        ValueError: The URL is not that of a log.
    """
    events: dict[str, dict[int, RecordedEvent]] = {}
    forgotten: dict[bytes, int] = {}
    with EventLog(url, timeout) as log:
        is_known = up_to is not None and not log.missing_marks([up_to.token])
        mark = up_to if up_to is not None and is_known else log.mark()
        for entry in log.entries(0, mark.position):
            _take(entry, events, forgotten)
        for entry in log.entries(mark.position):
            if entry.type is not EntryType.EVENT:
                _take(entry, events, forgotten)
    by_user = {user: latest_by_item(found.values()) for user, found in events.items()}
    return RecordedFeedback(
        mark, {user: found for user, found in by_user.items() if found}, forgotten
    )


def _take(
    entry: LogEntry, events: dict[str, dict[int, RecordedEvent]], forgotten: dict[bytes, int]
) -> None:
    """Applies an entry to the events, by user and position, and to the times of forgetting."""
    event = entry.event
    match entry.type:
        case EntryType.FORGOTTEN:
            forgotten[entry.user_digest] = entry.received_us
        case EntryType.DELETION if event is not None:
            events.get(event.user_id, {}).pop(entry.deleted_position, None)
        case EntryType.EVENT if event is not None and counts_as_rating(event.kind, event.value):
            events.setdefault(event.user_id, {})[entry.position] = RecordedEvent(
                event.item_id, event.kind, event.value, event.time_us, entry.position
            )
