"""The answer cache: cached answers equal newly computed ones."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, request_for
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.gateway.caching.answer_cache import AnswerCache, CachedAnswer
from marquee_services.gateway.caching.request_key import RequestKey

KNOWN = types_pb2.SUBJECT_KIND_KNOWN


def content(answer: pb.RecommendResponse) -> pb.RecommendResponse:
    """Return an answer without its id, page token and timing, which differ each time."""
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
async def test_a_cached_answer_equals_the_computed_one(
    services: Any, options: dict[str, Any]
) -> None:
    """The items are equal, and each answer has its own id and pages."""
    plain = await services.start_gateway(answer_cache_mib=0)
    await services.until_full(plain)
    answers = []
    for gateway, calls in ((plain, 1), (services.gateway, 3)):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
            stub: Any = RecommenderServiceStub(channel)
            request = request_for("u7", **options)
            answers += [await stub.Recommend(request, timeout=TIMEOUT_S) for _ in range(calls)]
            batch = pb.BatchRecommendRequest(
                subjects=[types_pb2.Subject(user_id="u7")], options=pb.RecommendOptions(**options)
            )
            (inside,) = [
                answer
                async for response in stub.BatchRecommend(batch, timeout=TIMEOUT_S)
                for answer in response.answers
            ]
            assert list(inside.recommendations.items) == list(answers[0].items)
            nexts = []
            for answer in answers[-calls:]:
                if answer.next_page_token:
                    more = request_for("u7", **options)
                    more.page_token = answer.next_page_token
                    nexts.append(await stub.Recommend(more, timeout=TIMEOUT_S))
                    assert nexts[-1].recommendation_id == answer.recommendation_id
                    assert nexts[-1].items == nexts[0].items
    await plain.stop(0.5)
    hits = services.gateway.metrics.answers.labels("cached")._value.get()
    assert hits == 2
    assert all(content(answer) == content(answers[0]) for answer in answers)
    assert len({answer.recommendation_id for answer in answers}) == len(answers)


async def test_a_promotion_invalidates_cached_answers(services: Any) -> None:
    """After a promotion, the new release answers."""
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        # Computed, cached, and found by the bytes of the request.
        for _ in range(3):
            await stub.Recommend(request_for("u7"), timeout=TIMEOUT_S)
        second = await services.publish(1)
        await services.until_full()
        answer = await stub.Recommend(request_for("u7"), timeout=TIMEOUT_S)
        assert answer.source.release_id == second.release_id


async def test_cached_answers_are_not_used_while_a_backend_is_lost(services: Any) -> None:
    """Answers are degraded as soon as the connection is lost, and are not cached."""
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        for _ in range(3):
            whole = await stub.Recommend(request_for("u7"), timeout=TIMEOUT_S)
        await services.scoring["inference"].stop()
        for _ in range(2):
            assert (await stub.Recommend(request_for("u7"), timeout=TIMEOUT_S)).source.degraded
        await services.start_backend("inference", services.scoring["inference"].bound.port)
        await services.until_full()
        again = await stub.Recommend(request_for("u7"), timeout=TIMEOUT_S)
        assert content(again) == content(whole)


def answer_of(items: int, kind: types_pb2.SubjectKind.ValueType = KNOWN) -> pb.RecommendResponse:
    """Return an answer with the given number of items."""
    found = [pb.RecommendedItem(item_id=f"i{n}") for n in range(items)]
    return pb.RecommendResponse(recommendation_id="r", subject_kind=kind, items=found)


def put(cache: AnswerCache, user: str, response: pb.RecommendResponse) -> None:
    """Cache an answer to a user."""
    body, source = pb.RecommendResponse(), response.source
    body.CopyFrom(response)
    for field in ("recommendation_id", "next_page_token", "source"):
        body.ClearField(field)
    answer = CachedAnswer(body.SerializeToString(), source.SerializeToString(), (), True)
    key = RequestKey.of(request_for(user))
    cache.put("r", key, answer, response.subject_kind, source.degraded)


def is_cached(cache: AnswerCache, user: str) -> bool:
    """Return whether an answer to a user is cached, which counts as a use of the answer."""
    return cache.get("r", RequestKey.of(request_for(user))) is not None


def test_the_least_recently_used_answer_is_evicted() -> None:
    """The size stays below the limit, and recently used answers are kept."""
    cache = AnswerCache(20_000)
    for user in range(100):
        put(cache, str(user), answer_of(20))
        is_cached(cache, "0")
    assert 5 < len(cache) < 100
    assert is_cached(cache, "0")
    assert is_cached(cache, "99")
    assert not is_cached(cache, "1")


def test_an_answer_larger_than_the_cache_is_not_cached() -> None:
    """Other answers are not evicted for it either, and a cache of size 0 stores nothing."""
    cache, none = AnswerCache(2_000), AnswerCache(0)
    put(cache, "0", answer_of(20))
    put(cache, "1", answer_of(1_000))
    put(none, "0", answer_of(20))
    assert is_cached(cache, "0")
    assert not is_cached(cache, "1")
    assert not is_cached(none, "0")


def test_only_complete_answers_to_known_users_are_cached() -> None:
    """Requests of visitors rarely repeat, and anyone could fill the cache with them."""
    cache = AnswerCache(20_000)
    put(cache, "1", answer_of(1, types_pb2.SUBJECT_KIND_VISITOR))
    degraded = answer_of(1)
    degraded.source.degraded = True
    put(cache, "3", degraded)
    assert len(cache) == 0


@pytest.mark.parametrize("token", ["", "next"])
def test_a_cached_answer_serialises_like_its_message(token: str) -> None:
    """The bytes parse as the answer with the new id, token and timing."""
    whole = answer_of(3)
    whole.unknown_item_ids.append("x")
    whole.source.release_id = "r" * 200
    cache = AnswerCache(20_000)
    put(cache, "1", whole)
    found = cache.get("r", RequestKey.of(request_for("1")))
    assert found is not None
    whole.recommendation_id, whole.next_page_token = "id", token
    for server_time_us in (0, 127, 128, 300_000):
        whole.source.server_time_us = server_time_us
        assert pb.RecommendResponse.FromString(found.response("id", token, server_time_us)) == whole
