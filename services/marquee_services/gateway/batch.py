"""Answers the subjects of a batch, several at a time, and packs the answers into messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeAlias

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import Draining, ServiceError
from marquee_services.gateway.answering.recommend import ComputedAnswer, Recommender
from marquee_services.gateway.batch_budget import BatchBudget, subject_cost
from marquee_services.gateway.caching.message_bytes import (
    SerializedResponse,
    length_delimited_tag,
    varint,
    varint_tag,
)
from marquee_services.gateway.caching.request_key import RequestKey
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.rated_items import RatedItems
from marquee_services.gateway.validation import validate_subject
from marquee_services.server.admission.priority import PRIORITY, Priority
from marquee_services.server.status import reason_name
from marquee_services.server.time_slice import TimeSlice

# A message is sent once it has this many bytes. Sending a message of a stream costs about as much
# as a call, so many small answers share one.
_MESSAGE_BYTES = 64 * 1024

# A subject's position, and its answer as a serialised RecommendResponse, or its error.
_Answer: TypeAlias = tuple[int, bytes | pb.BatchRecommendResponse.SubjectError]

_ANSWERS = length_delimited_tag(pb.BatchRecommendResponse, "answers")
_INDEX = varint_tag(pb.BatchRecommendResponse.SubjectAnswer, "subject_index")
_RECOMMENDATIONS = length_delimited_tag(pb.BatchRecommendResponse.SubjectAnswer, "recommendations")


class _Message:
    """Assembles serialised BatchRecommendResponses from the answers of subjects."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, position: int, response: bytes) -> None:
        """Adds a subject's answer, a serialised RecommendResponse without a page token.

        `Recommendations` has the same fields with the same numbers, so the bytes fit.
        """
        head = b"".join((_INDEX, varint(position), _RECOMMENDATIONS, varint(len(response))))
        self._add(head, response)

    def add_error(self, position: int, error: pb.BatchRecommendResponse.SubjectError) -> None:
        """Adds a subject's error."""
        answer = pb.BatchRecommendResponse.SubjectAnswer(subject_index=position, error=error)
        self._add(b"", answer.SerializeToString())

    def _add(self, head: bytes, content: bytes) -> None:
        size = len(head) + len(content)
        self._parts += _ANSWERS, varint(size), head, content
        self.size += size

    def take(self) -> SerializedResponse:
        """Returns the message and starts a new one."""
        message = SerializedResponse(b"".join(self._parts))
        self._parts.clear()
        self.size = 0
        return message


async def recommend_batch(
    recommender: Recommender,
    stored: Iterator[SerializedResponse | None],
    request: pb.BatchRecommendRequest,
    deadline: Deadline,
    budget: BatchBudget,
    parallel: int,
    finish: Callable[[ComputedAnswer], SerializedResponse],
) -> AsyncIterator[SerializedResponse]:
    """Yields the answers to the subjects of a batch, each as soon as it is available.

    If a subject cannot be answered, its error takes the place of the answer. No further subject is
    started until the caller has read the last message, so a slow reader slows the work down.

    Args:
        recommender: Computes the answer to a subject.
        stored: For each subject, in order, its stored answer as a serialised RecommendResponse, or
            None if the answer must be computed.
        request: The batch, already validated except for its subjects.
        deadline: The deadline of the whole batch.
        budget: The budget that all batches share.
        parallel: The most subjects that may wait for the budget or be computed at the same time.
        finish: Serialises a computed answer.

    Yields:
        Serialised BatchRecommendResponses.

    Raises:
        Draining: The gateway is shutting down. Subjects that were started have been answered.
    """
    subjects = enumerate(stored)
    tasks: set[asyncio.Task[_Answer]] = set()
    message = _Message()
    cost = subject_cost(request)
    # Inherited by every task of the batch and by every call that it makes.
    PRIORITY.set(Priority.BATCH)
    time_slice = TimeSlice()
    try:
        while True:
            while (
                len(tasks) < parallel
                and not budget.is_draining
                and (subject := next(subjects, None)) is not None
            ):
                position, answer = subject
                if answer is None:
                    computing = _compute(
                        recommender, request, position, deadline, budget, cost, finish
                    )
                    tasks.add(asyncio.create_task(computing))
                    continue
                message.add(position, answer)
                if message.size >= _MESSAGE_BYTES:
                    yield message.take()
                if time_slice.is_over:
                    await budget.give_way()
                    time_slice.restart()
            if message.size:
                yield message.take()
            if not tasks:
                if budget.is_draining and next(subjects, None) is not None:
                    raise Draining
                return
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                position, found = task.result()
                if isinstance(found, bytes):
                    message.add(position, found)
                else:
                    message.add_error(position, found)
                if message.size >= _MESSAGE_BYTES:
                    yield message.take()
    finally:
        for task in tasks:
            task.cancel()


def _single_request(request: pb.BatchRecommendRequest, position: int) -> pb.RecommendRequest:
    """Returns the Recommend request for one subject of a batch."""
    return pb.RecommendRequest(
        subject=request.subjects[position],
        page_size=request.page_size,
        options=request.options if request.HasField("options") else None,
    )


async def _compute(
    recommender: Recommender,
    request: pb.BatchRecommendRequest,
    position: int,
    deadline: Deadline,
    budget: BatchBudget,
    cost: int,
    finish: Callable[[ComputedAnswer], SerializedResponse],
) -> _Answer:
    """Computes the answer to one subject; an error becomes the subject's error."""
    single, field = _single_request(request, position), f"subjects[{position}]"
    try:
        rated = RatedItems.of(single.subject)
        validate_subject(single.subject, rated, field)
        async with budget.slot(cost):
            answer = await recommender.recommend(
                single, RequestKey.of(single), rated, deadline, field=field, paged=False
            )
    except ServiceError as error:
        number: int = error.code.value[0]
        return position, pb.BatchRecommendResponse.SubjectError(
            code=number, message=str(error), reason=reason_name(error)
        )
    return position, finish(answer)
