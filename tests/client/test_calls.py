"""Every call of both clients: the requests they send and the results they return."""

# ruff: noqa: S106 - page tokens are no secrets

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

import marquee
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2

# A generous deadline in seconds, so that no result depends on the speed of the machine.
DEADLINE_S = 60.0

STAR_WARS = types_pb2.Item(
    item_id="50",
    title="Star Wars",
    year=1977,
    genres=["Action", "Sci-Fi"],
    rating_count=583,
    mean_stars=4.25,
)
SOURCE = types_pb2.AnswerSource(
    release_id="r1",
    models=[
        types_pb2.ModelWeight(
            model="item_cf", version="abc", ranking_weight=0.75, rating_weight=0.5
        )
    ],
    degraded=True,
    degraded_reasons=[types_pb2.DEGRADED_REASON_INFERENCE_TIMEOUT],
    abstaining_models=["mf"],
    server_time_us=1500,
)


class Blocking:
    """An `AsyncClient` with the blocking methods of `Client`, so that one test covers both."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = marquee.AsyncClient(*args, **options)

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            if inspect.isawaitable(result):
                return self._loop.run_until_complete(result)
            return self._iterate(result)

        return call

    def _iterate(self, results: AsyncIterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield self._loop.run_until_complete(anext(results))
            except StopAsyncIteration:
                return


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway."""
    with FakeGateway() as fake:
        yield fake


@pytest.fixture(params=[marquee.Client, Blocking], ids=["sync", "async"])
def client(request: pytest.FixtureRequest, gateway: FakeGateway) -> Iterator[Any]:
    """A client of the gateway, once a `Client` and once an `AsyncClient`."""
    with request.param(gateway.address, timeout=DEADLINE_S, batch_timeout=DEADLINE_S) as opened:
        yield opened


def test_recommend_sends_every_option(client: Any, gateway: FakeGateway) -> None:
    """Each option of `recommend` sets its field of the request."""
    client.recommend(
        "42",
        ratings={"1": 5, "2": 0.5},
        liked_item_ids=["3"],
        page_size=7,
        page_token="t",
        genres_any=["Drama"],
        genres_all=["War", "Drama"],
        genres_none=["Horror"],
        year_min=1990,
        year_max=1999,
        allowed_item_ids=["8", "9"],
        excluded_item_ids=["10"],
        include_seen=True,
        min_predicted_stars=3.5,
        diversity=0.25,
        release_id="r1",
        model="item_cf",
        include_metadata=True,
        include_reasons=True,
    )
    assert gateway.calls[0].request == pb.RecommendRequest(
        subject=types_pb2.Subject(
            user_id="42",
            ratings=[
                types_pb2.Rating(item_id="1", stars=5),
                types_pb2.Rating(item_id="2", stars=0.5),
            ],
            liked_item_ids=["3"],
        ),
        page_size=7,
        page_token="t",
        options=pb.RecommendOptions(
            filter=types_pb2.ItemFilter(
                genres_any=["Drama"],
                genres_all=["War", "Drama"],
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


def test_recommend_without_options_sends_the_defaults_of_the_api(
    client: Any, gateway: FakeGateway
) -> None:
    """Without options the request sets only the subject and the default page size."""
    client.recommend("42")
    assert gateway.calls[0].request == pb.RecommendRequest(
        subject=types_pb2.Subject(user_id="42"),
        page_size=20,
        options=pb.RecommendOptions(),
    )


def test_recommend_returns_every_field_of_the_answer(client: Any, gateway: FakeGateway) -> None:
    """The result has each field of the response, and is a sequence of its items."""
    reasons = [
        pb.Reason(model_share=pb.Reason.ModelShare(model="mf", output=4.0, contribution=2.0)),
        pb.Reason(
            model_share=pb.Reason.ModelShare(
                model="ease",
                output=0.5,
                contribution=1.0,
                decomposition=pb.Reason.DECOMPOSITION_RATED_ITEMS,
                explained=0.75,
            )
        ),
        pb.Reason(
            rated_item=pb.Reason.RatedItem(
                item_id="172",
                title="Empire",
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
        pb.Reason(),
    ]
    response = pb.RecommendResponse(
        recommendation_id="rec1",
        subject_kind=types_pb2.SUBJECT_KIND_KNOWN_WITH_FRESH_RATINGS,
        items=[
            pb.RecommendedItem(
                item_id="50",
                rank=1,
                score=1.5,
                predicted_stars=4.5,
                proposed_by=["item_cf", "mf"],
                metadata=STAR_WARS,
                reasons=reasons,
            ),
            pb.RecommendedItem(item_id="51", rank=2),
        ],
        next_page_token="more",
        source=SOURCE,
        unknown_item_ids=["x"],
    )
    gateway.on("Recommend", response)
    answer = client.recommend("42")
    assert (answer.recommendation_id, answer.next_page_token) == ("rec1", "more")
    assert answer.subject_kind is marquee.SubjectKind.KNOWN_WITH_FRESH_RATINGS
    assert answer.unknown_item_ids == ("x",)
    assert answer.raw == response
    first, second = answer
    assert (first.item_id, first.rank, first.score, first.predicted_stars) == ("50", 1, 1.5, 4.5)
    assert first.proposed_by == ("item_cf", "mf")
    assert (first.title, first.year, first.genres) == ("Star Wars", 1977, ("Action", "Sci-Fi"))
    assert first.reasons == (
        marquee.ModelShare("mf", 4.0, 2.0, marquee.Decomposition.UNSPECIFIED, 0.0),
        marquee.ModelShare("ease", 0.5, 1.0, marquee.Decomposition.RATED_ITEMS, 0.75),
        marquee.RatedItem("172", "Empire", 5.0, 0.5, 0.25, "ease", 0.5),
        marquee.SimilarUsers(9, 4.5, -0.5, "user_cf", -0.25),
    )
    assert first.raw == response.items[0]
    assert (second.metadata, second.title, second.year, second.genres) == (None, None, None, ())
    assert len(answer) == 2
    assert answer[-1] == second
    assert answer[:1] == (first,)
    assert first in answer
    source = answer.source
    assert source.models == (marquee.ModelWeight("item_cf", "abc", 0.75, 0.5),)
    assert (source.release_id, source.server_time_us) == ("r1", 1500)
    assert source.degraded
    assert source.degraded_reasons == (marquee.DegradedReason.INFERENCE_TIMEOUT,)
    assert source.abstaining_models == ("mf",)


def test_a_subject_may_be_given_as_an_object(client: Any, gateway: FakeGateway) -> None:
    """A `Subject` makes the same request as its parts, and cannot be combined with them."""
    visitor = marquee.Subject(ratings={"1": 4.0}, liked_item_ids=("2",))
    client.recommend(visitor)
    client.recommend(ratings={"1": 4.0}, liked_item_ids=["2"])
    assert gateway.calls[0].request == gateway.calls[1].request
    with pytest.raises(TypeError, match="not both"):
        client.recommend(visitor, ratings={"1": 4.0})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"subject": 42}, "a user id must be a string, not int"),
        (
            {"subject": "42", "genres_any": "Comedy"},
            "genres_any must be an iterable of strings, not a single string",
        ),
        ({"subject": "42", "genre": ["Comedy"]}, "unexpected keyword argument 'genre'"),
        ({"subject": "42", "allowed_item_ids": []}, "no item would pass"),
        ({"ratings": {50: 5}}, r"ratings: item ids must be strings, not int \(50\)"),
        ({"ratings": {"50": "5"}}, "ratings: the rating of item '50' must be a number, not str"),
        (
            {"subject": marquee.Subject(ratings=cast(Any, {50: 5}))},
            "ratings: item ids must be strings",
        ),
        (
            {"subject": marquee.Subject(user_id=cast(Any, 42))},
            r"user_id must be a string, not int \(42\)",
        ),
        ({"liked_item_ids": [50]}, r"liked_item_ids must contain strings, not int \(50\)"),
        ({"liked_item_ids": 50}, r"liked_item_ids must be an iterable of strings, not int \(50\)"),
        ({"subject": "42", "genres_any": [1]}, r"genres_any must contain strings, not int \(1\)"),
        ({"subject": "42", "model": 3}, "model must be a string"),
        ({"subject": "42", "page_token": b"x"}, "page_token must be a string, not bytes"),
        ({"subject": "42", "page_size": "3"}, "page_size must be an integer, not str"),
        ({"subject": "42", "page_size": True}, "page_size must be an integer, not bool"),
        ({"subject": "42", "year_min": "1990"}, "year_min must be an integer"),
        ({"subject": "42", "diversity": "much"}, "diversity must be a number"),
        ({"subject": "42", "min_predicted_stars": "4"}, "min_predicted_stars must be a number"),
        ({"subject": "42", "timeout": "3"}, "timeout must be a number, not str"),
        ({"subject": "42", "timeout": 1e12}, r"timeout must be at most 1e\+09 seconds"),
        ({"subject": "42", "timeout": 0}, "positive number of seconds"),
        ({"subject": "42", "timeout": float("nan")}, "positive number of seconds"),
    ],
)
def test_invalid_arguments_are_refused_before_a_request_is_sent(
    client: Any, gateway: FakeGateway, arguments: dict[str, Any], error: str
) -> None:
    """Arguments that would become a different request raise `TypeError` or `ValueError`."""
    with pytest.raises((TypeError, ValueError), match=error):
        client.recommend(**arguments)
    assert not gateway.calls


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("get_item", (50,), "item_id must be a string, not int"),
        ("similar_items", (50,), "item_id must be a string, not int"),
        ("predict_ratings", ("42", [50]), "item_ids must contain strings, not int"),
        ("search_items", (50,), "query must be a string, not int"),
    ],
)
def test_integer_ids_are_refused(
    client: Any, gateway: FakeGateway, method: str, arguments: tuple[Any, ...], error: str
) -> None:
    """The error of every method names the argument that must be a string."""
    with pytest.raises(TypeError, match=error):
        getattr(client, method)(*arguments)
    assert not gateway.calls


def test_the_longest_allowed_deadline_works(client: Any) -> None:
    """A deadline of 1e9 seconds does not expire immediately, as longer ones would in gRPC."""
    assert client.status(timeout=1e9) is not None


def test_the_pager_requests_all_pages(client: Any, gateway: FakeGateway) -> None:
    """Each page is requested with the token of the previous one; other fields stay the same."""
    pages = {"": ("a", "1"), "1": ("b", "2"), "2": ("c", "")}

    def answer(request: pb.RecommendRequest) -> pb.RecommendResponse:
        item, token = pages[request.page_token]
        return pb.RecommendResponse(items=[pb.RecommendedItem(item_id=item)], next_page_token=token)

    gateway.on("Recommend", answer)
    # A generator can be read only once, but every page needs its values.
    read = client.recommend_pages("42", page_size=1, excluded_item_ids=(i for i in ["9"]))
    assert [entry.item_id for page in read for entry in page] == ["a", "b", "c"]
    assert [call.request.page_token for call in gateway.calls] == ["", "1", "2"]
    for call in gateway.calls:
        call.request.page_token = ""
        assert call.request == gateway.calls[0].request


def test_the_pager_does_not_request_pages_ahead(client: Any, gateway: FakeGateway) -> None:
    """Reading one page makes one call."""
    gateway.on("Recommend", pb.RecommendResponse(next_page_token="more"))
    next(iter(client.recommend_pages("42")))
    assert len(gateway.calls) == 1


def test_batch_answers_arrive_in_any_order(client: Any, gateway: FakeGateway) -> None:
    """Each answer has the index of its subject; a failed one does not end the batch."""
    recommendations = pb.BatchRecommendResponse.Recommendations(
        recommendation_id="rec2",
        subject_kind=types_pb2.SUBJECT_KIND_VISITOR,
        items=[pb.RecommendedItem(item_id="50", rank=1)],
        source=SOURCE,
        unknown_item_ids=["x"],
    )
    error = pb.BatchRecommendResponse.SubjectError(
        code=9, message="cannot answer", reason="MODEL_ABSTAINS"
    )
    answer = pb.BatchRecommendResponse.SubjectAnswer
    gateway.on(
        "BatchRecommend",
        [
            pb.BatchRecommendResponse(
                answers=[
                    answer(subject_index=1, recommendations=recommendations),
                    answer(subject_index=0, error=error),
                ]
            ),
            pb.BatchRecommendResponse(answers=[answer(subject_index=2)]),
        ],
    )
    visitor = marquee.Subject(ratings={"1": 5.0})
    good, failed, odd = client.batch_recommend(["42", visitor, "7"], page_size=3, model="user_cf")
    assert gateway.calls[0].request == pb.BatchRecommendRequest(
        subjects=[
            types_pb2.Subject(user_id="42"),
            types_pb2.Subject(ratings=[types_pb2.Rating(item_id="1", stars=5)]),
            types_pb2.Subject(user_id="7"),
        ],
        page_size=3,
        options=pb.RecommendOptions(model="user_cf"),
    )
    assert (good.index, good.subject, good.error) == (1, visitor, None)
    assert good.unwrap()[0].item_id == "50"
    assert good.unwrap().recommendation_id == "rec2"
    assert good.unwrap().subject_kind is marquee.SubjectKind.VISITOR
    assert good.unwrap().next_page_token == ""
    assert good.unwrap().unknown_item_ids == ("x",)
    assert (failed.index, failed.subject.user_id, failed.recommendations) == (0, "42", None)
    with pytest.raises(marquee.FailedPrecondition, match="cannot answer") as raised:
        failed.unwrap()
    assert raised.value.reason == "MODEL_ABSTAINS"
    assert raised.value.grpc_error is None
    assert isinstance(odd.error, marquee.Internal)


def test_a_batch_of_one_string_is_refused(client: Any) -> None:
    """A single user id instead of a list is an error rather than a list of its letters."""
    with pytest.raises(TypeError, match="iterable of subjects"):
        client.batch_recommend("42")


def test_predict_ratings_keeps_the_order(client: Any, gateway: FakeGateway) -> None:
    """Predictions are in the order of the requested items, including unknown ones."""
    gateway.on(
        "PredictRatings",
        pb.PredictRatingsResponse(
            predictions=[
                pb.PredictedRating(item_id="9", stars=0.0),
                pb.PredictedRating(item_id="x"),
            ],
            subject_kind=types_pb2.SUBJECT_KIND_KNOWN,
            source=SOURCE,
            unknown_item_ids=["u"],
        ),
    )
    answer = client.predict_ratings(
        "42", ["9", "x"], ratings={"1": 3.0}, release_id="r1", model="mf"
    )
    assert gateway.calls[0].request == pb.PredictRatingsRequest(
        subject=types_pb2.Subject(user_id="42", ratings=[types_pb2.Rating(item_id="1", stars=3)]),
        item_ids=["9", "x"],
        release_id="r1",
        model="mf",
    )
    assert list(answer) == [
        marquee.PredictedRating("9", 0.0),
        marquee.PredictedRating("x", None),
    ]
    assert answer.subject_kind is marquee.SubjectKind.KNOWN
    assert answer.unknown_item_ids == ("u",)
    assert answer.source.release_id == "r1"


def test_similar_items_sends_the_filter_and_returns_items(
    client: Any, gateway: FakeGateway
) -> None:
    """The request has the filter, and each item has its similarity and metadata."""
    gateway.on(
        "SimilarItems",
        pb.SimilarItemsResponse(
            items=[
                pb.SimilarItem(
                    item_id="50", rank=1, similarity=0.5, proposed_by=["mf"], metadata=STAR_WARS
                )
            ],
            source=SOURCE,
            unknown_item_ids=["u"],
        ),
    )
    answer = client.similar_items(
        "172",
        page_size=5,
        release_id="r1",
        model="mf",
        include_metadata=True,
        genres_any=["Action"],
        year_max=1980,
    )
    assert gateway.calls[0].request == pb.SimilarItemsRequest(
        item_id="172",
        page_size=5,
        filter=types_pb2.ItemFilter(genres_any=["Action"], year_max=1980),
        release_id="r1",
        model="mf",
        include_metadata=True,
    )
    (similar,) = answer
    assert (similar.item_id, similar.rank, similar.similarity) == ("50", 1, 0.5)
    assert (similar.title, similar.proposed_by) == ("Star Wars", ("mf",))
    assert answer.unknown_item_ids == ("u",)


def test_search_items_returns_items_and_the_next_page_token(
    client: Any, gateway: FakeGateway
) -> None:
    """The request has the query and the page token; the items and the next token are returned."""
    gateway.on(
        "SearchItems",
        pb.SearchItemsResponse(items=[STAR_WARS], next_page_token="more", release_id="r1"),
    )
    answer = client.search_items("star w", page_size=5, page_token="t")
    assert gateway.calls[0].request == pb.SearchItemsRequest(
        query="star w", page_size=5, page_token="t"
    )
    assert (answer[0].title, answer.next_page_token, answer.release_id) == (
        "Star Wars",
        "more",
        "r1",
    )


def test_get_item_returns_the_item(client: Any, gateway: FakeGateway) -> None:
    """The item is returned, and fields that the server does not know are None."""
    gateway.on("GetItem", pb.GetItemResponse(item=STAR_WARS, release_id="r1"))
    item = client.get_item("50")
    assert gateway.calls[0].request == pb.GetItemRequest(item_id="50")
    assert item == marquee.Item("50", "Star Wars", 1977, ("Action", "Sci-Fi"), 583, 4.25, STAR_WARS)
    gateway.on("GetItem", pb.GetItemResponse(item=types_pb2.Item(item_id="51")))
    unknown = client.get_item("51")
    assert (unknown.year, unknown.mean_stars, unknown.attributes) == (None, None, {})
    described = types_pb2.Item(item_id="52", attributes={"director": "Zoë", "minutes": "90"})
    gateway.on("GetItem", pb.GetItemResponse(item=described))
    assert client.get_item("52").attributes == {"director": "Zoë", "minutes": "90"}


def test_status_returns_every_field(client: Any, gateway: FakeGateway) -> None:
    """Every field of the gateway's state is returned; the release is None if there is none."""
    gateway.on(
        "GetStatus",
        pb.GetStatusResponse(
            release=pb.ReleaseStatus(
                release_id="r1",
                published_at="2026-01-01T00:00:00Z",
                data_source="sample(seed=0)",
                data_fingerprint="f",
                user_count=3,
                item_count=2,
                rating_count=5,
                models=[
                    pb.ModelStatus(weight=SOURCE.models[0], backend="cf", metrics={"test_mse": 0.5})
                ],
                ensemble_metrics={"test_mse": 0.25},
                evaluation=pb.ReleaseStatus.Evaluation(
                    split="last of each user",
                    seed=7,
                    training_ratings=4,
                    test_ratings=1,
                    training_fingerprint="t",
                ),
                refitted=True,
                implicit_feedback=True,
                gate=pb.GateVerdict(
                    decision="ask",
                    compared_release_id="r0",
                    judged_at="t",
                    checks=[
                        pb.GateVerdict.Check(
                            name="overlap", decision="ask", text="few stay", figures={"share": 0.25}
                        )
                    ],
                ),
            ),
            loaded_release_ids=["r1", "r0"],
            backends=[
                pb.BackendStatus(
                    backend="cf",
                    target="localhost:1",
                    healthy=True,
                    loaded_release_ids=["r1"],
                    last_error="e",
                    last_error_at="t",
                )
            ],
            server_version="0.1.0",
            pending_release_reason="p",
            experiment=pb.ExperimentStatus(
                experiment="e",
                started_at="s",
                arms=[
                    pb.ExperimentStatus.Arm(
                        arm="a",
                        release_id="r1",
                        percent=10.0,
                        ranking_weights={"ease": 1.0},
                        unavailable_reason="u",
                    )
                ],
                pending_list_count=1,
                uncounted_list_count=2,
                last_error="l",
            ),
        ),
    )
    status = client.status()
    assert status.experiment == marquee.ExperimentStatus(
        experiment="e",
        started_at="s",
        arms=(marquee.ArmStatus("a", "r1", 10.0, {"ease": 1.0}, "u"),),
        pending_list_count=1,
        uncounted_list_count=2,
        last_error="l",
    )
    assert status.release == marquee.ReleaseStatus(
        release_id="r1",
        published_at="2026-01-01T00:00:00Z",
        data_source="sample(seed=0)",
        data_fingerprint="f",
        user_count=3,
        item_count=2,
        rating_count=5,
        models=(
            marquee.ModelStatus(
                marquee.ModelWeight("item_cf", "abc", 0.75, 0.5), "cf", {"test_mse": 0.5}
            ),
        ),
        ensemble_metrics={"test_mse": 0.25},
        evaluation=marquee.ReleaseEvaluation("last of each user", 7, 4, 1, "t"),
        refitted=True,
        implicit_feedback=True,
        gate=marquee.GateVerdict(
            "ask", "r0", "t", (marquee.GateCheck("overlap", "ask", "few stay", {"share": 0.25}),)
        ),
    )
    assert status.backends == (marquee.BackendStatus("cf", "localhost:1", True, ("r1",), "e", "t"),)
    assert status.loaded_release_ids == ("r1", "r0")
    assert (status.server_version, status.pending_release_reason) == ("0.1.0", "p")
    gateway.on("GetStatus", pb.GetStatusResponse())
    assert client.status().release is None


def test_fields_that_an_older_server_lacks_are_none(client: Any, gateway: FakeGateway) -> None:
    """The evaluation of a release and the predicted stars of an item may be missing."""
    gateway.on("GetStatus", pb.GetStatusResponse(release=pb.ReleaseStatus(release_id="r1")))
    release = client.status().release
    assert release.evaluation is None
    assert release.gate is None
    assert not release.refitted
    gateway.on("Recommend", pb.RecommendResponse(items=[pb.RecommendedItem(item_id="50")]))
    assert client.recommend("42")[0].predicted_stars is None


def test_unknown_enum_values_are_unspecified(client: Any, gateway: FakeGateway) -> None:
    """Enum values that the client does not know become UNSPECIFIED."""
    gateway.on(
        "Recommend",
        pb.RecommendResponse(
            subject_kind=99,  # type: ignore[arg-type]
            source=types_pb2.AnswerSource(degraded_reasons=[99]),  # type: ignore[list-item]
        ),
    )
    answer = client.recommend("42")
    assert answer.subject_kind is marquee.SubjectKind.UNSPECIFIED
    assert answer.source.degraded_reasons == (marquee.DegradedReason.UNSPECIFIED,)


def test_a_closed_client_refuses_calls(client: Any, gateway: FakeGateway) -> None:
    """After `close` a call raises `RuntimeError` and sends nothing."""
    client.status()
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.status()
    assert len(gateway.calls) == 1


async def test_closing_an_async_client_ends_its_calls_as_cancelled() -> None:
    """A call that `close` interrupts raises `Cancelled`, and its task is not cancelled."""
    called = asyncio.Event()
    loop = asyncio.get_running_loop()
    release = threading.Event()

    def hang(request: pb.GetStatusRequest) -> pb.GetStatusResponse:
        loop.call_soon_threadsafe(called.set)
        release.wait()
        return pb.GetStatusResponse()

    with FakeGateway() as gateway:
        gateway.on("GetStatus", hang)
        client = marquee.AsyncClient(gateway.address, timeout=DEADLINE_S)
        call = asyncio.create_task(client.status())
        await called.wait()
        await client.close()
        with pytest.raises(marquee.Cancelled):
            await call
        release.set()


async def test_cancelling_a_task_cancels_its_call() -> None:
    """A cancelled task raises `CancelledError`, which the client does not replace."""
    with FakeGateway() as gateway:
        gateway.serving = False
        async with marquee.AsyncClient(
            gateway.address, wait_for_ready=True, timeout=DEADLINE_S
        ) as client:
            call = asyncio.create_task(client.status())
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
