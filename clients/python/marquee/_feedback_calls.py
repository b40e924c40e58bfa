"""The calls of `client.feedback`, blocking and for asyncio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from marquee._feedback import DeletedFeedback, FeedbackEvent, FeedbackPage, RecordedFeedback
from marquee._lazy import LazyModule
from marquee._options import PAGE_SIZE, Metadata

if TYPE_CHECKING:
    from marquee import _feedback_messages as messages
    from marquee.v1 import feedback_service_pb2 as pb
else:
    messages = LazyModule("marquee._feedback_messages")
    pb = LazyModule("marquee.v1.feedback_service_pb2")

Call: TypeAlias = Callable[[str, Any, float | None, Metadata | None], Any]
"""Calls a method by name, with a request, a deadline in seconds and metadata."""
AsyncCall: TypeAlias = Callable[[str, Any, float | None, Metadata | None], Awaitable[Any]]


class Feedback:
    """Records, lists and deletes feedback: what users do.

    It is available as `client.feedback`. All calls are idempotent, and are retried like other
    calls. Events are durable when the call returns, and affect the answers of every gateway within
    a second. `timeout` is the deadline of a call in seconds; None is the client's default.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def record(
        self,
        events: Iterable[FeedbackEvent],
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> RecordedFeedback:
        """Records events: all of them or, if the call fails, none.

        Args:
            events: The events; 1 to 1,000. Repeat the call with the same objects if it fails.
            timeout: The deadline of this call.
            metadata: Additional request metadata of this call.

        Raises:
            FailedPrecondition: A different event is already recorded under the key of an event.
            ValueError: The time of an event has no time zone.
        """
        request = messages.record(events)
        return messages.recorded(self._call("RecordFeedback", request, timeout, metadata))

    def rate(
        self,
        user_id: str,
        ratings: Mapping[str, float],
        *,
        recommendation_id: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> RecordedFeedback:
        """Records a user's ratings, with the current time.

        Args:
            user_id: The user's id.
            ratings: Stars by item id, oldest first.
            recommendation_id: The list in which the user found the items; empty for none.
            timeout: The deadline of this call.
            metadata: Additional request metadata of this call.
        """
        request = messages.rate(user_id, ratings, recommendation_id)
        return messages.recorded(self._call("RecordFeedback", request, timeout, metadata))

    def delete(
        self,
        user_id: str,
        *,
        event_id: str = "",
        item_id: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> DeletedFeedback:
        """Deletes one event of a user, or all of a user's events about an item.

        Args:
            user_id: The user's id.
            event_id: The key of the event. Exactly one of `event_id` and `item_id` is required.
            item_id: The item.
            timeout: The deadline of this call.
            metadata: Additional request metadata of this call.
        """
        request = pb.DeleteFeedbackRequest(user_id=user_id, event_id=event_id, item_id=item_id)
        return messages.deleted(self._call("DeleteFeedback", request, timeout, metadata))

    def forget(
        self, user_id: str, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> DeletedFeedback:
        """Deletes everything about a user immediately and permanently. Needs an admin token.

        Raises:
            PermissionDenied: The client's token does not have the scope `admin`.
        """
        request = pb.ForgetUserRequest(user_id=user_id)
        return messages.deleted(self._call("ForgetUser", request, timeout, metadata))

    def events(
        self,
        user_id: str,
        *,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> FeedbackPage:
        """Returns a page of a user's events, most recent first. Needs an admin token.

        Args:
            user_id: The user's id.
            page_size: The maximum number of events; at most 1,000.
            page_token: The `next_page_token` of the previous page; empty for the first page.
            timeout: The deadline of this call.
            metadata: Additional request metadata of this call.

        Raises:
            PermissionDenied: The client's token does not have the scope `admin`.
        """
        request = pb.ListFeedbackRequest(
            user_id=user_id, page_size=page_size, page_token=page_token
        )
        return messages.page(self._call("ListFeedback", request, timeout, metadata))


class AsyncFeedback:
    """The feedback calls of an `AsyncClient`; see `Feedback`."""

    def __init__(self, call: AsyncCall) -> None:
        self._call = call

    async def record(
        self,
        events: Iterable[FeedbackEvent],
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> RecordedFeedback:
        """Records events; see `Feedback.record`."""
        request = messages.record(events)
        return messages.recorded(await self._call("RecordFeedback", request, timeout, metadata))

    async def rate(
        self,
        user_id: str,
        ratings: Mapping[str, float],
        *,
        recommendation_id: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> RecordedFeedback:
        """Records a user's ratings; see `Feedback.rate`."""
        request = messages.rate(user_id, ratings, recommendation_id)
        return messages.recorded(await self._call("RecordFeedback", request, timeout, metadata))

    async def delete(
        self,
        user_id: str,
        *,
        event_id: str = "",
        item_id: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> DeletedFeedback:
        """Deletes events; see `Feedback.delete`."""
        request = pb.DeleteFeedbackRequest(user_id=user_id, event_id=event_id, item_id=item_id)
        return messages.deleted(await self._call("DeleteFeedback", request, timeout, metadata))

    async def forget(
        self, user_id: str, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> DeletedFeedback:
        """Deletes everything about a user; see `Feedback.forget`."""
        request = pb.ForgetUserRequest(user_id=user_id)
        return messages.deleted(await self._call("ForgetUser", request, timeout, metadata))

    async def events(
        self,
        user_id: str,
        *,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> FeedbackPage:
        """Returns a page of a user's events; see `Feedback.events`."""
        request = pb.ListFeedbackRequest(
            user_id=user_id, page_size=page_size, page_token=page_token
        )
        return messages.page(await self._call("ListFeedback", request, timeout, metadata))
