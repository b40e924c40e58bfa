"""Batches that a server ends early are resumed by another call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import marquee
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb

DEADLINE_S = 60.0


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway that is stopped after the test."""
    with FakeGateway() as running:
        yield running


def answer_to(position: int, subject: Any) -> pb.BatchRecommendResponse:
    """Return the answer to one subject, whose list is named after the user."""
    recommendations = pb.BatchRecommendResponse.Recommendations(recommendation_id=subject.user_id)
    return pb.BatchRecommendResponse(
        answers=[
            pb.BatchRecommendResponse.SubjectAnswer(
                subject_index=position, recommendations=recommendations
            )
        ]
    )


def ending_after(
    count: int, error: marquee.MarqueeError
) -> Callable[[pb.BatchRecommendRequest], Iterator[pb.BatchRecommendResponse]]:
    """Return a behaviour that answers the last subjects first and fails after `count` answers."""

    def behaviour(request: pb.BatchRecommendRequest) -> Iterator[pb.BatchRecommendResponse]:
        subjects = list(enumerate(request.subjects))[::-1]
        for position, subject in subjects[:count]:
            yield answer_to(position, subject)
        if len(subjects) > count:
            raise error

    return behaviour


def collect(asynchronous: bool, address: str, users: list[str]) -> list[tuple[int, str, str]]:
    """Return the index, the subject and the list of each answer in the order of arrival."""

    def shown(answer: Any) -> tuple[int, str, str]:
        return answer.index, answer.subject.user_id, answer.unwrap().recommendation_id

    async def run() -> list[tuple[int, str, str]]:
        async with marquee.AsyncClient(address) as client:
            answers: AsyncIterator[Any] = client.batch_recommend(users, timeout=DEADLINE_S)
            return [shown(answer) async for answer in answers]

    if asynchronous:
        return asyncio.run(run())
    with marquee.Client(address) as client:
        return [shown(answer) for answer in client.batch_recommend(users, timeout=DEADLINE_S)]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("error", [marquee.Unavailable("lost"), marquee.Cancelled("CANCELLED")])
def test_a_batch_resumes_where_it_stopped(
    gateway: FakeGateway, asynchronous: bool, error: marquee.MarqueeError
) -> None:
    """Each subject is answered once, with its index in the caller's list."""
    gateway.on("BatchRecommend", ending_after(3, error))
    users = [f"u{n}" for n in range(8)]
    answers = collect(asynchronous, gateway.address, users)
    assert sorted(answers) == [(n, f"u{n}", f"u{n}") for n in range(8)]
    asked = [[s.user_id for s in call.request.subjects] for call in gateway.calls]
    assert asked == [users, users[:5], users[:2]]


def test_a_batch_leaves_a_draining_gateway(gateway: FakeGateway) -> None:
    """If a gateway shuts down before its first answer, the batch is sent to another immediately."""
    calls = 0

    def behaviour(request: pb.BatchRecommendRequest) -> Iterator[pb.BatchRecommendResponse]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise marquee.Unavailable("shutting down", reason="DRAINING")
        yield answer_to(0, request.subjects[0])

    gateway.on("BatchRecommend", behaviour)
    assert collect(False, gateway.address, ["u1"]) == [(0, "u1", "u1")]


def test_a_batch_without_progress_ends_with_the_error(gateway: FakeGateway) -> None:
    """After several consecutive calls without an answer, the error is raised with its cause."""
    calls = 0

    def behaviour(request: pb.BatchRecommendRequest) -> Iterator[pb.BatchRecommendResponse]:
        nonlocal calls
        calls += 1
        if calls == 1:
            yield answer_to(0, request.subjects[0])
        raise marquee.Unavailable("lost")

    gateway.on("BatchRecommend", behaviour)
    with marquee.Client(gateway.address) as client:
        answers = client.batch_recommend(["u1", "u2"], timeout=DEADLINE_S)
        assert next(answers).index == 0
        with pytest.raises(marquee.Unavailable, match="lost") as caught:
            next(answers)
    assert caught.value.grpc_error is not None
    assert 2 < calls < 10


def test_losing_the_server_after_the_last_answer_is_not_an_error(gateway: FakeGateway) -> None:
    """A batch whose subjects have all been answered is complete."""

    def behaviour(request: pb.BatchRecommendRequest) -> Iterator[pb.BatchRecommendResponse]:
        yield answer_to(0, request.subjects[0])
        raise marquee.Unavailable("lost")

    gateway.on("BatchRecommend", behaviour)
    assert collect(False, gateway.address, ["u1"]) == [(0, "u1", "u1")]
    assert len(gateway.calls) == 1
