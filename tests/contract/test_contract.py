"""The guarantees of the API, one test each, checked at any address.

The tests are given only the id of a user; they request everything else from the API.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import marquee
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub

SERVICE = "marquee.v1.RecommenderService"
# An id that is neither a user's nor an item's.
NOBODY = "contract-test-nobody"
# Generous deadline of a call in seconds, so that no result depends on the speed of the machine.
DEADLINE_S = 120.0


def an_item(client: marquee.Client) -> marquee.Item:
    """Return an item of the release."""
    return client.get_item(client.recommend(NOBODY)[0].item_id)


def ids_of(answer: marquee.Recommendations) -> list[str]:
    """Return the item ids of an answer."""
    return [entry.item_id for entry in answer]


def test_a_known_user_gets_a_full_page_in_order_of_score(
    client: marquee.Client, endpoint: Any
) -> None:
    """Ranks increase, scores decrease, and the source names the release and its models."""
    answer = client.recommend(endpoint.user)
    assert answer.subject_kind is marquee.SubjectKind.KNOWN
    assert [entry.rank for entry in answer] == list(range(1, 21))
    scores = [entry.score for entry in answer]
    assert scores == sorted(scores, reverse=True)
    assert len(set(ids_of(answer))) == 20
    assert answer.recommendation_id
    assert answer.source.release_id == client.status().release.release_id  # type: ignore[union-attr]
    assert answer.source.models
    assert not answer.source.degraded


def test_an_unknown_user_gets_the_cold_start_answer(client: marquee.Client) -> None:
    """An unknown user id is not an error, and gets the answer for a cold start."""
    answer = client.recommend(NOBODY)
    assert answer.subject_kind is marquee.SubjectKind.COLD_START
    assert len(answer) == 20


def test_a_visitor_is_folded_in(client: marquee.Client) -> None:
    """Rated and liked items are folded in and not recommended, and unknown ids are reported."""
    first = ids_of(client.recommend(NOBODY))
    visitor = client.recommend(
        ratings={first[0]: 5, first[1]: 1, NOBODY: 3}, liked_item_ids=[first[2]]
    )
    assert visitor.subject_kind is marquee.SubjectKind.VISITOR
    assert visitor.unknown_item_ids == (NOBODY,)
    assert not set(first[:3]) & set(ids_of(visitor))


def test_new_ratings_of_a_known_user_are_folded_in(client: marquee.Client, endpoint: Any) -> None:
    """New ratings change the answer, and the rated item is not recommended."""
    best = ids_of(client.recommend(endpoint.user))[0]
    answer = client.recommend(endpoint.user, ratings={best: 1})
    assert answer.subject_kind is marquee.SubjectKind.KNOWN_WITH_FRESH_RATINGS
    assert best not in ids_of(answer)


def test_filters_apply_before_the_cut(client: marquee.Client, endpoint: Any) -> None:
    """A filtered list has the matching items of the unfiltered list, in the same order."""
    unfiltered = client.recommend(endpoint.user, page_size=1000, include_metadata=True)
    genre = next(entry.genres[0] for entry in unfiltered if entry.genres)
    years = sorted(entry.year for entry in unfiltered if entry.year)
    low, high = years[len(years) // 3], years[2 * len(years) // 3]
    some = ids_of(unfiltered)[3:9]
    stars = sorted(entry.predicted_stars or 0.0 for entry in unfiltered)[len(unfiltered) // 2]
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"genres_any": [genre]}, lambda i: genre in i.genres),
        ({"genres_all": [genre]}, lambda i: genre in i.genres),
        ({"genres_none": [genre]}, lambda i: genre not in i.genres),
        ({"year_min": low, "year_max": high}, lambda i: low <= (i.year or 0) <= high),
        ({"allowed_item_ids": some}, lambda i: i.item_id in some),
        ({"excluded_item_ids": some}, lambda i: i.item_id not in some),
        ({"min_predicted_stars": stars}, lambda i: i.predicted_stars >= stars),
    ]
    for options, qualifies in cases:
        expected = [entry.item_id for entry in unfiltered if qualifies(entry)][:20]
        assert ids_of(client.recommend(endpoint.user, **options)) == expected, options


def test_seen_items_are_included_on_request(client: marquee.Client, endpoint: Any) -> None:
    """Items that the user has rated are left out unless `include_seen` is set."""
    unseen = client.recommend(endpoint.user, page_size=1000)
    all_items = client.recommend(endpoint.user, page_size=1000, include_seen=True)
    assert len(all_items) == 1000 or len(all_items) > len(unseen)


def test_diversity_only_reorders_the_list(client: marquee.Client, endpoint: Any) -> None:
    """With diversity, the best item stays first and no item is listed twice."""
    plain, diverse = client.recommend(endpoint.user), client.recommend(endpoint.user, diversity=0.7)
    assert ids_of(diverse)[0] == ids_of(plain)[0]
    assert ids_of(diverse) != ids_of(plain)
    assert len(set(ids_of(diverse))) == 20


def test_reasons_add_up_to_the_score(client: marquee.Client, endpoint: Any) -> None:
    """The contributions of the models to an item add up to its score."""
    for entry in client.recommend(endpoint.user, include_reasons=True):
        shares = [r.contribution for r in entry.reasons if isinstance(r, marquee.ModelShare)]
        assert sum(shares) == pytest.approx(entry.score, abs=1e-4)


def test_pages_are_parts_of_one_list(client: marquee.Client, endpoint: Any) -> None:
    """Pages neither repeat nor skip items, and share one recommendation id."""
    whole = client.recommend(endpoint.user, page_size=60)
    pages = []
    for page in client.recommend_pages(endpoint.user, page_size=7):
        pages.append(page)
        if sum(map(len, pages)) >= 60:
            break
    assert [i for page in pages for i in ids_of(page)][:60] == ids_of(whole)
    assert len({page.recommendation_id for page in pages}) == 1


def test_a_page_token_of_another_request_is_refused(client: marquee.Client, endpoint: Any) -> None:
    """The error has the reason PAGE_TOKEN_MISMATCH."""
    token = client.recommend(endpoint.user, page_size=5).next_page_token
    with pytest.raises(marquee.FailedPrecondition) as caught:
        client.recommend(NOBODY, page_size=5, page_token=token)
    assert caught.value.reason == "PAGE_TOKEN_MISMATCH"


def test_a_release_and_a_model_can_be_selected(client: marquee.Client, endpoint: Any) -> None:
    """A selected release or model answers exclusively, and an unknown one is named in the error."""
    answer = client.recommend(endpoint.user)
    model = answer.source.models[0].model
    release = answer.source.release_id
    single_model = client.recommend(endpoint.user, model=model, release_id=release)
    # A ranker predicts no stars, so the baseline may have a weight for them.
    assert [weight.model for weight in single_model.source.models if weight.ranking_weight] == [
        model
    ]
    for option, reason in (("model", "MODEL_NOT_FOUND"), ("release_id", "RELEASE_NOT_FOUND")):
        with pytest.raises(marquee.NotFound) as caught:
            client.recommend(endpoint.user, **{option: NOBODY})  # type: ignore[arg-type]
        assert caught.value.reason == reason
        assert caught.value.metadata == {option: NOBODY}


def test_a_batch_answers_every_subject(client: marquee.Client, endpoint: Any) -> None:
    """Each subject gets what a single call returns, and an error affects only its subject."""
    subjects = [endpoint.user, NOBODY, marquee.Subject(user_id="x" * 257), endpoint.user]
    answers = {answer.index: answer for answer in client.batch_recommend(subjects)}
    assert sorted(answers) == [0, 1, 2, 3]
    assert isinstance(answers[2].error, marquee.InvalidArgument)
    for index, user in ((0, endpoint.user), (1, NOBODY), (3, endpoint.user)):
        found = answers[index].recommendations
        assert found is not None
        assert ids_of(found) == ids_of(client.recommend(user))


def test_a_large_batch_is_answered(client: marquee.Client, endpoint: Any) -> None:
    """A batch of thousands of subjects has one answer for each of them."""
    subjects = [endpoint.user if n % 2 else f"{NOBODY}-{n}" for n in range(2_000)]
    indexes = [answer.index for answer in client.batch_recommend(subjects)]
    assert sorted(indexes) == list(range(2_000))


def test_predictions_keep_the_order_of_the_request(client: marquee.Client, endpoint: Any) -> None:
    """Unknown items have a prediction without stars."""
    ids = ids_of(client.recommend(endpoint.user))[::-1]
    predicted = client.predict_ratings(endpoint.user, [NOBODY, *ids])
    assert [entry.item_id for entry in predicted] == [NOBODY, *ids]
    assert predicted[0].stars is None
    assert all(entry.stars is not None for entry in predicted[1:])


def test_similar_items_are_ordered_by_similarity(client: marquee.Client) -> None:
    """The item itself is left out, and filters apply."""
    item = an_item(client)
    similar = client.similar_items(item.item_id, include_metadata=True)
    values = [entry.similarity for entry in similar]
    assert values == sorted(values, reverse=True)
    assert item.item_id not in [entry.item_id for entry in similar]
    excluded = [entry.item_id for entry in similar][:3]
    rest = client.similar_items(item.item_id, excluded_item_ids=excluded)
    assert not set(excluded) & {entry.item_id for entry in rest}


def test_items_are_found_by_title(client: marquee.Client) -> None:
    """Search and `get_item` return the same item; an unknown id is named in the error."""
    item = an_item(client)
    pages = list(client.search_pages(item.title, page_size=7))
    found = [entry.item_id for page in pages for entry in page]
    assert item.item_id in found
    assert len(set(found)) == len(found)
    assert client.get_item(item.item_id) == item
    with pytest.raises(marquee.NotFound) as caught:
        client.get_item(NOBODY)
    assert caught.value.metadata == {"item_id": NOBODY}


def test_status_names_release_models_and_backends(client: marquee.Client) -> None:
    """`status` reports the release with its models, and both backends."""
    status = client.status()
    assert status.release is not None
    assert status.release.models
    assert {backend.backend for backend in status.backends} == {"cf", "inference"}
    assert status.release.release_id in status.loaded_release_ids


def test_violations_are_reported_for_each_field(client: marquee.Client) -> None:
    """Proxies pass the details of an error through."""
    with pytest.raises(marquee.InvalidArgument) as caught:
        client.recommend("x" * 257, page_size=1001, diversity=2)
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"subject.user_id", "page_size", "options.diversity"}
    assert caught.value.reason == "INVALID_FIELD"


def test_an_error_with_many_violations_fits_into_a_trailer(client: marquee.Client) -> None:
    """A request with a thousand invalid fields is still reported as `InvalidArgument`."""
    with pytest.raises(marquee.InvalidArgument) as caught:
        client.recommend(ratings={f"{'i' * 64}{n}": float("nan") for n in range(1_000)})
    assert 0 < len(caught.value.violations) < 1_000
    assert int(caught.value.metadata["omitted"]) > 0


def test_the_largest_requests_are_answered(client: marquee.Client, endpoint: Any) -> None:
    """A request may have 1,000 ratings, 10,000 excluded items and a page size of 1,000."""
    answer = client.recommend(
        marquee.Subject(endpoint.user, {f"{'i' * 50}{n}": 3 for n in range(1_000)}),
        excluded_item_ids=[f"{'x' * 50}{n}" for n in range(10_000)],
        page_size=1000,
    )
    assert len(answer.unknown_item_ids) == 11_000
    assert len(answer) > 20


def test_a_deadline_ends_a_call(endpoint: Any) -> None:
    """A batch that takes many times longer than its deadline ends with `DeadlineExceeded`."""
    visitors = [marquee.Subject(liked_item_ids=[f"{NOBODY}-{n}"]) for n in range(5_000)]
    with endpoint.client() as impatient, pytest.raises(marquee.DeadlineExceeded):
        list(impatient.batch_recommend(visitors, timeout=0.02))


def test_many_threads_share_a_client(client: marquee.Client, endpoint: Any) -> None:
    """Each call gets the answer to its own request."""
    users = [endpoint.user if n % 2 else f"{NOBODY}-{n}" for n in range(200)]
    expected = {
        True: ids_of(client.recommend(endpoint.user)),
        False: ids_of(client.recommend(NOBODY)),
    }
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(client.recommend, users))
    for user, answer in zip(users, answers, strict=True):
        assert ids_of(answer) == expected[user == endpoint.user]


def test_reflection_suffices_for_calls(channel: grpc.Channel, endpoint: Any) -> None:
    """Services can be listed and called using only reflection, as grpcurl does."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName(SERVICE).FindMethodByName("Recommend")
    request = message_factory.GetMessageClass(method.input_type)()
    json_format.ParseDict({"subject": {"userId": endpoint.user}, "pageSize": 3}, request)
    call: Any = channel.unary_unary(
        f"/{SERVICE}/Recommend",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    assert len(json_format.MessageToDict(call(request, timeout=DEADLINE_S))["items"]) == 3


def test_the_health_service_reports_serving(channel: grpc.Channel) -> None:
    """The health service reports SERVING for the server and for the recommender service."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_malformed_request_is_an_invalid_argument(channel: grpc.Channel) -> None:
    """A client without our library can read the domain and reason from the google.rpc.Status."""
    call: Any = channel.unary_unary(f"/{SERVICE}/Recommend")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff", timeout=DEADLINE_S)
    error: Any = caught.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = status_pb2.Status.FromString(
        dict(error.trailing_metadata())["grpc-status-details-bin"]
    )
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert (info.domain, info.reason) == ("marquee.v1", "INVALID_FIELD")


def test_every_route_gives_the_same_answer(
    channel: grpc.Channel,
    endpoint: Any,
    endpoints: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    """Answers through a proxy have the same items and models as a direct call."""
    if request.config.getoption("--address"):
        pytest.skip("a given address has only one route")
    with endpoints["direct"].channel() as direct:
        expected_stub, stub = (RecommenderServiceStub(c) for c in (direct, channel))
        for size, diversity, user in ((0, 0.0, endpoint.user), (100, 0.5, NOBODY), (1000, 0.0, "")):
            subject = types_pb2.Subject(user_id=user, liked_item_ids=[] if user else ["i1"])
            options = pb.RecommendOptions(diversity=diversity, include_metadata=True)
            query = pb.RecommendRequest(subject=subject, page_size=size, options=options)
            expected = expected_stub.Recommend(query, timeout=DEADLINE_S)
            answer = stub.Recommend(query, timeout=DEADLINE_S)
            assert list(answer.items) == list(expected.items)
            assert list(answer.source.models) == list(expected.source.models)
