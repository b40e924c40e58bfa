"""Invalid requests are refused with all violations in one error."""

from __future__ import annotations

import math
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from gateway.calls import TIMEOUT_S, Filter, Rating, Subject, error_of
from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import InvalidFields
from marquee_services.gateway import validation
from marquee_services.gateway.allowed_stars import AllowedStars


async def test_an_invalid_request_names_each_field(stub: Any) -> None:
    """The error lists every violation by the path of its field."""
    request = pb.RecommendRequest(
        subject=Subject(
            user_id="x" * 257,
            ratings=[Rating(item_id="i1", stars=float("nan")), Rating(item_id="i1", stars=3)],
        ),
        page_size=-1,
        options=pb.RecommendOptions(diversity=2, filter=Filter(genres_any=["a\0b"])),
    )
    code, reason, fields = await error_of(stub.Recommend(request, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(fields) == {
        "subject.user_id",
        "subject.ratings[0].stars",
        "subject.ratings[1]",
        "page_size",
        "options.diversity",
        "options.filter.genres_any[0]",
    }


@pytest.mark.parametrize(
    ("stars", "diversity", "message"),
    [
        (3.0, 1.5, "options.diversity: must be between 0 and 1, not 1.5"),
        (9.0, 0.0, "subject.ratings[0].stars: must be between 1 and 5, not 9"),
    ],
)
async def test_the_error_of_a_range_states_its_limits_and_the_value(
    stub: Any, stars: float, diversity: float, message: str
) -> None:
    """The caller does not need to look up the limits."""
    subject = Subject(ratings=[Rating(item_id="i1", stars=stars)])
    request = pb.RecommendRequest(subject=subject, options=pb.RecommendOptions(diversity=diversity))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Recommend(request, timeout=TIMEOUT_S)
    assert caught.value.details() == message


async def test_malformed_bytes_are_an_invalid_argument(channel: grpc.aio.Channel) -> None:
    """Malformed bytes get INVALID_ARGUMENT rather than INTERNAL, and the message has no field."""
    call: Any = channel.unary_unary("/marquee.v1.RecommenderService/Recommend")
    code, reason, _ = await error_of(call(b"\xff\xff\xff", timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff\xff", timeout=TIMEOUT_S)
    assert caught.value.details() == "the request cannot be parsed as a message of its type"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            pb.PredictRatingsRequest(
                subject=Subject(user_id="u7"), item_ids=[f"i{n}" for n in range(1001)]
            ),
            "item_ids: must have between 1 and 1000 entries, not 1001",
        ),
        (
            pb.PredictRatingsRequest(subject=Subject(user_id="u7")),
            "item_ids: must have between 1 and 1000 entries, not 0",
        ),
        (
            pb.RecommendRequest(subject=Subject(liked_item_ids=[f"i{n}" for n in range(101)])),
            "subject.liked_item_ids: must have at most 100 entries, not 101",
        ),
        (
            pb.RecommendRequest(subject=Subject(user_id="u7"), page_size=-1),
            "page_size: must be between 0 and 1000, not -1",
        ),
    ],
)
def test_a_wrong_number_of_entries_is_one_violation(request_: Message, message: str) -> None:
    """The message says that entries are counted."""
    with pytest.raises(InvalidFields) as raised:
        validation.validate(request_)
    assert str(raised.value) == message


def test_a_scale_without_an_upper_limit_is_described_by_its_lower_one() -> None:
    """The strength of an interaction has no upper limit."""
    plays = AllowedStars(0.0, math.inf)
    assert 1e9 in plays
    assert -1.0 not in plays
    assert math.nan not in plays
    assert str(plays) == "must be at least 0"
    assert str(AllowedStars(0.5, 5.0)) == "must be between 0.5 and 5"


@pytest.mark.parametrize("too_many", [False, True])
def test_the_ratings_of_a_batch_are_counted_even_if_they_are_as_small_as_possible(
    too_many: bool,
) -> None:
    """Small requests are not counted, but any with too many ratings is larger than that."""
    per_subject = validation.MAX_BATCH_RATINGS // 10
    batch = pb.BatchRecommendRequest()
    for _ in range(10):
        batch.subjects.add().liked_item_ids.extend([""] * per_subject)
    if not too_many:
        validation.validate(batch)
        return
    batch.subjects[0].liked_item_ids.append("")
    with pytest.raises(InvalidFields) as raised:
        validation.validate(batch)
    assert [violation.field for violation in raised.value.violations] == ["subjects"]
