"""The client's commands, run in this process and in a subprocess, against a fake gateway."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

import marquee
from marquee.cli import main
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2

Run: TypeAlias = Callable[..., Result]

# Generous limits in seconds, so that no result depends on the speed of the machine: the deadline
# of a call, and how long to wait for another process.
DEADLINE_S = 60.0
WAIT_S = 120.0

STAR_WARS = types_pb2.Item(
    item_id="50",
    title="Star Wars",
    year=1977,
    genres=["Action", "Sci-Fi"],
    rating_count=1583,
    mean_stars=4.25,
)
SOURCE = types_pb2.AnswerSource(
    release_id="20260101T000000Z",
    models=[types_pb2.ModelWeight(model="item_cf", version="abc", ranking_weight=0.75)],
    server_time_us=1500,
)
RECOMMENDED = pb.RecommendedItem(
    item_id="50",
    rank=1,
    score=1.5,
    predicted_stars=4.5,
    proposed_by=["item_cf", "mf"],
    metadata=STAR_WARS,
    reasons=[
        pb.Reason(
            model_share=pb.Reason.ModelShare(
                model="mf",
                output=4,
                contribution=1.5,
                decomposition=pb.Reason.DECOMPOSITION_OPAQUE,
            )
        ),
        pb.Reason(
            model_share=pb.Reason.ModelShare(
                model="ease",
                output=0.5,
                contribution=1,
                decomposition=pb.Reason.DECOMPOSITION_RATED_ITEMS,
                explained=0.75,
            )
        ),
        pb.Reason(
            rated_item=pb.Reason.RatedItem(
                item_id="172",
                title="Alien",
                stars=5,
                similarity=0.5,
                contribution=0.25,
                model="ease",
                score_contribution=0.5,
            )
        ),
        pb.Reason(
            similar_users=pb.Reason.SimilarUsers(
                count=9,
                mean_stars=4.5,
                contribution=-0.5,
                model="user_cf",
                score_contribution=-0.25,
            )
        ),
    ],
)
STATUS = pb.GetStatusResponse(
    release=pb.ReleaseStatus(
        release_id="20260101T000000Z",
        published_at="2026-01-01T00:00:00Z",
        data_source="sample(seed=0)",
        user_count=943,
        item_count=1682,
        rating_count=80000,
        models=[
            pb.ModelStatus(weight=SOURCE.models[0], backend="cf", metrics={"test_mse": 0.8412})
        ],
        ensemble_metrics={"test_mse": 0.8123, "ndcg@10": 0.2},
        evaluation=pb.ReleaseStatus.Evaluation(
            split="random 80/20", training_ratings=64000, test_ratings=16000
        ),
        refitted=True,
    ),
    loaded_release_ids=["20260101T000000Z"],
    backends=[
        pb.BackendStatus(backend="cf", target="localhost:1", healthy=True),
        pb.BackendStatus(
            backend="inference", target="localhost:2", last_error="refused", last_error_at="today"
        ),
    ],
    server_version="0.1.0",
    pending_release_reason="inference has not loaded it",
)


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway that answers some of the calls."""
    with FakeGateway() as fake:
        fake.on("Recommend", pb.RecommendResponse(items=[RECOMMENDED], source=SOURCE))
        fake.on("GetStatus", STATUS)
        fake.on("GetItem", pb.GetItemResponse(item=STAR_WARS))
        fake.on("SearchItems", pb.SearchItemsResponse(items=[STAR_WARS], release_id="r1"))
        yield fake


@pytest.fixture
def run(gateway: FakeGateway) -> Run:
    """Run `marquee` in this process against the fake gateway."""

    def invoke(*arguments: str, **options: Any) -> Result:
        # A --timeout given by a test comes later and takes precedence.
        return invoke_main(gateway, "--timeout", str(DEADLINE_S), *arguments, **options)

    return invoke


def invoke_main(gateway: FakeGateway, *arguments: str, **options: Any) -> Result:
    """Run `marquee` in this process against a gateway, with the default deadlines."""
    return CliRunner().invoke(main, arguments, env={"MARQUEE_ADDRESS": gateway.address}, **options)


def squeezed(line: str) -> str:
    """Reduce every run of spaces in a line to one space."""
    return " ".join(line.split())


def test_recommend_prints_titles(run: Run) -> None:
    """A row shows rank, id, title, year, genres, stars and score; the footer names the release."""
    result = run("recommend", "--user", "42")
    assert result.exit_code == 0, result.output
    header, _, row = result.stdout.splitlines()[:3]
    assert squeezed(header) == "# item title year genres stars score proposed by"
    assert squeezed(row) == "1 50 Star Wars 1977 Action, Sci-Fi 4.50 1.500 item_cf, mf"
    assert "release: 20260101T000000Z, in 1.5 ms" in result.stdout
    assert "models: item_cf 0.75" in result.stdout
    assert "DEGRADED" not in result.stdout


def test_recommend_sends_every_option(run: Run, gateway: FakeGateway) -> None:
    """Each option of the command sets its field of the request."""
    arguments = """
        recommend --user 42 --rate 1=5 --rate a=b=0.5 --like 3 --limit 7 --page-token t
        --genre Drama --genre Comedy --genre-all War --genre-none Horror --year-min 1990
        --year-max 1999 --only 8 --only 9 --exclude 10 --include-seen --min-stars 3.5
        --diversity 0.25 --model item_cf --release r1 --reasons
    """
    result = run(*arguments.split())
    assert result.exit_code == 0, result.output
    assert gateway.calls[0].request == pb.RecommendRequest(
        subject=types_pb2.Subject(
            user_id="42",
            ratings=[
                types_pb2.Rating(item_id="1", stars=5),
                types_pb2.Rating(item_id="a=b", stars=0.5),
            ],
            liked_item_ids=["3"],
        ),
        page_size=7,
        page_token="t",  # noqa: S106 - no secret
        options=pb.RecommendOptions(
            filter=types_pb2.ItemFilter(
                genres_any=["Drama", "Comedy"],
                genres_all=["War"],
                genres_none=["Horror"],
                year_min=1990,
                year_max=1999,
                allowed_item_ids=["8", "9"],
                excluded_item_ids=["10"],
            ),
            include_seen=True,
            min_predicted_stars=3.5,
            diversity=0.25,
            release_id="r1",
            model="item_cf",
            include_metadata=True,
            include_reasons=True,
        ),
    )


def test_reasons_are_printed_in_words(run: Run) -> None:
    """Each reason is printed on its own line below the title of the item."""
    lines = run("recommend", "--user", "42", "--reasons").stdout.splitlines()
    start = lines.index("#1 Star Wars")
    assert [line.strip() for line in lines[start + 1 : start + 5]] == [
        "+1.500 by mf (output 4.000), which cannot be decomposed",
        "+1.000 by ease (output 0.500), of which +0.750 by rated items",
        "+0.500 by ease: the user gave Alien 5 stars (similarity 0.50)",
        "-0.250 by user_cf: 9 similar users gave it 4.50 stars",
    ]


def test_reasons_of_older_servers_are_printed_as_stars(run: Run, gateway: FakeGateway) -> None:
    """Reasons without a model name contribute stars to item CF and user CF."""
    rated = pb.Reason.RatedItem(
        item_id="172", title="Alien", stars=1, similarity=0.5, contribution=0.25
    )
    users = pb.Reason.SimilarUsers(count=9, mean_stars=4.5, contribution=-0.5)
    shares = pb.Reason.ModelShare(model="mf", output=4, contribution=1.5)
    reasons = [
        pb.Reason(model_share=shares),
        pb.Reason(rated_item=rated),
        pb.Reason(similar_users=users),
    ]
    item = pb.RecommendedItem(item_id="50", rank=1, reasons=reasons)
    gateway.on("Recommend", pb.RecommendResponse(items=[item]))
    lines = run("recommend", "--user", "42", "--reasons").stdout.splitlines()
    start = lines.index("#1 50")
    assert [line.strip() for line in lines[start + 1 : start + 4]] == [
        "+1.500 by mf (output 4.000)",
        "+0.250 stars in item CF: the user gave Alien 1 star (similarity 0.50)",
        "-0.500 stars in user CF: 9 similar users gave it 4.50 stars",
    ]


def test_a_degraded_answer_is_marked(run: Run, gateway: FakeGateway) -> None:
    """The footer shows why an answer is degraded, which models abstained and what was ignored."""
    source = types_pb2.AnswerSource(
        degraded=True,
        degraded_reasons=[types_pb2.DEGRADED_REASON_INFERENCE_UNAVAILABLE],
        abstaining_models=["mf"],
    )
    gateway.on(
        "Recommend",
        pb.RecommendResponse(
            source=source,
            subject_kind=types_pb2.SUBJECT_KIND_COLD_START,
            unknown_item_ids=["x"],
            next_page_token="more",  # noqa: S106 - no secret
        ),
    )
    output = run("recommend", "--user", "42").stdout
    assert "DEGRADED: inference did not answer" in output
    assert "subject: cold start" in output
    assert "abstaining: mf" in output
    assert "unknown items, ignored: x" in output
    assert "next page: --page-token more" in output
    assert "No items match." in output


@pytest.mark.parametrize("flag", ["--genre", "--genre-all", "--genre-none"])
def test_unknown_genres_in_a_filter_are_reported(flag: str, run: Run, gateway: FakeGateway) -> None:
    """Unknown genres are listed along with the available ones, and letter case is ignored."""
    gateway.on("Recommend", pb.RecommendResponse(source=SOURCE))
    status = pb.GetStatusResponse(release=pb.ReleaseStatus(genres=["Comedy", "Sci-Fi"]))
    gateway.on("GetStatus", status)
    output = run("recommend", "--user", "42", flag, "Comdy", flag, "sci-fi").stdout
    assert "No items match." in output
    assert output.splitlines()[-1] == "unknown genres: Comdy; known genres: Comedy, Sci-Fi"
    assert "unknown genres" not in run("recommend", "--user", "42", flag, "COMEDY").stdout
    assert "genres:" not in run("recommend", "--user", "42", flag, "Comdy", "--json").stdout


def test_genres_are_not_checked_without_a_list(run: Run, gateway: FakeGateway) -> None:
    """Genres are not checked if the gateway is older or refuses to report its status."""
    gateway.on("GetStatus", pb.GetStatusResponse(release=pb.ReleaseStatus()))
    assert "unknown" not in run("recommend", "--user", "42", "--genre", "x").stdout
    gateway.on("GetStatus", marquee.PermissionDenied("no"))
    result = run("recommend", "--user", "42", "--genre", "x")
    assert result.exit_code == 0
    assert "unknown" not in result.stdout


def _batch(request: pb.BatchRecommendRequest) -> Iterator[pb.BatchRecommendResponse]:
    """Return recommendations for every user except `bad`, which gets an error."""
    for index, subject in enumerate(request.subjects):
        if subject.user_id == "bad":
            error = pb.BatchRecommendResponse.SubjectError(
                code=9, message="cannot", reason="MODEL_ABSTAINS"
            )
            answer = pb.BatchRecommendResponse.SubjectAnswer(subject_index=index, error=error)
        else:
            good = pb.BatchRecommendResponse.Recommendations(items=[RECOMMENDED], source=SOURCE)
            answer = pb.BatchRecommendResponse.SubjectAnswer(
                subject_index=index, recommendations=good
            )
        yield pb.BatchRecommendResponse(answers=[answer])


def test_batch_takes_users_from_arguments_and_standard_input(
    run: Run, gateway: FakeGateway
) -> None:
    """All users are sent in one call, and blank lines of the file are skipped."""
    gateway.on("BatchRecommend", _batch)
    result = run("batch", "1", "2", "--file", "-", input="3\n\n 4 \n")
    assert result.exit_code == 0, result.output
    (call,) = gateway.calls
    assert [subject.user_id for subject in call.request.subjects] == ["1", "2", "3", "4"]
    for user in "1234":
        assert f"user {user}\n\n#  item" in result.stdout


def test_a_partly_failed_batch_has_its_own_exit_code(run: Run, gateway: FakeGateway) -> None:
    """Answers are printed to stdout, and failed subjects to stderr."""
    gateway.on("BatchRecommend", _batch)
    result = run("batch", "bad", "2")
    assert result.exit_code == 10
    assert "user 2\n" in result.stdout
    assert result.stderr == "user bad: MODEL_ABSTAINS: cannot\n"


def test_batch_json_has_one_line_per_answer(run: Run, gateway: FakeGateway) -> None:
    """With `--json`, each answer is one line, including failed ones."""
    gateway.on("BatchRecommend", _batch)
    result = run("batch", "bad", "2", "--json")
    assert result.exit_code == 10
    failed, good = map(json.loads, result.stdout.splitlines())
    assert failed["error"] == {
        "code": "FAILED_PRECONDITION",
        "reason": "MODEL_ABSTAINS",
        "message": "cannot",
    }
    assert (failed["subject"]["user_id"], failed["recommendations"]) == ("bad", None)
    assert good["recommendations"]["items"][0]["metadata"]["title"] == "Star Wars"


def test_batch_without_users_is_a_usage_error(run: Run) -> None:
    """`batch` needs at least one user."""
    assert run("batch").exit_code == 2


def test_predict_keeps_the_order_of_its_arguments(run: Run, gateway: FakeGateway) -> None:
    """Predictions are printed in the order of the arguments; unknown items are marked."""
    predictions = [pb.PredictedRating(item_id="9", stars=3.5), pb.PredictedRating(item_id="x")]
    gateway.on("PredictRatings", pb.PredictRatingsResponse(predictions=predictions, source=SOURCE))
    result = run("predict", "--user", "42", "--rate", "1=4", "9", "x")
    assert result.exit_code == 0, result.output
    assert gateway.calls[0].request == pb.PredictRatingsRequest(
        subject=types_pb2.Subject(user_id="42", ratings=[types_pb2.Rating(item_id="1", stars=4)]),
        item_ids=["9", "x"],
    )
    rows = [line.split() for line in result.stdout.splitlines()[2:4]]
    assert rows == [["9", "3.50"], ["x", "unknown"]]


def test_lists_and_stars_show_their_own_weights(run: Run, gateway: FakeGateway) -> None:
    """Predicted stars are shown with rating weights, lists with ranking weights, without zeros."""
    source = types_pb2.AnswerSource(
        models=[
            types_pb2.ModelWeight(model="mf", ranking_weight=0.25, rating_weight=0.5),
            types_pb2.ModelWeight(model="ease", ranking_weight=2),
        ]
    )
    gateway.on("PredictRatings", pb.PredictRatingsResponse(source=source))
    gateway.on("Recommend", pb.RecommendResponse(source=source))
    assert "models: mf 0.5\n" in run("predict", "--user", "42", "9").stdout
    assert "models: mf 0.25, ease 2\n" in run("recommend", "--user", "42").stdout


def test_negligible_shares_are_not_printed(run: Run, gateway: FakeGateway) -> None:
    """A share that would be printed as +0.000 is omitted."""
    reasons = [
        pb.Reason(model_share=pb.Reason.ModelShare(model=model, contribution=amount))
        for model, amount in (("intercept", 0.0), ("mf", -0.0004), ("ease", -0.5))
    ]
    item = pb.RecommendedItem(item_id="50", rank=1, reasons=reasons)
    gateway.on("Recommend", pb.RecommendResponse(items=[item], source=SOURCE))
    output = run("recommend", "--user", "42", "--reasons").stdout
    assert "-0.500 by ease" in output
    assert "0.000 by" not in output
    assert "intercept" not in output


@pytest.mark.parametrize("command", [("recommend",), ("predict", "50")])
def test_a_request_without_a_subject_is_a_usage_error(
    run: Run, gateway: FakeGateway, command: tuple[str, ...]
) -> None:
    """The error names the options rather than the request fields, and nothing is sent."""
    result = run(*command)
    assert result.exit_code == 2
    assert "give at least one of --user, --rate and --like" in result.stderr
    assert not gateway.calls


def test_an_item_rated_twice_is_sent_once_as_the_latest(run: Run, gateway: FakeGateway) -> None:
    """Ratings are sent in the order given, and a repeated item moves to the end."""
    gateway.on("Recommend", pb.RecommendResponse(source=SOURCE))
    run("recommend", "--rate", "50=5", "--rate", "18=4", "--rate", "50=3")
    assert gateway.calls[0].request.subject.ratings == [
        types_pb2.Rating(item_id="18", stars=4),
        types_pb2.Rating(item_id="50", stars=3),
    ]


def test_similar_prints_titles(run: Run, gateway: FakeGateway) -> None:
    """The item, the limit and the filter are sent, and titles are printed."""
    similar = pb.SimilarItem(item_id="50", rank=1, similarity=0.5, metadata=STAR_WARS)
    gateway.on("SimilarItems", pb.SimilarItemsResponse(items=[similar], source=SOURCE))
    result = run("similar", "--item", "172", "--limit", "3", "--genre", "Action")
    assert result.exit_code == 0, result.output
    assert gateway.calls[0].request == pb.SimilarItemsRequest(
        item_id="172",
        page_size=3,
        filter=types_pb2.ItemFilter(genres_any=["Action"]),
        include_metadata=True,
    )
    assert "Star Wars" in result.stdout
    assert "0.500" in result.stdout


def test_search_joins_its_arguments(run: Run, gateway: FakeGateway) -> None:
    """Several arguments are joined into one query."""
    result = run("search", "star", "wars")
    assert gateway.calls[0].request == pb.SearchItemsRequest(query="star wars", page_size=10)
    assert "1,583" in result.stdout
    gateway.on("SearchItems", pb.SearchItemsResponse())
    assert "Nothing found." in run("search", "xyz").stdout


def test_item_prints_its_statistics(run: Run) -> None:
    """An item is printed with the number and the mean of its ratings."""
    row = run("item", "50").stdout.splitlines()[2]
    assert squeezed(row) == "50 Star Wars 1977 Action, Sci-Fi 1,583 4.25"


def test_status_lists_gate_checks_that_did_not_pass(run: Run, gateway: FakeGateway) -> None:
    """Checks that passed are shown only with --json."""
    kinds = (("ranking", "promote", "is better"), ("overlap", "ask", "3 % of the items stay"))
    checks = [pb.GateVerdict.Check(name=n, decision=d, text=t) for n, d, t in kinds]
    verdict = pb.GateVerdict(decision="ask", compared_release_id="r0", checks=checks)
    release = pb.ReleaseStatus(release_id="r1", gate=verdict)
    gateway.on("GetStatus", pb.GetStatusResponse(release=release))
    output = run("status").stdout
    assert "gate: ask, compared with r0\n  overlap: 3 % of the items stay\n" in output
    assert "is better" not in output


def test_status_shows_release_models_and_backends(run: Run, gateway: FakeGateway) -> None:
    """The status shows the release, its models' metrics, and the last error of each backend."""
    output = run("status").stdout
    assert "The promoted release is not in service: inference has not loaded it" in output
    assert "80,000 ratings by 943 users of 1,682 items, from sample(seed=0)" in output
    assert (
        "measured by random 80/20: trained on 64,000, tested on 16,000 ratings; "
        "serves models refitted on all ratings"
    ) in output
    rows = [line.split() for line in output.splitlines()]
    assert ["item_cf", "abc", "cf", "0.750", "0.000", "0.8412"] in rows
    assert ["ensemble", "gateway", "0.8123", "0.2000"] in rows
    assert ["inference", "localhost:2", "UNHEALTHY", "0"] in rows
    assert "\n\nlast error of inference: refused (today)\n" in output
    text = (
        "UNAVAILABLE: failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:2: "
        "Failed to connect to remote host: connect: Connection refused (111)"
    )
    backend = pb.BackendStatus(backend="cf", target="localhost:2", last_error=text)
    gateway.on("GetStatus", pb.GetStatusResponse(backends=[backend]))
    assert "\nlast error of cf: Connection refused (111)\n" in run("status").stdout
    gateway.on("GetStatus", pb.GetStatusResponse())
    assert "No release is in service." in run("status").stdout
    reason = "no release has been promoted"
    gateway.on("GetStatus", pb.GetStatusResponse(pending_release_reason=reason))
    assert f"No release is in service: {reason}\n" in run("status").stdout


def test_answers_and_status_show_experiments(run: Run, gateway: FakeGateway) -> None:
    """An answer names its arm, and the status lists the arms and which of them cannot answer."""
    source = types_pb2.AnswerSource(release_id="r1", experiment="launch", arm="calm")
    gateway.on("Recommend", pb.RecommendResponse(source=source))
    assert "experiment: launch, arm calm" in run("recommend", "--user", "42").stdout
    Arm = pb.ExperimentStatus.Arm
    arms = [
        Arm(arm="control", release_id="r1", percent=90.0),
        Arm(
            arm="calm",
            release_id="r1",
            percent=10.0,
            ranking_weights={"ease": 0.5},
            unavailable_reason="cf has not loaded r1 yet",
        ),
    ]
    experiment = pb.ExperimentStatus(experiment="launch", started_at="today", arms=arms)
    gateway.on("GetStatus", pb.GetStatusResponse(experiment=experiment))
    output = run("status").stdout
    assert "experiment launch, started today" in output
    rows = [squeezed(line) for line in output.splitlines()]
    assert "control 90 % r1 serving" in rows
    assert "calm 10 % r1 ease 0.5 cf has not loaded r1 yet" in rows
    damaged = pb.ExperimentStatus(last_error="damaged")
    gateway.on("GetStatus", pb.GetStatusResponse(experiment=damaged))
    assert "experiments in the store cannot be read: damaged" in run("status").stdout


def test_status_works_if_the_gateway_is_not_serving(run: Run, gateway: FakeGateway) -> None:
    """The command skips the health check, so it can show why the gateway is not serving."""
    gateway.serving = False
    assert run("status").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("recommend", "--user", "42"),
        ("predict", "--user", "42", "1"),
        ("similar", "--item", "1"),
        ("search", "x"),
        ("item", "50"),
        ("status",),
    ],
)
def test_json_is_one_document(run: Run, arguments: tuple[str, ...]) -> None:
    """`--json` prints one JSON document without the underlying protobuf messages."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    assert "raw" not in result.stdout


def test_json_uses_the_field_names_of_the_library(run: Run) -> None:
    """JSON has the field names of the dataclasses, and each reason also has its kind."""
    document = json.loads(run("recommend", "--user", "42", "--json").stdout)
    (entry,) = document["items"]
    assert entry["metadata"] == {
        "item_id": "50",
        "title": "Star Wars",
        "year": 1977,
        "genres": ["Action", "Sci-Fi"],
        "rating_count": 1583,
        "mean_stars": 4.25,
        "attributes": {},
    }
    assert entry["reasons"][0] == {
        "kind": "model_share",
        "model": "mf",
        "output": 4.0,
        "contribution": 1.5,
        "decomposition": "OPAQUE",
        "explained": 0.0,
    }
    assert document["subject_kind"] == "UNSPECIFIED"
    assert document["source"]["models"][0]["ranking_weight"] == 0.75


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (
            marquee.InvalidArgument(
                "page_size: at most 1,000; diversity: at most 1",
                reason="INVALID_FIELD",
                violations=[
                    marquee.Violation("page_size", "at most 1,000"),
                    marquee.Violation("diversity", "at most 1"),
                ],
            ),
            3,
            "Error: INVALID_FIELD: page_size: at most 1,000; diversity: at most 1",
        ),
        (
            marquee.NotFound("no model 'x'", reason="MODEL_NOT_FOUND"),
            4,
            "Error: MODEL_NOT_FOUND: no model 'x'",
        ),
        (marquee.FailedPrecondition("f"), 5, "Error: FAILED_PRECONDITION: f"),
        (marquee.Unauthenticated("u"), 6, "Error: UNAUTHENTICATED: u"),
        (marquee.PermissionDenied("p"), 6, "Error: PERMISSION_DENIED: p"),
        (marquee.Unavailable("none yet", reason="NO_RELEASE"), 7, "Error: NO_RELEASE: none yet"),
        (marquee.Overloaded("o"), 8, "Error: RESOURCE_EXHAUSTED: o"),
        (marquee.DeadlineExceeded("d"), 9, "Error: DEADLINE_EXCEEDED: d"),
        (marquee.Internal("i"), 1, "Error: INTERNAL: i"),
        (marquee.Internal("\x1b[2J\n"), 1, "Error: INTERNAL: �[2J�"),
    ],
)
def test_errors_print_one_line_and_set_the_exit_code(
    run: Run, gateway: FakeGateway, error: marquee.MarqueeError, exit_code: int, line: str
) -> None:
    """Each class of error has an exit code, and prints one line to stderr and nothing to stdout."""
    gateway.on("Recommend", error)
    result = run("recommend", "--user", "42")
    assert (result.exit_code, result.stdout, result.stderr) == (exit_code, "", f"{line}\n")


def test_the_help_documents_every_exit_code(run: Run) -> None:
    """The table in `--help` lists every exit code of the commands."""
    documented = {
        int(cells[0])
        for line in run("--help").stdout.partition("Exit codes:")[2].splitlines()
        if (cells := line.split())
    }
    assert documented == {*range(11), 130}


def test_the_error_for_an_unreachable_gateway_names_its_address() -> None:
    """The error also says briefly why the gateway cannot be reached and what to do."""
    with FakeGateway() as gateway:
        address = gateway.address
    result = CliRunner().invoke(main, ["-a", address, "--timeout", str(DEADLINE_S), "status"])
    assert result.exit_code == 7
    assert result.stderr.startswith(
        f"Error: UNAVAILABLE: cannot connect to a gateway at {address}: "
    )
    assert result.stderr.endswith("standalone`, or select one with `--address`\n")
    assert "all backends" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("recommend", "--rate", "318"),
        ("recommend", "--rate", "=5"),
        ("recommend", "--rate", "318=many"),
        ("--timeout", "0", "status"),
        ("--tls-ca", "/does/not/exist", "status"),
        ("--address", "gateway.example:1", "--token", "t", "status"),
        ("--address", "http://localhost", "status"),
        ("recommend", "--no-such-option"),
        ("no-such-command",),
    ],
)
def test_an_invalid_command_line_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    """An invalid command line exits with status 2."""
    assert run(*arguments).exit_code == 2


def test_a_client_certificate_needs_its_key(run: Run, tmp_path: Path) -> None:
    """A client certificate without its key is a usage error."""
    certificate = tmp_path / "client.pem"
    certificate.touch()
    assert run("--tls-cert", str(certificate), "status").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "seconds", "authorization"),
    [
        (("--timeout", "20", "--token", "secret", "status"), 20, "Bearer secret"),
        (("status",), 5, None),
        (("batch", "1"), 60, None),
        (("--timeout", "20", "batch", "1"), 20, None),
    ],
)
def test_connection_options_reach_the_call(
    gateway: FakeGateway, arguments: tuple[str, ...], seconds: float, authorization: str | None
) -> None:
    """Calls have the given deadline and token; the default is 5 s, or a minute for a batch."""
    start = time.monotonic()
    # On a slow machine, a short deadline may expire before the call arrives.
    while not gateway.calls:
        invoke_main(gateway, *arguments)
    took = time.monotonic() - start
    assert seconds - took - 0.5 <= gateway.calls[0].time_remaining <= seconds + 0.5
    assert gateway.calls[0].metadata.get("authorization") == authorization


def test_a_token_is_sent_in_plaintext_only_if_allowed(run: Run) -> None:
    """Sending a token in plaintext is a usage error unless the flag allows it."""
    remote = ("--address", "gateway.invalid:1", "--timeout", "0.5", "--token", "t")
    assert run(*remote, "status").exit_code == 2
    assert run(*remote, "--allow-insecure-token", "status").exit_code not in (0, 2)


MARQUEE = [sys.executable, "-c", "from marquee.cli import main; main()"]


def test_the_command_runs_as_a_process(gateway: FakeGateway) -> None:
    """The command also works as a separate process."""
    options = ["--address", gateway.address, "--timeout", str(DEADLINE_S)]
    command = [*MARQUEE, *options, "recommend", "--user", "42", "--json"]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=WAIT_S)
    assert json.loads(result.stdout)["items"][0]["item_id"] == "50"
    assert result.stderr == ""


def test_an_interrupt_has_its_exit_code(gateway: FakeGateway) -> None:
    """Ctrl-C ends a command with exit code 130 and without a traceback."""
    called, release = threading.Event(), threading.Event()

    def hang(_: object) -> tuple[()]:
        called.set()
        release.wait(timeout=2 * WAIT_S)
        return ()

    gateway.on("GetStatus", hang)
    command = [*MARQUEE, "--address", gateway.address, "--timeout", str(2 * WAIT_S), "status"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert called.wait(timeout=WAIT_S)
            process.send_signal(signal.SIGINT)
            # Well before the gateway answers or the deadline passes.
            _, error = process.communicate(timeout=WAIT_S / 2)
        finally:
            release.set()
    assert process.returncode == 130
    assert "Traceback" not in error
