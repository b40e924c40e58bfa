"""`client.feedback`: what it sends and returns, and that calls are safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import marquee
from marquee import FeedbackEvent, FeedbackKind
from marquee.testing import FakeGateway
from marquee.v1 import feedback_service_pb2 as pb

# A generous deadline in seconds, so that no result depends on the speed of the machine.
DEADLINE_S = 60.0


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway."""
    with FakeGateway() as fake:
        yield fake


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[marquee.Client]:
    """A client of the fake gateway."""
    with marquee.Client(gateway.address, timeout=DEADLINE_S) as opened:
        yield opened


def test_an_event_arrives_with_all_its_fields(client: marquee.Client, gateway: FakeGateway) -> None:
    """Fields that are not set stay unset."""
    when = datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC)
    events = [
        FeedbackEvent(
            user_id="u", item_id="i", kind=FeedbackKind.PLAY, share_watched=0.5, time=when
        ),
        FeedbackEvent(user_id="u", item_id="i", stars=0.0, recommendation_id="r", event_id="k"),
    ]
    gateway.on("RecordFeedback", pb.RecordFeedbackResponse(recorded_count=1, log_position=9))
    answer = client.feedback.record(events)
    assert (answer.recorded_count, answer.duplicate_count, answer.log_position) == (1, 0, 9)
    first, second = gateway.calls[0].request.events
    assert (first.kind, first.share_watched, first.event_id) == (
        pb.FEEDBACK_KIND_PLAY,
        0.5,
        events[0].event_id,
    )
    assert first.time.ToDatetime(UTC) == when
    assert not first.HasField("stars")
    assert (second.stars, second.HasField("stars")) == (0.0, True)
    assert (second.recommendation_id, second.event_id) == ("r", "k")
    assert not second.HasField("share_watched")


def test_each_event_has_its_own_key_and_time() -> None:
    """Two events are never mistaken for copies of each other."""
    events = [FeedbackEvent(user_id="u", item_id="i", stars=1) for _ in range(100)]
    assert len({event.event_id for event in events}) == 100
    assert all(event.time.utcoffset() is not None for event in events)


def test_a_time_without_a_time_zone_is_refused(
    client: marquee.Client, gateway: FakeGateway
) -> None:
    """A time without a time zone would be ambiguous, so nothing is sent."""
    event = FeedbackEvent(user_id="u", item_id="i", stars=1, time=datetime(2024, 1, 1))
    with pytest.raises(ValueError, match="time zone"):
        client.feedback.record([event])
    assert not gateway.calls


def failing_twice() -> Callable[[Any], Any]:
    """Return a behaviour that answers from the third attempt on."""
    errors = iter([marquee.Unavailable("restarting")] * 2)
    return lambda _request: next(errors, ())


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("RecordFeedback", lambda client: client.feedback.rate("42", {"1": 5})),
        ("DeleteFeedback", lambda client: client.feedback.delete("42", item_id="1")),
        ("ForgetUser", lambda client: client.feedback.forget("42")),
        ("ListFeedback", lambda client: client.feedback.events("42")),
    ],
)
async def test_every_call_is_retried_with_the_same_request(
    gateway: FakeGateway, method: str, call: Callable[[Any], Any]
) -> None:
    """The keys of the events are the same in each attempt, so none is recorded twice."""
    for client in (
        marquee.Client(gateway.address, timeout=DEADLINE_S),
        marquee.AsyncClient(gateway.address, timeout=DEADLINE_S),
    ):
        gateway.calls.clear()
        gateway.on(method, failing_twice())
        if isinstance(client, marquee.AsyncClient):
            async with client:
                await call(client)
        else:
            with client:
                call(client)
        assert [made.method for made in gateway.calls] == [method] * 3
        assert len({made.request.SerializeToString() for made in gateway.calls}) == 1


def test_an_unknown_kind_of_event_is_unspecified(
    client: marquee.Client, gateway: FakeGateway
) -> None:
    """An event whose kind the client does not know is still listed."""
    gateway.on(
        "ListFeedback",
        pb.ListFeedbackResponse(
            events=[pb.FeedbackEvent(user_id="u", item_id="i", kind=99)],  # type: ignore[arg-type]
            next_page_token="more",  # noqa: S106 - no secret
        ),
    )
    page = client.feedback.events("u")
    assert [event.kind for event in page] == [FeedbackKind.UNSPECIFIED]
    assert page.next_page_token == "more"  # noqa: S105 - no secret
