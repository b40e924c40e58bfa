"""The methods of `FeedbackService`: limits, errors, the administrator's token, lost databases."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

import marquee
from gateway.calls import TIMEOUT_S, error_of
from gateway.feedback.conftest import TOKEN, client_of, start_with_feedback
from marquee import FeedbackEvent, FeedbackKind, SubjectKind
from marquee.cli import main
from marquee.v1 import feedback_service_pb2 as pb
from marquee.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from marquee_services.gateway.gateway import Gateway
from toy.waiting import until


def wire_event(**changes: Any) -> pb.FeedbackEvent:
    """Return a valid rating with some fields changed; None clears a field."""
    fields = {"user_id": "u", "item_id": "i1", "event_id": "k", "kind": 1, "stars": 4.0, **changes}
    return pb.FeedbackEvent(**{name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 257}, "user_id"),
        ({"item_id": "a\0b"}, "item_id"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "k" * 129}, "event_id"),
        ({"recommendation_id": "r" * 65}, "recommendation_id"),
        ({"kind": 0, "stars": None}, "kind"),
        ({"kind": 77, "stars": None}, "kind"),
        ({"stars": None}, "stars"),
        ({"stars": 5.5}, "stars"),
        ({"stars": 0.5}, "stars"),
        ({"stars": float("nan")}, "stars"),
        ({"share_watched": 0.5}, "share_watched"),
        ({"kind": 2}, "stars"),
        ({"kind": 6, "stars": None}, "share_watched"),
        ({"kind": 6, "stars": None, "share_watched": 1.5}, "share_watched"),
        ({"time": Timestamp(seconds=-1)}, "time"),
        ({"time": Timestamp(seconds=1, nanos=-1)}, "time"),
    ],
)
async def test_an_invalid_event_is_refused(
    log_stub: Any, changes: dict[str, Any], field: str
) -> None:
    """The error names the field, and nothing of the batch is recorded."""
    events = [wire_event(event_id="ok"), wire_event(**changes)]
    request = pb.RecordFeedbackRequest(events=events)
    code, reason, fields = await error_of(log_stub.RecordFeedback(request, timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert fields == [f"events[1].{field}"]


async def test_the_error_for_stars_out_of_range_names_the_item(log_stub: Any) -> None:
    """A caller that records several ratings learns which one is invalid, and what is allowed."""
    request = pb.RecordFeedbackRequest(events=[wire_event(item_id="i5", stars=99)])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await log_stub.RecordFeedback(request, timeout=TIMEOUT_S)
    status = status_pb2.Status.FromString(
        dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    )
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert [violation.description for violation in bad_request.field_violations] == [
        "must be between 1 and 5, not 99 (item 'i5')"
    ]


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("RecordFeedback", pb.RecordFeedbackRequest(), "events"),
        ("RecordFeedback", pb.RecordFeedbackRequest(events=[wire_event()] * 1001), "events"),
        ("DeleteFeedback", pb.DeleteFeedbackRequest(user_id="u"), "event_id"),
        (
            "DeleteFeedback",
            pb.DeleteFeedbackRequest(user_id="u", event_id="a", item_id="b"),
            "event_id",
        ),
        ("ForgetUser", pb.ForgetUserRequest(), "user_id"),
        ("ListFeedback", pb.ListFeedbackRequest(), "user_id"),
        ("ListFeedback", pb.ListFeedbackRequest(user_id="u", page_size=1001), "page_size"),
    ],
)
async def test_an_invalid_request_is_refused(
    log_stub: Any, method: str, request_: Any, field: str
) -> None:
    """Limits apply to every method."""
    metadata = (("authorization", "Bearer token-of-the-administrator"),)
    call = getattr(log_stub, method)(request_, timeout=TIMEOUT_S, metadata=metadata)
    _, reason, fields = await error_of(call)
    assert (reason, fields) == ("INVALID_FIELD", [field])


@pytest.fixture
async def log_stub(services: Any, tmp_path: Path, token_file: Path) -> Any:
    """A stub for a gateway whose log is a SQLite file."""
    url = f"sqlite:///{tmp_path / 'log.sqlite'}"
    gateway = await start_with_feedback(services, url, admin_token_file=str(token_file))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        yield FeedbackServiceStub(channel)
    await gateway.stop(0.5)


async def test_events_are_listed_as_they_were_recorded(clients: list[Any]) -> None:
    """The most recent events come first, in pages, and times keep their microseconds."""
    start = datetime(2024, 2, 29, 12, 0, 0, 123_456, tzinfo=UTC)
    events = [
        FeedbackEvent(
            user_id="u",
            item_id=f"i{n}",
            stars=n / 2 + 1,
            time=start + timedelta(seconds=n),
            recommendation_id="r",
        )
        for n in range(5)
    ]
    first = await clients[0].feedback.record(events)
    again = await clients[1].feedback.record(events[:2])
    assert (first.recorded_count, again.duplicate_count) == (5, 2)
    found: list[FeedbackEvent] = []
    token = ""
    while True:
        page = await clients[1].feedback.events("u", page_size=2, page_token=token)
        found += page
        token = page.next_page_token
        if not token:
            break
    assert found == events[::-1]
    with pytest.raises(marquee.FailedPrecondition) as caught:
        await clients[0].feedback.events("other", page_token="x")  # noqa: S106 - no secret
    assert caught.value.reason == "PAGE_TOKEN_MISMATCH"


async def test_a_future_time_becomes_the_time_of_receipt(clients: list[Any]) -> None:
    """A fast clock of a caller gains no precedence."""
    client = clients[0]
    ahead = datetime.now(UTC) + timedelta(days=1)
    await client.feedback.record([FeedbackEvent(user_id="u", item_id="i1", stars=1.0, time=ahead)])
    (event,) = await client.feedback.events("u")
    assert event.time <= datetime.now(UTC)


async def test_reusing_a_key_for_another_event_is_refused(clients: list[Any]) -> None:
    """The error names the key, and does not claim that an event of the same call was recorded."""
    first = FeedbackEvent(user_id="u", item_id="i1", stars=4.0, event_id="key")
    other = FeedbackEvent(user_id="u", item_id="i1", stars=5.0, event_id="key")
    await clients[0].feedback.record([first])
    with pytest.raises(marquee.FailedPrecondition) as caught:
        await clients[1].feedback.record([other])
    assert (caught.value.reason, caught.value.metadata) == ("EVENT_ID_REUSED", {"event_id": "key"})
    pair = [dataclasses.replace(event, event_id="new") for event in (first, other)]
    with pytest.raises(marquee.FailedPrecondition, match="in the log or in the same call"):
        await clients[0].feedback.record(pair)
    assert [event.event_id for event in await clients[0].feedback.events("u")] == ["key"]


async def test_listing_and_forgetting_need_the_administrators_token(
    replicas: list[Gateway], services: Any, feedback_url: str
) -> None:
    """A missing or wrong token, and a gateway without an administrator's token, are refused."""
    without_token = await start_with_feedback(services, feedback_url)
    for gateway, token in ((replicas[0], None), (replicas[0], "wrong"), (without_token, "any")):
        async with client_of(gateway, token=token) as client:
            for call in (client.feedback.events("u"), client.feedback.forget("u")):
                with pytest.raises(marquee.PermissionDenied) as caught:
                    await call
                assert caught.value.reason == "ADMIN_REQUIRED"
    await without_token.stop(0.5)


async def test_a_gateway_without_a_log_refuses_feedback(services: Any) -> None:
    """The error explains why, and GetStatus reports no log."""
    async with client_of(services.gateway) as client:
        with pytest.raises(marquee.Unimplemented) as caught:
            await client.feedback.rate("u", {"i1": 4.0})
        assert caught.value.reason == "FEEDBACK_DISABLED"
        assert (await client.status()).feedback is None


async def test_recommendations_continue_while_the_database_is_down(
    services: Any, postgresql: Any
) -> None:
    """Recording is UNAVAILABLE, GetStatus reports since when, and both recover afterwards."""
    gateway = await start_with_feedback(services, postgresql.new_database(), feedback_timeout=2.0)
    async with client_of(gateway) as client:
        recorded = await client.feedback.rate("new", {"i1": 5.0, "i2": 1.0})
        await until(lambda: gateway.fresh.position >= recorded.log_position)
        before = await client.recommend("new")
        postgresql.kill()
        with pytest.raises(marquee.Unavailable) as caught:
            await client.feedback.rate("new", {"i3": 5.0})
        assert caught.value.reason == "FEEDBACK_UNAVAILABLE"
        state = (await client.status()).feedback
        while state is None or state.healthy:
            state = (await client.status()).feedback
        assert state.last_error
        assert state.last_error_at
        assert state.lag_seconds is not None
        during = await client.recommend("new", page_size=19)
        assert during.subject_kind is SubjectKind.VISITOR
        assert [i.item_id for i in during] == [i.item_id for i in before][:19]
        postgresql.start()
        recorded = await client.feedback.rate("new", {"i3": 5.0})
        await until(lambda: gateway.fresh.position >= recorded.log_position)
        state = (await client.status()).feedback
        assert state is not None
        assert state.healthy
        assert state.lag_seconds is not None
    await gateway.stop(0.5)


async def test_a_gateway_starts_while_the_database_is_down(services: Any, free_port: Any) -> None:
    """The gateway serves recommendations, and reports that it has never read the log."""
    url = f"postgresql://marquee@127.0.0.1:{free_port()}/none"
    gateway = await start_with_feedback(services, url, feedback_timeout=2.0)
    async with client_of(gateway) as client:
        assert (await client.recommend("u7")).subject_kind is SubjectKind.KNOWN
        state = (await client.status()).feedback
        assert state is not None
        assert (state.healthy, state.lag_seconds, state.log_position) == (False, None, 0)
    await gateway.stop(0.5)


async def test_a_locked_file_makes_recording_unavailable(services: Any, tmp_path: Path) -> None:
    """Another process holds SQLite's write lock for longer than a call waits."""
    path = tmp_path / "log.sqlite"
    gateway = await start_with_feedback(services, f"sqlite:///{path}", feedback_timeout=0.2)
    engine = create_engine(f"sqlite:///{path}")
    async with client_of(gateway) as client:
        with engine.connect() as connection:
            connection.execute(text("BEGIN IMMEDIATE"))
            with pytest.raises(marquee.Unavailable) as caught:
                await client.feedback.rate("u", {"i1": 4.0})
            assert caught.value.reason == "FEEDBACK_UNAVAILABLE"
            assert (await client.recommend("u7")).items
            connection.rollback()
        recorded = 0
        while not recorded:  # On a busy machine, an attempt may take longer than the timeout.
            event = FeedbackEvent(user_id="u", item_id="i1", kind=FeedbackKind.LIKE)
            with suppress(marquee.Unavailable):
                recorded = (await client.feedback.record([event])).recorded_count
        assert recorded == 1
    engine.dispose()
    await gateway.stop(0.5)


async def test_memory_and_lag_are_exported_as_metrics(
    replicas: list[Gateway], clients: list[Any]
) -> None:
    """The metrics equal the figures of GetStatus."""
    recorded = await clients[0].feedback.rate("u", {"i1": 4.0, "i2": 3.0})
    gateway = replicas[0]
    await until(lambda: gateway.fresh.position >= recorded.log_position)
    state = (await clients[0].status()).feedback
    assert state is not None
    registry = gateway.metrics.registry

    def value(name: str, labels: dict[str, str] | None = None) -> float:
        found = registry.get_sample_value(f"marquee_feedback_{name}", labels or {})
        assert found is not None
        return found

    assert value("log_position") == state.log_position == recorded.log_position
    assert value("users") == state.user_count == 1
    assert value("memory_bytes") == state.memory_bytes > 0
    assert value("evicted_users") == 0
    assert 0 <= value("lag_seconds") < TIMEOUT_S
    assert value("events_total", {"outcome": "recorded"}) == 2


async def test_the_command_line_records_and_lists_feedback(replicas: list[Gateway]) -> None:
    """`marquee rate` and `marquee feedback` work against a real gateway."""
    address = f"127.0.0.1:{replicas[0].bound.port}"
    options = ["--address", address, "--timeout", str(TIMEOUT_S), "--token", TOKEN]

    async def run(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, main, [*options, *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    assert await run("rate", "u7", "i1=5", "i2=3.5", "--like", "i7") == "3 recorded\n"
    listed = await run("feedback", "list", "u7")
    assert ("i1" in listed, "3.5" in listed, "like" in listed) == (True, True, True)
    assert await run("feedback", "delete", "u7", "--item", "i7") == "1 deleted\n"
    # The gateway, in this process, logs the forgetting to the same output.
    assert (await run("feedback", "forget", "u7", "--yes")).endswith("2 deleted\n")
    assert await run("feedback", "list", "u7") == "No events.\n"
    assert "feedback: healthy" in await run("status")


events = st.builds(
    pb.FeedbackEvent,
    user_id=st.text(max_size=5),
    item_id=st.text(max_size=5),
    kind=st.integers(-1, 9),
    stars=st.one_of(st.none(), st.floats(width=32)),
    share_watched=st.one_of(st.none(), st.floats(width=32)),
    time=st.one_of(
        st.none(),
        st.builds(
            Timestamp,
            seconds=st.one_of(st.integers(0, 10**10), st.integers(-(2**63), 2**63 - 1)),
            nanos=st.integers(-(2**31), 2**31 - 1),
        ),
    ),
    event_id=st.text(max_size=3),
    recommendation_id=st.text(max_size=70),
)
ANY_REQUEST: dict[str, st.SearchStrategy[Any]] = {
    "RecordFeedback": st.builds(pb.RecordFeedbackRequest, events=st.lists(events, max_size=3)),
    "DeleteFeedback": st.builds(
        pb.DeleteFeedbackRequest,
        user_id=st.text(max_size=5),
        event_id=st.text(max_size=3),
        item_id=st.text(max_size=3),
    ),
    "ForgetUser": st.builds(pb.ForgetUserRequest, user_id=st.text(max_size=5)),
    "ListFeedback": st.builds(
        pb.ListFeedbackRequest,
        user_id=st.text(max_size=5),
        page_size=st.integers(-(2**31), 2**31 - 1),
        page_token=st.text(max_size=20),
    ),
}


@pytest.mark.parametrize("method", ANY_REQUEST)
async def test_no_message_causes_an_internal_error(log_stub: Any, method: str) -> None:
    """Each method gets random messages, most of which are invalid."""
    drawn: list[Any] = []

    # Drawn before any call, because Hypothesis cannot run async tests.
    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(ANY_REQUEST[method])
    def draw(request: Any) -> None:
        drawn.append(request)

    draw()
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    for request in drawn:
        call = getattr(log_stub, method)(request, timeout=TIMEOUT_S, metadata=metadata)
        assert await call.code() in {
            grpc.StatusCode.OK,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.FAILED_PRECONDITION,
        }, request
