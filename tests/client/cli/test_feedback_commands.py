"""`marquee rate` and `marquee feedback` against a fake gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result
from google.protobuf.timestamp_pb2 import Timestamp

import marquee
from marquee.cli import main
from marquee.testing import FakeGateway
from marquee.v1 import feedback_service_pb2 as pb
from marquee.v1 import recommender_service_pb2

Run: TypeAlias = Callable[..., Result]


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway."""
    with FakeGateway() as fake:
        yield fake


@pytest.fixture
def run(gateway: FakeGateway) -> Run:
    """Run `marquee` in this process against the fake gateway."""

    def invoke(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(
            main,
            ["--timeout", "60", *arguments],
            env={"MARQUEE_ADDRESS": gateway.address},
            **options,
        )

    return invoke


def test_rate_records_ratings_likes_and_dislikes(run: Run, gateway: FakeGateway) -> None:
    """All events are recorded in one call, and the output says how many are new."""
    gateway.on("RecordFeedback", pb.RecordFeedbackResponse(recorded_count=3, duplicate_count=1))
    result = run("rate", "42", "50=5", "a=b=3.5", "--like", "7", "--dislike", "8", "--list", "r")
    assert result.output == "3 recorded, 1 already recorded\n"
    (call,) = gateway.calls
    assert [
        (e.user_id, e.item_id, e.kind, e.stars, e.recommendation_id) for e in call.request.events
    ] == [
        ("42", "50", pb.FEEDBACK_KIND_RATING, 5.0, "r"),
        ("42", "a=b", pb.FEEDBACK_KIND_RATING, 3.5, "r"),
        ("42", "7", pb.FEEDBACK_KIND_LIKE, 0.0, "r"),
        ("42", "8", pb.FEEDBACK_KIND_DISLIKE, 0.0, "r"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("rate", "42"),
        ("rate", "42", "50"),
        ("rate", "42", "50=five"),
        ("feedback", "delete", "42"),
        ("feedback", "delete", "42", "--item", "1", "--event", "2"),
    ],
)
def test_usage_errors_send_nothing(
    run: Run, gateway: FakeGateway, arguments: tuple[str, ...]
) -> None:
    """Invalid options exit with the usage error code before any call."""
    assert run(*arguments).exit_code == 2
    assert not gateway.calls


def test_list_prints_events_as_a_table_and_as_json(run: Run, gateway: FakeGateway) -> None:
    """Events are printed as a table, or as JSON with the field names of the client."""
    event = pb.FeedbackEvent(
        user_id="42",
        item_id="50",
        kind=pb.FEEDBACK_KIND_RATING,
        stars=4.5,
        time=Timestamp(seconds=1_700_000_000),
        event_id="key",
    )
    gateway.on("ListFeedback", pb.ListFeedbackResponse(events=[event], next_page_token="more"))  # noqa: S106
    shown = run("feedback", "list", "42").output
    assert "2023-11-14T22:13:20+00:00" in shown
    assert "rating" in shown
    assert "4.5" in shown
    assert shown.endswith("next page: --page-token more\n")
    found = json.loads(run("feedback", "list", "42", "--json").output)
    assert found["items"][0]["kind"] == "RATING"
    assert found["items"][0]["time"] == "2023-11-14T22:13:20+00:00"
    gateway.on("ListFeedback", pb.ListFeedbackResponse())
    assert run("feedback", "list", "42").output == "No events.\n"


def test_forget_asks_for_confirmation(run: Run, gateway: FakeGateway) -> None:
    """Nothing is sent unless the user confirms."""
    gateway.on("ForgetUser", pb.ForgetUserResponse(deleted_count=3))
    assert run("feedback", "forget", "42", input="n\n").exit_code == 1
    assert not gateway.calls
    assert run("feedback", "forget", "42", input="y\n").output.endswith("3 deleted\n")
    assert run("feedback", "forget", "42", "--yes").output == "3 deleted\n"


def test_a_missing_token_exits_as_unauthenticated(run: Run, gateway: FakeGateway) -> None:
    """The exit code is that of other commands that lack a token."""
    gateway.on("ListFeedback", marquee.PermissionDenied("no", reason="ADMIN_REQUIRED"))
    result = run("feedback", "list", "42")
    assert result.exit_code == 6
    assert "ADMIN_REQUIRED" in result.stderr


def test_status_shows_the_feedback_log(run: Run, gateway: FakeGateway) -> None:
    """The status shows how far the log lags behind, and its last error."""
    state = recommender_service_pb2.FeedbackStatus(
        healthy=False, log_position=1234, lag_seconds=2.5, user_count=7, last_error="refused"
    )
    gateway.on("GetStatus", recommender_service_pb2.GetStatusResponse(feedback=state))
    shown = run("status").output
    assert "feedback: UNHEALTHY, 2.5 s behind, position 1,234, 7 users in memory; refused" in shown
