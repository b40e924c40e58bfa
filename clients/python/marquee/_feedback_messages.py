"""Converts between feedback and its protobuf messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp

from marquee._feedback import (
    DeletedFeedback,
    FeedbackEvent,
    FeedbackKind,
    FeedbackPage,
    RecordedFeedback,
)
from marquee.v1 import feedback_service_pb2 as pb

_KINDS: Mapping[int, FeedbackKind] = {
    number: FeedbackKind(name.removeprefix("FEEDBACK_KIND_"))
    for name, number in pb.FeedbackKind.items()
}


def record(events: Iterable[FeedbackEvent]) -> pb.RecordFeedbackRequest:
    """Builds the request of `record`.

    Raises:
        ValueError: The time of an event has no time zone.
    """
    return pb.RecordFeedbackRequest(events=map(_message, events))


def rate(
    user_id: str, ratings: Mapping[str, float], recommendation_id: str
) -> pb.RecordFeedbackRequest:
    """Builds the request of `rate`."""
    return record(
        FeedbackEvent(
            user_id=user_id, item_id=item_id, stars=stars, recommendation_id=recommendation_id
        )
        for item_id, stars in ratings.items()
    )


def recorded(response: pb.RecordFeedbackResponse) -> RecordedFeedback:
    """Converts the response of `record`."""
    return RecordedFeedback(
        response.recorded_count,
        response.duplicate_count,
        response.ignored_count,
        response.log_position,
        raw=response,
    )


def deleted(response: pb.DeleteFeedbackResponse | pb.ForgetUserResponse) -> DeletedFeedback:
    """Converts the response of `delete` or `forget`."""
    return DeletedFeedback(response.deleted_count, response.log_position, raw=response)


def page(response: pb.ListFeedbackResponse) -> FeedbackPage:
    """Converts a page of events."""
    events = tuple(_event(message) for message in response.events)
    return FeedbackPage(events, response.next_page_token, raw=response)


def _message(event: FeedbackEvent) -> pb.FeedbackEvent:
    if event.time.utcoffset() is None:
        raise ValueError("the time of an event must have a time zone, as in datetime.now(UTC)")
    when = Timestamp()
    when.FromDatetime(event.time)
    return pb.FeedbackEvent(
        user_id=event.user_id,
        item_id=event.item_id,
        kind=pb.FeedbackKind.Value(f"FEEDBACK_KIND_{event.kind}"),
        stars=event.stars,
        share_watched=event.share_watched,
        time=when,
        event_id=event.event_id,
        recommendation_id=event.recommendation_id,
    )


def _event(message: pb.FeedbackEvent) -> FeedbackEvent:
    return FeedbackEvent(
        user_id=message.user_id,
        item_id=message.item_id,
        kind=_KINDS.get(message.kind, FeedbackKind.UNSPECIFIED),
        stars=message.stars if message.HasField("stars") else None,
        share_watched=message.share_watched if message.HasField("share_watched") else None,
        time=message.time.ToDatetime(UTC),
        event_id=message.event_id,
        recommendation_id=message.recommendation_id,
    )
