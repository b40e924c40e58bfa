"""The gateway answers or refuses any input, and no input causes an internal error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.calls import TIMEOUT_S
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.gateway.caching.page_token import PageToken

SERVICE = "marquee.v1.RecommenderService"
ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}

ids = st.one_of(st.sampled_from(["u1", "i1", "i2", "i3", ""]), st.text(max_size=70))
numbers = st.floats(width=32)
sizes = st.one_of(st.integers(-2, 30), st.integers(-(2**31), 2**31 - 1))
tokens = st.one_of(st.just(""), st.text(max_size=30))
releases = st.one_of(st.just(""), ids)
models = st.sampled_from(["", "mf", "ease", "baseline", "popularity", "x"])
years = st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1))
genres = st.lists(st.one_of(st.sampled_from(["Comedy", "war"]), ids), max_size=2)
subjects = st.one_of(
    st.just(types_pb2.Subject(user_id="u1")),
    st.builds(
        types_pb2.Subject,
        user_id=ids,
        ratings=st.lists(st.builds(types_pb2.Rating, item_id=ids, stars=numbers), max_size=4),
        liked_item_ids=st.lists(ids, max_size=3),
    ),
)
filters = st.builds(
    types_pb2.ItemFilter,
    genres_any=genres,
    genres_all=genres,
    genres_none=genres,
    year_min=years,
    year_max=years,
    allowed_item_ids=st.lists(ids, max_size=3),
    excluded_item_ids=st.lists(ids, max_size=3),
)
options = st.builds(
    pb.RecommendOptions,
    filter=filters,
    include_seen=st.booleans(),
    min_predicted_stars=st.one_of(st.none(), numbers),
    diversity=st.one_of(st.just(0.0), st.floats(0, 1, width=32), numbers),
    release_id=releases,
    model=models,
    include_metadata=st.booleans(),
    include_reasons=st.booleans(),
)
REQUESTS: dict[str, st.SearchStrategy[Message]] = {
    "Recommend": st.builds(
        pb.RecommendRequest, subject=subjects, page_size=sizes, page_token=tokens, options=options
    ),
    "BatchRecommend": st.builds(
        pb.BatchRecommendRequest,
        subjects=st.lists(subjects, max_size=3),
        page_size=sizes,
        options=options,
    ),
    "PredictRatings": st.builds(
        pb.PredictRatingsRequest,
        subject=subjects,
        item_ids=st.one_of(st.just(["i1", "i2"]), st.lists(ids, max_size=4)),
        release_id=releases,
        model=models,
    ),
    "SimilarItems": st.builds(
        pb.SimilarItemsRequest,
        item_id=ids,
        page_size=sizes,
        filter=filters,
        release_id=releases,
        model=models,
        include_metadata=st.booleans(),
    ),
    "SearchItems": st.builds(
        pb.SearchItemsRequest,
        query=st.one_of(st.sampled_from(["film", "number 1"]), st.text(max_size=210)),
        page_size=sizes,
        page_token=tokens,
    ),
    "GetItem": st.builds(pb.GetItemRequest, item_id=ids),
    "GetStatus": st.builds(pb.GetStatusRequest),
}

VALID: dict[str, Message] = {
    "Recommend": pb.RecommendRequest(subject=types_pb2.Subject(user_id="u1")),
    "BatchRecommend": pb.BatchRecommendRequest(subjects=[types_pb2.Subject(user_id="u1")]),
    "PredictRatings": pb.PredictRatingsRequest(
        subject=types_pb2.Subject(user_id="u1"), item_ids=["i1"]
    ),
    "SimilarItems": pb.SimilarItemsRequest(item_id="i1"),
    "SearchItems": pb.SearchItemsRequest(query="film"),
    "GetItem": pb.GetItemRequest(item_id="i1"),
    "GetStatus": pb.GetStatusRequest(),
}


def drawn(strategy: st.SearchStrategy[bytes], count: int) -> list[bytes]:
    """Return serialised requests, drawn in advance because Hypothesis cannot run async tests."""
    found: list[bytes] = []

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(request: bytes) -> None:
        found.append(request)

    draw()
    return found


async def codes_of(channel: grpc.aio.Channel, method: str, request: bytes) -> set[grpc.StatusCode]:
    """Return the status code of a call, and those of the subjects of a batch."""
    path = f"/{SERVICE}/{method}"
    if method != "BatchRecommend":
        call: Any = channel.unary_unary(path)
        return {await call(request, timeout=TIMEOUT_S).code()}
    batch: Any = channel.unary_stream(
        path, response_deserializer=pb.BatchRecommendResponse.FromString
    )
    stream = batch(request, timeout=TIMEOUT_S)
    by_number = {code.value[0]: code for code in grpc.StatusCode}
    codes = set()
    try:
        async for response in stream:
            for answer in response.answers:
                if answer.HasField("error"):
                    codes.add(by_number[answer.error.code])
    except grpc.aio.AioRpcError:
        pass  # The code is read below.
    return codes | {await stream.code()}


@pytest.mark.parametrize("method", REQUESTS)
async def test_no_message_causes_an_internal_error(channel: grpc.aio.Channel, method: str) -> None:
    """Each method gets random messages, most of which are invalid, and finally a valid one."""
    requests = drawn(REQUESTS[method].map(lambda message: message.SerializeToString()), 200)
    requests.append(VALID[method].SerializeToString())
    codes = [await codes_of(channel, method, request) for request in requests]
    unexpected = [(r, c) for r, c in zip(requests, codes, strict=True) if not c <= ALLOWED]
    assert not unexpected
    assert codes[-1] == {grpc.StatusCode.OK}


@pytest.mark.parametrize("method", REQUESTS)
async def test_no_bytes_cause_an_internal_error(channel: grpc.aio.Channel, method: str) -> None:
    """Each method gets messages with bytes changed, truncated or added."""

    def damaged(message: Message, position: int, junk: bytes, cut: bool) -> bytes:
        whole = message.SerializeToString()
        position %= len(whole) + 1
        return whole[:position] + junk + (b"" if cut else whole[position + len(junk) :])

    strategy = st.builds(
        damaged,
        REQUESTS[method],
        st.integers(0, 10_000),
        st.binary(max_size=12),
        st.booleans(),
    )
    requests = drawn(strategy, 100)
    codes = [await codes_of(channel, method, request) for request in requests]
    unexpected = [(r, c) for r, c in zip(requests, codes, strict=True) if not c <= ALLOWED]
    assert not unexpected


@pytest.mark.parametrize("offset", [10**6, 2**31, 2**62])
async def test_a_page_token_with_a_huge_offset_is_refused(
    channel: grpc.aio.Channel, offset: int
) -> None:
    """Anyone can make a token with a valid checksum, but no list is longer than the catalogue."""
    stub = RecommenderServiceStub(channel)
    first: Any = pb.RecommendRequest(subject=types_pb2.Subject(user_id="u1"), page_size=2)
    search: Any = pb.SearchItemsRequest(query="film", page_size=2)
    for method, request in ((stub.Recommend, first), (stub.SearchItems, search)):
        page: Any = await method(request, timeout=TIMEOUT_S)
        token = PageToken.decode(page.next_page_token)
        request.page_token = replace(token, offset=offset).encode()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
