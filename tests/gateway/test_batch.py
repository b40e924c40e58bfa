"""BatchRecommend."""

from __future__ import annotations

from typing import Any

import grpc

from gateway.calls import TIMEOUT_S, Rating, Subject, request_for
from marquee.v1 import recommender_service_pb2 as pb


async def test_a_batch_answers_every_subject_once(stub: Any) -> None:
    """An error of one subject does not end the stream, and answers equal those of single calls."""
    subjects = [Subject(user_id=f"u{n}") for n in range(30)]
    subjects[4] = Subject(ratings=[Rating(item_id="i1", stars=9)])
    subjects[5] = Subject()
    request = pb.BatchRecommendRequest(subjects=subjects, page_size=5)
    answers = {
        answer.subject_index: answer
        async for response in stub.BatchRecommend(request, timeout=TIMEOUT_S)
        for answer in response.answers
    }
    assert sorted(answers) == list(range(30))
    assert answers[4].error.reason == "INVALID_FIELD"
    assert "subjects[4].ratings[0].stars" in answers[4].error.message
    assert answers[5].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    single = await stub.Recommend(request_for("u9", page_size=5), timeout=TIMEOUT_S)
    ids = [item.item_id for item in answers[9].recommendations.items]
    assert ids == [item.item_id for item in single.items]
