"""Large requests are checked as bytes before they are parsed into messages."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.errors import InvalidFields
from marquee_services.gateway.request_limits import REQUEST_LIMITS
from marquee_services.server.admission.request_limits import ElementLimits, RequestLimits

BATCH = REQUEST_LIMITS["BatchRecommend"]
RECOMMEND = REQUEST_LIMITS["Recommend"]


def element(number: int, content: bytes = b"") -> bytes:
    """Return a field of bytes, whose length is a varint of four bytes."""
    size = len(content)
    varint = bytes(0x80 | size >> shift & 0x7F for shift in (0, 7, 14)) + bytes([size >> 21])
    return bytes([number << 3 | 2]) + varint + content


def empty(number: int, count: int) -> bytes:
    """Return so many empty elements of a field."""
    return bytes([number << 3 | 2, 0]) * count


RATINGS, LIKED, ALLOWED = 2, 3, 6
MANY = 2_000_000
# Requests of 4 MB that consist of elements only, and the field with too many of them.
TOO_MANY = {
    "subjects": (BATCH, empty(1, MANY)),
    "subjects[0].ratings": (BATCH, element(1, empty(RATINGS, MANY))),
    "subjects[0].liked_item_ids": (BATCH, element(1, empty(LIKED, MANY))),
    "subject.liked_item_ids": (RECOMMEND, element(1, empty(LIKED, MANY))),
    "options.filter.allowed_item_ids": (
        RECOMMEND,
        element(4, element(1, empty(ALLOWED, MANY))),
    ),
    # A repeated occurrence of a field is merged, so the parts count together.
    "subject.ratings": (RECOMMEND, element(1, empty(RATINGS, 900)) * 200),
    # Each subject is within its limit, but all of them together are not.
    "subjects[111]": (BATCH, element(1, empty(RATINGS, 900)) * 200),
    # Fields that no message has.
    "": (BATCH, bytes([15 << 3, 0]) * MANY),
}


@pytest.mark.parametrize("field", TOO_MANY)
async def test_the_field_with_too_many_elements_is_named(field: str) -> None:
    """The error names the field, and the bytes are not parsed."""
    limits, data = TOO_MANY[field]
    with pytest.raises(InvalidFields) as caught:
        await limits.check(data)
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_counting_elements_does_not_block_other_calls() -> None:
    """Counting the elements of a large valid request yields to other tasks repeatedly."""
    ratings = [types_pb2.Rating(item_id=str(n), stars=3) for n in range(10)]
    request = pb.BatchRecommendRequest(subjects=[types_pb2.Subject(ratings=ratings)] * 5_000)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(count_turns())
    await BATCH.check(request.SerializeToString())
    others.cancel()
    assert turns > 20


async def test_the_largest_valid_batch_passes() -> None:
    """10,000 subjects with 100,000 ratings and the largest filter are within the limits."""
    ratings = [types_pb2.Rating(item_id=f"item {n}", stars=3) for n in range(10)]
    many = [str(n) for n in range(10_000)]
    request = pb.BatchRecommendRequest(
        subjects=[types_pb2.Subject(ratings=ratings)] * 10_000,
        options=pb.RecommendOptions(
            filter=types_pb2.ItemFilter(allowed_item_ids=many, excluded_item_ids=many)
        ),
    )
    await BATCH.check(request.SerializeToString())


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=5))
def test_any_bytes_pass_or_are_refused(start: bytes, repeated: bytes) -> None:
    """Malformed bytes cause no error other than that of too many elements."""
    data = start + repeated * (20_000 // len(repeated))
    for limits in (BATCH, RECOMMEND):
        with suppress(InvalidFields):
            asyncio.run(limits.check(data))


async def test_the_size_of_a_lookup_is_limited() -> None:
    """A method that takes an id refuses a megabyte."""
    with pytest.raises(InvalidFields, match="1048576 bytes, but at most 16384"):
        await REQUEST_LIMITS["GetItem"].check(b"x" * 2**20)


async def test_limits_of_nested_fields_apply_to_each_element() -> None:
    """The limit of a field inside a repeated field applies to each element separately."""
    inner = ElementLimits("inner", most=2)
    limits = RequestLimits(fields={1: ElementLimits("outer", most=9_000, fields={1: inner})})
    two, three = element(1, b"\x0a\x00" * 2), element(1, b"\x0a\x00" * 3)
    await limits.check(two * 3_000)
    with pytest.raises(InvalidFields, match=r"outer\[3000\].inner"):
        await limits.check(two * 3_000 + three)
