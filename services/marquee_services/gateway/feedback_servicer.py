"""Implements `FeedbackService`: validates each request, and writes to or reads from the log."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from marquee.v1 import feedback_service_pb2 as pb
from marquee.v1 import feedback_service_pb2_grpc
from marquee_core.feedback.events import FeedbackEvent, FeedbackKind, LogEntry, LogUnavailable
from marquee_core.feedback.log import EventLog
from marquee_services.errors import (
    FeedbackUnavailable,
    FieldViolation,
    InvalidFields,
    NoRelease,
    PageTokenMismatch,
)
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.caching.request_key import request_digest
from marquee_services.gateway.feedback.metrics import FeedbackMetrics
from marquee_services.gateway.feedback.writer import FeedbackWriter
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE, validate
from marquee_services.server.identity.access import caller_name
from marquee_services.server.interceptor import Context
from marquee_services.server.thread_pool import started_pool

_log = structlog.get_logger()
_READERS = 2
_KINDS = {int(kind): kind for kind in FeedbackKind}
# Later than any clock; the log replaces it with the time at which it receives the event.
_LATER = (1 << 63) - 1
_SHOWN_ID = 40  # characters of an item id in an error
_MAX_ACTOR = 256  # characters, like the column of the audit table


class FeedbackServicer(feedback_service_pb2_grpc.FeedbackServiceServicer):
    """Serves the feedback API of a gateway with a feedback log."""

    def __init__(
        self,
        log: EventLog,
        writer: FeedbackWriter,
        releases: Releases,
        metrics: FeedbackMetrics,
    ) -> None:
        """Creates a servicer.

        Args:
            log: The log, for reading.
            writer: Writes to the log.
            releases: The releases; the one in service determines the rating scale.
            metrics: Counts the events by outcome.
        """
        self._log = log
        self._writer = writer
        self._releases = releases
        self._metrics = metrics
        self._readers = started_pool("feedback-reader", _READERS)

    async def RecordFeedback(
        self, request: pb.RecordFeedbackRequest, context: Context
    ) -> pb.RecordFeedbackResponse:
        """Records a batch of events."""
        validate(request)
        self._check_scale(request)
        appended = await self._writer.append([event_of(event) for event in request.events])
        for outcome, count in (
            ("recorded", appended.recorded),
            ("duplicate", appended.duplicates),
            ("ignored", appended.ignored),
        ):
            self._metrics.events.labels(outcome).inc(count)
        return pb.RecordFeedbackResponse(
            recorded_count=appended.recorded,
            duplicate_count=appended.duplicates,
            ignored_count=appended.ignored,
            log_position=appended.position,
        )

    async def DeleteFeedback(
        self, request: pb.DeleteFeedbackRequest, context: Context
    ) -> pb.DeleteFeedbackResponse:
        """Deletes an event, or a user's events about an item."""
        validate(request)
        user_id, event_id, item_id = request.user_id, request.event_id, request.item_id
        deleted = await self._writer.run(
            lambda log: (
                log.delete_event(user_id, event_id)
                if event_id
                else log.delete_item(user_id, item_id)
            )
        )
        return pb.DeleteFeedbackResponse(deleted_count=deleted.count, log_position=deleted.position)

    async def ForgetUser(
        self, request: pb.ForgetUserRequest, context: Context
    ) -> pb.ForgetUserResponse:
        """Deletes all data about a user."""
        validate(request)
        user_id, actor = request.user_id, f"{caller_name()} at {context.peer()}"[:_MAX_ACTOR]
        deleted = await self._writer.run(lambda log: log.forget(user_id, actor))
        _log.info(
            "user_forgotten", actor=actor, deleted=deleted.count, log_position=deleted.position
        )
        return pb.ForgetUserResponse(deleted_count=deleted.count, log_position=deleted.position)

    async def ListFeedback(
        self, request: pb.ListFeedbackRequest, context: Context
    ) -> pb.ListFeedbackResponse:
        """Returns a page of a user's events."""
        validate(request)
        digest = request_digest(b"ListFeedback", request.user_id.encode())
        before = _page_start(PageToken.verify(request.page_token, digest))
        size = request.page_size or DEFAULT_PAGE_SIZE
        user_id = request.user_id
        found = await self._read(lambda: self._log.list_user(user_id, size + 1, before))
        token = ""
        if len(found) > size:
            last = found[size - 1]
            assert last.event is not None  # noqa: S101 - the list contains only events
            token = PageToken("", str(last.event.time_us), (), digest, last.position).encode()
        return pb.ListFeedbackResponse(
            events=[_message(entry) for entry in found[:size]], next_page_token=token
        )

    def close(self) -> None:
        """Stops the threads that read from the log."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def _read(self, work: Callable[[], list[LogEntry]]) -> list[LogEntry]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)
        except LogUnavailable as error:
            raise FeedbackUnavailable("the feedback log does not respond") from error

    def _check_scale(self, request: pb.RecordFeedbackRequest) -> None:
        """Checks that ratings are on the scale of the release in service, if there is one.

        Raises:
            InvalidFields: A rating is outside the scale.
        """
        try:
            release = self._releases.serving
        except NoRelease:
            return
        data = release.manifest.data
        # The strength of an interaction, such as a number of plays, has no upper limit.
        high = data.rating_max if release.predicts_stars else math.inf
        limits = f"must be between {data.rating_min:g} and {high:g}"
        if high == math.inf:
            limits = f"must be at least {data.rating_min:g}"
        given = [event.stars for event in request.events if event.HasField("stars")]
        if not given or (data.rating_min <= min(given) and max(given) <= high):
            return
        violations = [
            FieldViolation(
                f"events[{position}].stars",
                f"{limits}, not {event.stars:g} (item {event.item_id[:_SHOWN_ID]!r})",
            )
            for position, event in enumerate(request.events)
            if event.HasField("stars") and not data.rating_min <= event.stars <= high
        ]
        if violations:
            raise InvalidFields(violations)


def event_of(message: pb.FeedbackEvent) -> FeedbackEvent:
    """Converts a validated event; the log replaces a time that is in its future."""
    value = message.stars if message.HasField("stars") else message.share_watched
    time_us = message.time.ToMicroseconds() if message.HasField("time") else _LATER
    return FeedbackEvent(
        message.user_id,
        message.item_id,
        _KINDS[message.kind],
        value,
        time_us,
        message.event_id,
        message.recommendation_id,
    )


def _message(entry: LogEntry) -> pb.FeedbackEvent:
    event = entry.event
    assert event is not None  # noqa: S101 - the list contains only events
    when = Timestamp()
    when.FromMicroseconds(event.time_us)
    return pb.FeedbackEvent(
        user_id=event.user_id,
        item_id=event.item_id,
        kind=cast(pb.FeedbackKind.ValueType, event.kind.value),
        stars=event.value if event.kind is FeedbackKind.RATING else None,
        share_watched=event.value if event.kind is FeedbackKind.PLAY else None,
        time=when,
        event_id=event.event_id,
        recommendation_id=event.recommendation_id,
    )


def _page_start(token: PageToken | None) -> tuple[int, int] | None:
    """Returns where a page starts: the time and position of the last event of the previous page.

    Raises:
        PageTokenMismatch: The token does not belong to this method.
    """
    if token is None:
        return None
    try:
        time_us = int(token.release_id)
    except ValueError as error:
        raise PageTokenMismatch("damaged") from error
    if abs(time_us) >= _LATER:  # No database can store it.
        raise PageTokenMismatch("damaged")
    return time_us, token.offset
