"""What a caller may rely on, at whatever address: the API's promises, one test each.

The tests know nothing of the release but a user's id; what they need they ask for.
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
NOBODY = "contract-test-nobody"
PATIENT_S = 20.0


def an_item(client: marquee.Client) -> marquee.Item:
    """An item of the release."""
    return client.get_item(client.recommend(NOBODY)[0].item_id)


def ids_of(answer: marquee.Recommendations) -> list[str]:
    """The ids of an answer's items."""
    return [entry.item_id for entry in answer]


def test_a_known_user_gets_a_full_page_best_first(client: marquee.Client, door: Any) -> None:
    """Rank, order, the release that answered, and the weights it used."""
    answer = client.recommend(door.user)
    assert answer.subject_kind is marquee.SubjectKind.KNOWN
    assert [entry.rank for entry in answer] == list(range(1, 21))
    scores = [entry.score for entry in answer]
    assert scores == sorted(scores, reverse=True)
    assert len(set(ids_of(answer))) == 20
    assert answer.recommendation_id
    assert answer.source.release_id == client.status().release.release_id  # type: ignore[union-attr]
    assert answer.source.models
    assert not answer.source.degraded


def test_nobody_gets_the_cold_start_answer(client: marquee.Client) -> None:
    """An unknown user is no error."""
    answer = client.recommend(NOBODY)
    assert answer.subject_kind is marquee.SubjectKind.COLD_START
    assert len(answer) == 20


def test_a_visitor_is_folded_in(client: marquee.Client) -> None:
    """Ratings and liked items count, are not recommended again, and unknown ids are told."""
    first = ids_of(client.recommend(NOBODY))
    visitor = client.recommend(
        ratings={first[0]: 5, first[1]: 1, NOBODY: 3}, liked_item_ids=[first[2]]
    )
    assert visitor.subject_kind is marquee.SubjectKind.VISITOR
    assert visitor.unknown_item_ids == (NOBODY,)
    assert not set(first[:3]) & set(ids_of(visitor))


def test_fresh_ratings_of_a_known_user_count(client: marquee.Client, door: Any) -> None:
    """They are folded in on top of the release's."""
    best = ids_of(client.recommend(door.user))[0]
    answer = client.recommend(door.user, ratings={best: 1})
    assert answer.subject_kind is marquee.SubjectKind.KNOWN_WITH_FRESH_RATINGS
    assert best not in ids_of(answer)


def test_filters_apply_before_the_cut(client: marquee.Client, door: Any) -> None:
    """Each filter leaves what the unfiltered list holds of it, in its order."""
    every = client.recommend(door.user, page_size=1000, include_metadata=True)
    genre = next(entry.genres[0] for entry in every if entry.genres)
    years = sorted(entry.year for entry in every if entry.year)
    low, high = years[len(years) // 3], years[2 * len(years) // 3]
    some = ids_of(every)[3:9]
    stars = sorted(entry.predicted_stars for entry in every)[len(every) // 2]
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
        expected = [entry.item_id for entry in every if qualifies(entry)][:20]
        assert ids_of(client.recommend(door.user, **options)) == expected, options


def test_seen_items_come_back_on_request(client: marquee.Client, door: Any) -> None:
    """What a user has rated is left out unless it is asked for."""
    unseen = client.recommend(door.user, page_size=1000)
    every = client.recommend(door.user, page_size=1000, include_seen=True)
    assert len(every) == 1000 or len(every) > len(unseen)


def test_diversity_changes_the_order_only(client: marquee.Client, door: Any) -> None:
    """The best item stays first; nothing is listed twice."""
    plain, diverse = client.recommend(door.user), client.recommend(door.user, diversity=0.7)
    assert ids_of(diverse)[0] == ids_of(plain)[0]
    assert ids_of(diverse) != ids_of(plain)
    assert len(set(ids_of(diverse))) == 20


def test_reasons_add_up_to_the_score(client: marquee.Client, door: Any) -> None:
    """The models' shares of an item are its score."""
    for entry in client.recommend(door.user, include_reasons=True):
        shares = [r.contribution for r in entry.reasons if isinstance(r, marquee.ModelShare)]
        assert sum(shares) == pytest.approx(entry.score, abs=1e-4)


def test_pages_are_the_list_cut_up(client: marquee.Client, door: Any) -> None:
    """Neither repeated nor skipped, under one recommendation id."""
    whole = client.recommend(door.user, page_size=60)
    pages = []
    for page in client.recommend_pages(door.user, page_size=7):
        pages.append(page)
        if sum(map(len, pages)) >= 60:
            break
    assert [i for page in pages for i in ids_of(page)][:60] == ids_of(whole)
    assert len({page.recommendation_id for page in pages}) == 1


def test_a_page_token_of_another_request_is_refused(client: marquee.Client, door: Any) -> None:
    """With the reason."""
    token = client.recommend(door.user, page_size=5).next_page_token
    with pytest.raises(marquee.FailedPrecondition) as caught:
        client.recommend(NOBODY, page_size=5, page_token=token)
    assert caught.value.reason == "PAGE_TOKEN_MISMATCH"


def test_a_release_and_a_model_can_be_pinned(client: marquee.Client, door: Any) -> None:
    """Those that exist answer alone; those that do not are named."""
    answer = client.recommend(door.user)
    model = answer.source.models[0].model
    release = answer.source.release_id
    pinned = client.recommend(door.user, model=model, release_id=release)
    # A model of affinity ranks alone as well; stars are then the gateway's own.
    assert [share.model for share in pinned.source.models if share.ranking_weight] == [model]
    for option, reason in (("model", "MODEL_NOT_FOUND"), ("release_id", "RELEASE_NOT_FOUND")):
        with pytest.raises(marquee.NotFound) as caught:
            client.recommend(door.user, **{option: NOBODY})  # type: ignore[arg-type]
        assert caught.value.reason == reason
        assert caught.value.metadata == {option: NOBODY}


def test_a_batch_answers_every_subject(client: marquee.Client, door: Any) -> None:
    """As the single call does; one subject's error is its own."""
    subjects = [door.user, NOBODY, marquee.Subject(user_id="x" * 65), door.user]
    answers = {answer.index: answer for answer in client.batch_recommend(subjects)}
    assert sorted(answers) == [0, 1, 2, 3]
    assert isinstance(answers[2].error, marquee.InvalidArgument)
    for place, user in ((0, door.user), (1, NOBODY), (3, door.user)):
        found = answers[place].recommendations
        assert found is not None
        assert ids_of(found) == ids_of(client.recommend(user))


def test_a_large_batch_streams_through(client: marquee.Client, door: Any) -> None:
    """Thousands of subjects, slowly taken, each once."""
    subjects = [door.user if n % 2 else f"{NOBODY}-{n}" for n in range(2_000)]
    places = [answer.index for answer in client.batch_recommend(subjects)]
    assert sorted(places) == list(range(2_000))


def test_predictions_keep_the_order_asked_for(client: marquee.Client, door: Any) -> None:
    """Unknown items are told in their place."""
    ids = ids_of(client.recommend(door.user))[::-1]
    predicted = client.predict_ratings(door.user, [NOBODY, *ids])
    assert [entry.item_id for entry in predicted] == [NOBODY, *ids]
    assert predicted[0].stars is None
    assert all(entry.stars is not None for entry in predicted[1:])


def test_similar_items_are_most_similar_first(client: marquee.Client) -> None:
    """Without the item itself; filters apply."""
    item = an_item(client)
    similar = client.similar_items(item.item_id, include_metadata=True)
    values = [entry.similarity for entry in similar]
    assert values == sorted(values, reverse=True)
    assert item.item_id not in [entry.item_id for entry in similar]
    excluded = [entry.item_id for entry in similar][:3]
    rest = client.similar_items(item.item_id, excluded_item_ids=excluded)
    assert not set(excluded) & {entry.item_id for entry in rest}


def test_items_are_found_by_their_titles(client: marquee.Client) -> None:
    """Search and lookup agree; an unknown item is named."""
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
    """What serves, and how well."""
    status = client.status()
    assert status.release is not None
    assert status.release.models
    assert {backend.backend for backend in status.backends} == {"cf", "inference"}
    assert status.release.release_id in status.loaded_release_ids


def test_violations_are_told_field_by_field(client: marquee.Client) -> None:
    """The details of an error come through whatever is between."""
    with pytest.raises(marquee.InvalidArgument) as caught:
        client.recommend("x" * 65, page_size=1001, diversity=2)
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"subject.user_id", "page_size", "options.diversity"}
    assert caught.value.reason == "INVALID_FIELD"


def test_an_error_of_many_fields_fits_into_a_trailer(client: marquee.Client) -> None:
    """A thousand bad ratings are an error of the caller, not of the transport."""
    with pytest.raises(marquee.InvalidArgument) as caught:
        client.recommend(ratings={f"{'i' * 64}{n}": float("nan") for n in range(1_000)})
    assert 0 < len(caught.value.violations) < 1_000
    assert int(caught.value.metadata["omitted"]) > 0


def test_the_largest_requests_are_answered(client: marquee.Client, door: Any) -> None:
    """A thousand ratings, ten thousand excluded items and a page of a thousand."""
    answer = client.recommend(
        marquee.Subject(door.user, {f"{'i' * 50}{n}": 3 for n in range(1_000)}),
        excluded_item_ids=[f"{'x' * 50}{n}" for n in range(10_000)],
        page_size=1000,
    )
    assert len(answer.unknown_item_ids) == 11_000
    assert len(answer) > 20


def test_a_deadline_ends_a_call(door: Any) -> None:
    """The caller gets its own error, soon: this batch takes many times as long."""
    visitors = [marquee.Subject(liked_item_ids=[f"{NOBODY}-{n}"]) for n in range(5_000)]
    with door.client() as hasty, pytest.raises(marquee.DeadlineExceeded):
        list(hasty.batch_recommend(visitors, timeout=0.02))


def test_many_threads_share_a_client(client: marquee.Client, door: Any) -> None:
    """Each gets its own answer."""
    users = [door.user if n % 2 else f"{NOBODY}-{n}" for n in range(200)]
    expected = {
        True: ids_of(client.recommend(door.user)),
        False: ids_of(client.recommend(NOBODY)),
    }
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(client.recommend, users))
    for user, answer in zip(users, answers, strict=True):
        assert ids_of(answer) == expected[user == door.user]


def test_reflection_is_enough_to_call(channel: grpc.Channel, door: Any) -> None:
    """As grpcurl does it: lists the services, and calls from the descriptors alone."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName(SERVICE).FindMethodByName("Recommend")
    request = message_factory.GetMessageClass(method.input_type)()
    json_format.ParseDict({"subject": {"userId": door.user}, "pageSize": 3}, request)
    call: Any = channel.unary_unary(
        f"/{SERVICE}/Recommend",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    assert len(json_format.MessageToDict(call(request, timeout=PATIENT_S))["items"]) == 3


def test_health_says_serving(channel: grpc.Channel) -> None:
    """For the server and for the service."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_bytes_that_are_no_message_are_the_callers_error(channel: grpc.Channel) -> None:
    """A plain call sees the google.rpc.Status, with domain and reason."""
    call: Any = channel.unary_unary(f"/{SERVICE}/Recommend")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff", timeout=PATIENT_S)
    error: Any = caught.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = status_pb2.Status.FromString(
        dict(error.trailing_metadata())["grpc-status-details-bin"]
    )
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert (info.domain, info.reason) == ("marquee.v1", "INVALID_FIELD")


def test_every_way_in_gives_the_same_answer(
    channel: grpc.Channel, door: Any, doors: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Message by message, but for ids and times of the call."""
    if request.config.getoption("--address"):
        pytest.skip("there is one way in only")
    with doors["direct"].channel() as direct:
        straight, here = (RecommenderServiceStub(c) for c in (direct, channel))
        for size, diversity, kind in ((0, 0.0, door.user), (100, 0.5, NOBODY), (1000, 0.0, "")):
            subject = types_pb2.Subject(user_id=kind, liked_item_ids=[] if kind else ["i1"])
            options = pb.RecommendOptions(diversity=diversity, include_metadata=True)
            wanted = pb.RecommendRequest(subject=subject, page_size=size, options=options)
            first = straight.Recommend(wanted, timeout=PATIENT_S)
            second = here.Recommend(wanted, timeout=PATIENT_S)
            assert list(first.items) == list(second.items)
            assert list(first.source.models) == list(second.source.models)
