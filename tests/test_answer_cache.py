"""Kept answers are those that would be given again."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.gateway.answer_cache import AnswerCache, request_key

KNOWN = types_pb2.SUBJECT_KIND_KNOWN


def request_of(user: str, **options: Any) -> pb.RecommendRequest:
    """A request for a user."""
    return pb.RecommendRequest(
        subject=types_pb2.Subject(user_id=user), options=pb.RecommendOptions(**options)
    )


def content(answer: pb.RecommendResponse) -> pb.RecommendResponse:
    """An answer without what is new each time."""
    same = pb.RecommendResponse()
    same.CopyFrom(answer)
    same.ClearField("recommendation_id")
    same.ClearField("next_page_token")
    same.source.ClearField("server_time_us")
    return same


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"include_metadata": True, "include_reasons": True},
        {"filter": types_pb2.ItemFilter(genres_any=["Comedy"])},
        {"diversity": 0.5},
        {"model": "mf"},
        {"min_predicted_stars": 2.5},
    ],
)
async def test_a_kept_answer_is_the_one_that_is_computed(
    services: Any, options: dict[str, Any]
) -> None:
    """Item by item, with a cache and without; each has an id and pages of its own."""
    plain = await services.start_gateway(answer_memory=0)
    await services.until_full(plain)
    answers = []
    for gateway, calls in ((plain, 1), (services.gateway, 3)):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
            stub: Any = RecommenderServiceStub(channel)
            request = request_of("u7", **options)
            answers += [await stub.Recommend(request, timeout=5) for _ in range(calls)]
            batch = pb.BatchRecommendRequest(
                subjects=[types_pb2.Subject(user_id="u7")], options=pb.RecommendOptions(**options)
            )
            async for answer in stub.BatchRecommend(batch, timeout=5):
                assert list(answer.recommendations.items) == list(answers[0].items)
            nexts = []
            for answer in answers[-calls:]:
                if answer.next_page_token:
                    more = request_of("u7", **options)
                    more.page_token = answer.next_page_token
                    nexts.append(await stub.Recommend(more, timeout=5))
                    assert nexts[-1].recommendation_id == answer.recommendation_id
                    assert nexts[-1].items == nexts[0].items
    await plain.stop(0.5)
    hits = services.gateway.metrics.answers.labels("kept")._value.get()
    assert hits == 2
    assert all(content(answer) == content(answers[0]) for answer in answers)
    assert len({answer.recommendation_id for answer in answers}) == len(answers)


async def test_kept_answers_do_not_outlive_their_release(services: Any) -> None:
    """After a promotion the answer is the new release's."""
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        for _ in range(2):
            await stub.Recommend(request_of("u7"), timeout=5)
        second = await services.publish(1)
        await services.until_full()
        answer = await stub.Recommend(request_of("u7"), timeout=5)
        assert answer.source.release_id == second.release_id


async def test_no_kept_answer_hides_that_a_backend_is_away(services: Any) -> None:
    """As soon as its connection is gone, answers say so; and no degraded one is kept."""
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        whole = await stub.Recommend(request_of("u7"), timeout=5)
        await services.scoring["inference"].stop()
        for _ in range(2):
            assert (await stub.Recommend(request_of("u7"), timeout=5)).source.degraded
        await services.start_backend("inference", services.scoring["inference"].bound.port)
        await services.until_full()
        again = await stub.Recommend(request_of("u7"), timeout=5)
        assert content(again) == content(whole)


def answer_of(items: int, kind: types_pb2.SubjectKind.ValueType = KNOWN) -> pb.RecommendResponse:
    """An answer with so many items."""
    found = [pb.RecommendedItem(item_id=f"i{n}") for n in range(items)]
    return pb.RecommendResponse(recommendation_id="r", subject_kind=kind, items=found)


def test_the_bound_of_bytes_holds_and_the_longest_unused_goes_first() -> None:
    """What was asked for lately stays."""
    cache = AnswerCache(20_000)
    for user in range(100):
        cache.put("r", request_of(str(user)), answer_of(20), frozenset(), True)
        cache.get("r", request_key(request_of("0")))
    assert 5 < len(cache) < 100
    assert cache.get("r", request_key(request_of("0"))) is not None
    assert cache.get("r", request_key(request_of("99"))) is not None
    assert cache.get("r", request_key(request_of("1"))) is None


def test_only_first_pages_of_known_users_are_kept() -> None:
    """Visitors are too many and too different, and anybody could make them up."""
    cache = AnswerCache(20_000)
    cache.put("r", request_of("1"), answer_of(1, types_pb2.SUBJECT_KIND_VISITOR), frozenset(), True)
    further = request_of("2")
    further.page_token = "t"  # noqa: S105 - no secret
    cache.put("r", further, answer_of(1), frozenset(), True)
    degraded = answer_of(1)
    degraded.source.degraded = True
    cache.put("r", request_of("3"), degraded, frozenset(), True)
    assert len(cache) == 0
