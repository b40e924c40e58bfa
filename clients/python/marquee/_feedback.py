"""Feedback: events to record, and the results of recording, listing and deleting them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from marquee._answers import _Rows

if TYPE_CHECKING:
    from marquee.v1 import feedback_service_pb2 as pb


class FeedbackKind(StrEnum):
    """What a user did."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not set, or a value that is newer than this client."""
    RATING = "RATING"
    """Gave the item a number of stars."""
    LIKE = "LIKE"
    """Liked the item. Counts as a rating at the top of the scale."""
    DISLIKE = "DISLIKE"
    """Disliked the item. Counts as a rating at the bottom of the scale."""
    VIEW = "VIEW"
    """Looked at the item's page. Has no influence on answers."""
    CLICK = "CLICK"
    """Selected the item in a list. Has no influence on answers."""
    PLAY = "PLAY"
    """Played the item. Counts as a good rating if at least 70 % of it was watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackEvent:
    """Something that a user did with an item.

    Create the event once, when it happens, and record the same object again if a call fails. Its
    `event_id` prevents it from being recorded twice.

    Attributes:
        user_id: The user's id.
        item_id: The item's id.
        kind: What the user did.
        stars: The number of stars; for `RATING` only.
        share_watched: The share that was watched, from 0 to 1; for `PLAY` only.
        time: When it happened, with a time zone. Default: now.
        recommendation_id: The list in which the user found the item; empty for none.
        event_id: The idempotency key, unique among the user's events. Default: a random one.
    """

    user_id: str
    item_id: str
    kind: FeedbackKind = FeedbackKind.RATING
    stars: float | None = None
    share_watched: float | None = None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    recommendation_id: str = ""
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class RecordedFeedback:
    """The result of recording events.

    Attributes:
        recorded_count: The number of events that the call recorded.
        duplicate_count: The number of events that had already been recorded under the same key.
        ignored_count: The number of events whose user was forgotten after they occurred.
        log_position: A gateway takes the events into account once its `status().feedback` reports
            this position or a later one.
        raw: The protobuf message that this was made from.
    """

    recorded_count: int
    duplicate_count: int
    ignored_count: int
    log_position: int
    raw: pb.RecordFeedbackResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class DeletedFeedback:
    """The result of a deletion.

    Attributes:
        deleted_count: The number of events that were deleted.
        log_position: A gateway no longer uses the events once its `status().feedback` reports this
            position or a later one.
        raw: The protobuf message that this was made from.
    """

    deleted_count: int
    log_position: int
    raw: pb.DeleteFeedbackResponse | pb.ForgetUserResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class FeedbackPage(_Rows[FeedbackEvent]):
    """A page of a user's events, the most recent first: a sequence of `FeedbackEvent`.

    Attributes:
        items: The events of this page.
        next_page_token: The token for requesting the next page; empty on the last page.
        raw: The protobuf message that this was made from.
    """

    columns = ("time", "item_id", "kind", "stars", "share_watched", "event_id")
    items: tuple[FeedbackEvent, ...]
    next_page_token: str
    raw: pb.ListFeedbackResponse = field(repr=False, compare=False)
