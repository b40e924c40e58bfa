"""Kept answers are those that would be given again."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.gateway.caching.answer_cache import AnswerCache
from marquee_services.gateway.caching.request_key import RequestKey

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
            (inside,) = [
                answer
                async for response in stub.BatchRecommend(batch, timeout=5)
                for answer in response.answers
            ]
            assert list(inside.recommendations.items) == list(answers[0].items)
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


def keep(cache: AnswerCache, user: str, response: pb.RecommendResponse) -> None:
    """Keeps an answer to a user."""
    cache.put("r", RequestKey.of(request_of(user)), response, frozenset(), True)


def kept(cache: AnswerCache, user: str) -> bool:
    """Whether an answer to a user is kept; if so, it was asked for."""
    return cache.get("r", RequestKey.of(request_of(user))) is not None


def test_the_bound_of_bytes_holds_and_the_longest_unused_goes_first() -> None:
    """What was asked for lately stays."""
    cache = AnswerCache(20_000)
    for user in range(100):
        keep(cache, str(user), answer_of(20))
        kept(cache, "0")
    assert 5 < len(cache) < 100
    assert kept(cache, "0")
    assert kept(cache, "99")
    assert not kept(cache, "1")


def test_an_answer_beyond_the_bound_is_not_kept() -> None:
    """Nor does it drive out the others; without a bound nothing is kept."""
    cache, none = AnswerCache(2_000), AnswerCache(0)
    keep(cache, "0", answer_of(20))
    keep(cache, "1", answer_of(1_000))
    keep(none, "0", answer_of(20))
    assert kept(cache, "0")
    assert not kept(cache, "1")
    assert not kept(none, "0")


def test_only_whole_answers_to_known_users_are_kept() -> None:
    """Visitors are too many and too different, and anybody could make them up."""
    cache = AnswerCache(20_000)
    keep(cache, "1", answer_of(1, types_pb2.SUBJECT_KIND_VISITOR))
    degraded = answer_of(1)
    degraded.source.degraded = True
    keep(cache, "3", degraded)
    assert len(cache) == 0


@pytest.mark.parametrize("token", ["", "next"])
def test_the_bytes_of_an_answer_are_those_of_its_message(token: str) -> None:
    """Read as a message, they are the answer with what is new in it."""
    whole = answer_of(3)
    whole.unknown_item_ids.append("x")
    whole.source.release_id = "r" * 200
    cache = AnswerCache(20_000)
    keep(cache, "1", whole)
    found = cache.get("r", RequestKey.of(request_of("1")))
    assert found is not None
    whole.recommendation_id, whole.next_page_token = "id", token
    for server_time_us in (0, 127, 128, 300_000):
        whole.source.server_time_us = server_time_us
        assert pb.RecommendResponse.FromString(found.response("id", token, server_time_us)) == whole
