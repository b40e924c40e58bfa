"""Works through the subjects of a batch, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import ServiceError
from marquee_services.gateway.ready_answers import ReadyAnswers
from marquee_services.gateway.recommender import Recommender
from marquee_services.gateway.router import Deadline
from marquee_services.gateway.validation import validate_subject
from marquee_services.server.status import reason_name, status_code


async def recommend_batch(
    recommender: Recommender,
    ready: ReadyAnswers,
    request: pb.BatchRecommendRequest,
    deadline: Deadline,
    parallel: int,
) -> AsyncIterator[pb.BatchRecommendResponse]:
    """Answers subjects as they are ready; a subject's error takes its answer's place.

    The next subject is begun only when an answer has been taken, so a slow reader bounds the work.

    Args:
        recommender: Answers one subject.
        ready: Answers subjects that need no scoring.
        request: The batch, whose form is valid.
        deadline: Of the whole batch.
        parallel: How many subjects are worked on at once.
    """
    subjects = iter(range(len(request.subjects)))
    tasks: set[asyncio.Task[pb.BatchRecommendResponse]] = set()
    try:
        while True:
            while len(tasks) < parallel and (place := next(subjects, None)) is not None:
                single = _single(request, place)
                answer = pb.BatchRecommendResponse(subject_index=place)
                if ready.fill(single, answer.recommendations):
                    yield answer
                else:
                    tasks.add(asyncio.create_task(_one(recommender, single, place, deadline)))
            if not tasks:
                return
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
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
    recommender: Recommender, single: pb.RecommendRequest, place: int, deadline: Deadline
) -> pb.BatchRecommendResponse:
    field = f"subjects[{place}]"
    try:
        validate_subject(single.subject, field)
        answer = await recommender.recommend(single, deadline, field=field, paged=False)
    except ServiceError as error:
        number: int = status_code(error).value[0]
        return pb.BatchRecommendResponse(
            subject_index=place,
            error=pb.BatchRecommendResponse.SubjectError(
                code=number, message=str(error), reason=reason_name(error)
            ),
        )
    return pb.BatchRecommendResponse(
        subject_index=place,
        recommendations=pb.BatchRecommendResponse.Recommendations(
            recommendation_id=answer.recommendation_id,
            subject_kind=answer.subject_kind,
            items=answer.items,
            source=answer.source,
            unknown_item_ids=answer.unknown_item_ids,
        ),
    )
