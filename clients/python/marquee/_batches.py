"""Resumes a batch on another gateway if the gateway that answers it goes away.

A gateway that shuts down finishes the subjects in progress and then ends its batches with
UNAVAILABLE; a gateway that crashes loses them. In both cases the client knows which subjects have
been answered and requests the others again. This is safe because BatchRecommend has no side
effects.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from marquee._errors import Cancelled, MarqueeError, Unavailable

if TYPE_CHECKING:
    from marquee.v1 import recommender_service_pb2 as pb

DRAINING = "DRAINING"
"""The error reason with which a gateway ends its batches when it shuts down."""

_MAX_FRUITLESS_CALLS = 4
_BACKOFF_S = 0.05


class BatchProgress:
    """Tracks which subjects of a batch have been answered.

    Attributes:
        request: The request for the subjects that have no answer yet.
    """

    def __init__(self, request: pb.BatchRecommendRequest, timeout: float) -> None:
        """Starts a batch.

        Args:
            request: The request for all subjects.
            timeout: Seconds until the last answer must have arrived.
        """
        self.request = request
        # For each subject in the current request, its position in the first request.
        self._positions = list(range(len(request.subjects)))
        self._unanswered = set(self._positions)
        self._due = time.monotonic() + timeout
        self._has_answers = False
        self._fruitless_calls = 0

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline of the whole batch."""
        return max(0.001, self._due - time.monotonic())

    def take(
        self, response: pb.BatchRecommendResponse
    ) -> Iterator[pb.BatchRecommendResponse.SubjectAnswer]:
        """Yields the answers of a message, with the subjects' positions in the first request."""
        for answer in response.answers:
            position = self._positions[answer.subject_index]
            answer.subject_index = position
            self._unanswered.discard(position)
            self._has_answers, self._fruitless_calls = True, 0
            yield answer

    @property
    def is_complete(self) -> bool:
        """Whether every subject has been answered."""
        return not self._unanswered

    def resume_after(self, error: MarqueeError) -> float | None:
        """Prepares a request for the subjects that have no answer yet.

        Args:
            error: The error that ended the call.

        Returns:
            Seconds to wait before the next call. None if the batch cannot be resumed: the error
            does not mean that the server went away, no subject had been answered, or several
            consecutive calls returned no answer.
        """
        # Proxies and gRPC's own limits end calls with CANCELLED, without a reason.
        was_lost = isinstance(error, Unavailable | Cancelled)
        if not was_lost or not (self._has_answers or error.reason == DRAINING):
            return None
        self._fruitless_calls += 1
        pause: float = _BACKOFF_S * 2**self._fruitless_calls
        if self._fruitless_calls > _MAX_FRUITLESS_CALLS or pause >= self.seconds_left:
            return None
        unanswered = sorted(self._unanswered)
        indexes = {position: index for index, position in enumerate(self._positions)}
        self.request = type(self.request)(
            subjects=[self.request.subjects[indexes[position]] for position in unanswered],
            page_size=self.request.page_size,
            options=self.request.options if self.request.HasField("options") else None,
        )
        self._positions = unanswered
        return pause
