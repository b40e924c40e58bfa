"""Works through the subjects of a batch, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.errors import ServiceError
from marquee_services.gateway.answering.recommender import Recommender
from marquee_services.gateway.caching.message_bytes import content_tag, number_tag, varint
from marquee_services.gateway.ranking.router import Deadline
from marquee_services.gateway.validation import validate_subject
from marquee_services.server.status import reason_name, status_code

# A message is sent once it has so many bytes: enough answers share then what a message costs.
_MESSAGE_BYTES = 64 * 1024

_ANSWERS = content_tag(pb.BatchRecommendResponse, "answers")
_INDEX = number_tag(pb.BatchRecommendResponse.SubjectAnswer, "subject_index")
_RECOMMENDATIONS = content_tag(pb.BatchRecommendResponse.SubjectAnswer, "recommendations")


class _Message:
    """A BatchRecommendResponse's bytes as they are gathered."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def add_ready(self, place: int, response: bytes) -> None:
        """Adds the answer of a subject, a RecommendResponse's bytes without a page token."""
        head = b"".join((_INDEX, varint(place), _RECOMMENDATIONS, varint(len(response))))
        self._add(head, response)

    def add(self, answer: pb.BatchRecommendResponse.SubjectAnswer) -> None:
        """Adds the answer or the error of a subject."""
        self._add(b"", answer.SerializeToString())

    def _add(self, head: bytes, content: bytes) -> None:
        size = len(head) + len(content)
        self._parts += _ANSWERS, varint(size), head, content
        self.size += size

    def take(self) -> bytes:
        """What was gathered since the last time."""
        found = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return found


async def recommend_batch(
    recommender: Recommender,
    ready: Iterator[bytes | None],
    request: pb.BatchRecommendRequest,
    deadline: Deadline,
    parallel: int,
    finish: Callable[[types_pb2.AnswerSource], None],
) -> AsyncIterator[bytes]:
    """Answers subjects as they are ready; a subject's error takes its answer's place.

    The next subject is begun only when a message has been taken, so a slow reader bounds the work.

    Args:
        recommender: Answers one subject.
        ready: For each subject in turn, its RecommendResponse's bytes, or None where it must be
            computed.
        request: The batch, whose form is valid.
        deadline: Of the whole batch.
        parallel: How many subjects are worked on at once.
        finish: Called with the source of each computed answer.

    Yields:
        The bytes of BatchRecommendResponses.
    """
    subjects = enumerate(ready)
    tasks: set[asyncio.Task[pb.BatchRecommendResponse.SubjectAnswer]] = set()
    message = _Message()
    try:
        while True:
            while len(tasks) < parallel and (subject := next(subjects, None)) is not None:
                place, answer = subject
                if answer is None:
                    one = _one(recommender, request, place, deadline, finish)
                    tasks.add(asyncio.create_task(one))
                    continue
                message.add_ready(place, answer)
                if message.size >= _MESSAGE_BYTES:
                    yield message.take()
            if message.size:
                yield message.take()
            if not tasks:
                return
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                message.add(task.result())
                if message.size >= _MESSAGE_BYTES:
                    yield message.take()
    finally:
        for task in tasks:
            task.cancel()


def _single(request: pb.BatchRecommendRequest, place: int) -> pb.RecommendRequest:
    """The single call that asks for a subject of a batch."""
    return pb.RecommendRequest(
        subject=request.subjects[place],
        page_size=request.page_size,
        options=request.options if request.HasField("options") else None,
    )


async def _one(
    recommender: Recommender,
    request: pb.BatchRecommendRequest,
    place: int,
    deadline: Deadline,
    finish: Callable[[types_pb2.AnswerSource], None],
) -> pb.BatchRecommendResponse.SubjectAnswer:
    single, field = _single(request, place), f"subjects[{place}]"
    try:
        validate_subject(single.subject, field)
        answer = await recommender.recommend(single, deadline, field=field, paged=False)
    except ServiceError as error:
        number: int = status_code(error).value[0]
        return pb.BatchRecommendResponse.SubjectAnswer(
            subject_index=place,
            error=pb.BatchRecommendResponse.SubjectError(
                code=number, message=str(error), reason=reason_name(error)
            ),
        )
    finish(answer.source)
    # A message of its own, whose fields are numbered alike; see the protocol.
    found = pb.BatchRecommendResponse.Recommendations.FromString(answer.SerializeToString())
    return pb.BatchRecommendResponse.SubjectAnswer(subject_index=place, recommendations=found)
