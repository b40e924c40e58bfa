"""The gateway over real sockets: answers, filters, pages, degradation, releases."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.ratings import RatingsMatrix
from marquee_services.errors import PageTokenMismatch
from marquee_services.gateway.backends.failures import BackendError, Failure
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.ranking.subjects import resolve_subject

Subject: TypeAlias = types_pb2.Subject
Rating: TypeAlias = types_pb2.Rating
Filter: TypeAlias = types_pb2.ItemFilter


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    """A stub of the gateway."""
    return RecommenderServiceStub(channel)


def known(user: str = "u7", **options: Any) -> pb.RecommendRequest:
    """A request for a known user."""
    size = options.pop("page_size", 0)
    return pb.RecommendRequest(
        subject=Subject(user_id=user), page_size=size, options=pb.RecommendOptions(**options)
    )


async def failure(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, list[str]]:
    """Code, reason and violated fields of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, fields = error_details_pb2.ErrorInfo(), []
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            fields = [violation.field for violation in bad.field_violations]
        detail.Unpack(info)
    assert info.domain == "marquee.v1"
    assert status.code == caught.value.code().value[0]
    return caught.value.code(), info.reason, fields


async def test_a_known_user_gets_a_full_page_of_unseen_items(stub: Any, services: Any) -> None:
    """The first promise of the API, and what the answer says about itself."""
    answer = await stub.Recommend(known(include_metadata=True), timeout=5)
    assert [item.rank for item in answer.items] == list(range(1, 21))
    assert answer.subject_kind == types_pb2.SUBJECT_KIND_KNOWN
    assert answer.source.release_id == services.first.release_id
    assert not answer.source.degraded
    assert {w.model for w in answer.source.models} >= {"item_cf", "ease", "mf", "popularity"}
    release = services.gateway.releases.serving
    seen = set(release.catalogue.items.ids(release.data.matrix.seen(release.users.index("u7"))))
    assert seen
    assert not seen & {item.item_id for item in answer.items}
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert all(1 <= item.predicted_stars <= 5 for item in answer.items)
    assert any(item.proposed_by for item in answer.items)
    assert answer.items[0].metadata.title.startswith("Film Number")
    assert answer.source.server_time_us > 0


async def test_the_score_is_the_blend_of_the_backends_scores(stub: Any, services: Any) -> None:
    """What travels through three processes equals the same sum done in one."""
    answer = await stub.Recommend(known(page_size=1000), timeout=5)
    release = services.gateway.releases.serving
    profile = release.data.matrix.profiles([release.users.index("u7")])
    outputs = {
        "baseline": release.data.baseline.score(profile)[0],
        "popularity": release.popularity,
    }
    for scoring in services.scoring.values():
        for name, scorer in scoring.follower.newest().scorers.items():
            outputs[name] = scorer.score(profile)[0]
    blends = release.ensemble.blends(("cf", "inference"))
    for item in answer.items:
        index = release.catalogue.items.index(item.item_id)
        score = sum(w * outputs[m][index] for m, w in blends.ranking.weights.items()) + 0.125
        stars = sum(w * outputs[m][index] for m, w in blends.rating.weights.items())
        assert item.score == pytest.approx(score, abs=1e-5)
        assert item.predicted_stars == pytest.approx(min(max(stars, 1), 5), abs=1e-5)


async def test_an_unknown_user_gets_the_cold_start_answer(stub: Any) -> None:
    """Nobody is an error; nothing is degraded; everybody unknown gets the same."""
    answer = await stub.Recommend(known("nobody"), timeout=5)
    assert answer.subject_kind == types_pb2.SUBJECT_KIND_COLD_START
    assert not answer.source.degraded
    assert len(answer.items) == 20
    again = await stub.Recommend(known("somebody-else"), timeout=5)
    assert [i.item_id for i in answer.items] == [i.item_id for i in again.items]


async def test_a_user_without_training_ratings_starts_cold(services: Any) -> None:
    """The models know nothing of such a user, though the release knows the id."""
    release = services.gateway.releases.serving
    matrix = release.data.matrix
    user = release.users.index("u7")
    others = np.repeat(np.arange(40), np.diff(matrix.indptr)) != user
    rows = np.repeat(np.arange(40, dtype=np.int32), np.diff(matrix.indptr))[others]
    without = RatingsMatrix.of(rows, matrix.items[others], matrix.ratings[others], 40, 120)
    changed = replace(release, data=replace(release.data, matrix=without))
    assert resolve_subject(changed, Subject(user_id="u7")).kind == (
        types_pb2.SUBJECT_KIND_COLD_START
    )
    rated = Subject(user_id="u7", ratings=[Rating(item_id="i1", stars=4)])
    assert resolve_subject(changed, rated).kind == types_pb2.SUBJECT_KIND_VISITOR


async def test_a_visitor_is_folded_in_and_does_not_get_what_was_rated(stub: Any) -> None:
    """Ratings in the request move the answer; unknown ids are reported."""
    rated = [Rating(item_id=f"i{n}", stars=5 if n < 3 else 1) for n in range(6)]
    subject = Subject(ratings=[*rated, Rating(item_id="gone", stars=3)], liked_item_ids=["i9"])
    answer = await stub.Recommend(pb.RecommendRequest(subject=subject), timeout=5)
    assert answer.subject_kind == types_pb2.SUBJECT_KIND_VISITOR
    assert answer.unknown_item_ids == ["gone"]
    ids = [item.item_id for item in answer.items]
    assert not set(ids) & {"i0", "i1", "i2", "i3", "i4", "i5", "i9"}
    cold = await stub.Recommend(known("nobody"), timeout=5)
    assert ids != [item.item_id for item in cold.items]


async def test_a_known_users_own_ratings_as_a_visitor_give_the_same_list(
    stub: Any, services: Any
) -> None:
    """Fold-in agrees with what was trained."""
    release = services.gateway.releases.serving
    profile = release.data.matrix.profiles([release.users.index("u7")])
    ids = release.catalogue.items.ids(profile.items)
    ratings = [
        Rating(item_id=i, stars=s) for i, s in zip(ids, profile.ratings.tolist(), strict=True)
    ]
    visitor = pb.RecommendRequest(subject=Subject(ratings=ratings))
    as_visitor = await stub.Recommend(visitor, timeout=5)
    as_user = await stub.Recommend(known(), timeout=5)
    assert [i.item_id for i in as_visitor.items] == [i.item_id for i in as_user.items]


async def test_fresh_ratings_replace_those_of_the_release(stub: Any) -> None:
    """A known user's rating in the request wins over the trained one."""
    subject = Subject(user_id="u7", ratings=[Rating(item_id="i5", stars=1)])
    answer = await stub.Recommend(pb.RecommendRequest(subject=subject), timeout=5)
    assert answer.subject_kind == types_pb2.SUBJECT_KIND_KNOWN_WITH_FRESH_RATINGS
    assert "i5" not in [item.item_id for item in answer.items]


@pytest.mark.parametrize(
    ("item_filter", "qualifies"),
    [
        (Filter(genres_any=["comedy"]), lambda i: "Comedy" in i.genres),
        (Filter(genres_all=["Comedy", "Drama"]), lambda i: {"Comedy", "Drama"} <= set(i.genres)),
        (Filter(genres_none=["War"]), lambda i: "War" not in i.genres),
        (Filter(year_min=1990), lambda i: i.year >= 1990),
        (Filter(year_max=1960), lambda i: 0 < i.year <= 1960),
        (Filter(allowed_item_ids=["i1", "i2", "x"]), lambda i: i.item_id in {"i1", "i2"}),
        (Filter(excluded_item_ids=["i1"]), lambda i: i.item_id != "i1"),
        (Filter(genres_all=["No Such Genre"]), lambda i: False),
    ],
)
async def test_filters_apply_before_the_cut(
    stub: Any, item_filter: Filter, qualifies: Callable[[types_pb2.Item], bool]
) -> None:
    """A filtered list holds every item that qualifies, and only those."""
    options: dict[str, Any] = {"include_metadata": True, "include_seen": True, "page_size": 1000}
    every = await stub.Recommend(known(**options), timeout=5)
    assert len(every.items) == 120
    some = await stub.Recommend(known(filter=item_filter, **options), timeout=5)
    expected = [i.item_id for i in every.items if qualifies(i.metadata)]
    assert [i.item_id for i in some.items] == expected


async def test_a_least_predicted_rating_filters(stub: Any) -> None:
    """Only items that are predicted well enough are listed, in the same order."""
    every = await stub.Recommend(known(page_size=1000), timeout=5)
    middle = float(np.median([item.predicted_stars for item in every.items]))
    some = await stub.Recommend(known(page_size=1000, min_predicted_stars=middle), timeout=5)
    expected = [i.item_id for i in every.items if i.predicted_stars >= np.float32(middle)]
    assert [i.item_id for i in some.items] == expected


@pytest.mark.parametrize("diversity", [0.0, 0.4])
@pytest.mark.parametrize("dense_limit", [1000, 10])
async def test_pages_neither_repeat_nor_skip_while_releases_change(
    services: Any, diversity: float, dense_limit: int
) -> None:
    """Walking pages through a promotion gives the first release's whole list."""
    gateway = await services.start_gateway(dense_limit=dense_limit, candidates=20)
    await services.until_full(gateway)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        whole = await stub.Recommend(known(page_size=1000, diversity=diversity), timeout=5)
        request = known(page_size=7, diversity=diversity)
        ids: list[str] = []
        lists = set()
        while True:
            page = await stub.Recommend(request, timeout=5)
            lists.add(page.recommendation_id)
            assert page.items[0].rank == len(ids) + 1
            ids += [item.item_id for item in page.items]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
            if len(ids) == 14:
                await services.publish(1)
                await services.until_full(gateway)
        assert len(lists) == 1
        assert ids == [item.item_id for item in whole.items]
        assert page.source.release_id == services.first.release_id
    await gateway.stop(0.5)


async def test_a_page_token_of_another_request_is_refused(stub: Any) -> None:
    """A token belongs to its request, and damage is told."""
    page = await stub.Recommend(known(page_size=5), timeout=5)
    other = known("u8", page_size=5)
    other.page_token = page.next_page_token
    code, reason, _ = await failure(stub.Recommend(other, timeout=5))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAGE_TOKEN_MISMATCH")
    damaged = known(page_size=5)
    damaged.page_token = page.next_page_token[:-4] + "AAAA"
    code, reason, _ = await failure(stub.Recommend(damaged, timeout=5))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAGE_TOKEN_MISMATCH")


@pytest.mark.parametrize(
    "fields",
    [
        [1, "r", ["cf"], "d", 5],
        ["l", "r", "cf", "d", 5],
        ["l", "r", [["cf"]], "d", 5],
        ["l", "r", ["cf"], None, 5],
        ["l", "r", ["cf"], "d", -1],
        ["l", "r", ["cf"], "d", 1.5],
        ["l", "r", ["cf"], "d"],
        {"l": 1},
        7,
    ],
)
def test_a_forged_page_token_is_refused(fields: Any) -> None:
    """Whatever JSON it holds: the check sum is no secret."""
    body = json.dumps(fields).encode()
    check = hashlib.sha256(b"marquee page token" + body).digest()[:8]
    with pytest.raises(PageTokenMismatch):
        PageToken.decode(base64.urlsafe_b64encode(check + body).decode())


async def test_a_page_token_of_backends_that_there_are_not_is_refused(
    stub: Any, services: Any
) -> None:
    """Forged, or of another deployment."""
    request = known(page_size=5)
    token = PageToken.decode((await stub.Recommend(request, timeout=5)).next_page_token)
    request.page_token = replace(token, backends=("elsewhere",)).encode()
    code, reason, _ = await failure(stub.Recommend(request, timeout=5))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAGE_TOKEN_MISMATCH")


async def test_a_further_page_waits_for_the_backends_of_the_first(services: Any) -> None:
    """Lists that are not kept are ranked anew, by all that ranked the first page or not at all."""
    gateway = await services.start_gateway(list_memory=0, answer_memory=0)
    await services.until_full(gateway)
    inference = services.scoring["inference"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        whole, degraded = known(page_size=5), known(page_size=5)
        whole.page_token = (await stub.Recommend(whole, timeout=5)).next_page_token
        await inference.stop()
        code, reason, _ = await failure(stub.Recommend(whole, timeout=5))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE")
        degraded.page_token = (await stub.Recommend(degraded, timeout=5)).next_page_token
        await services.start_backend("inference", inference.bound.port)
        await services.until_full(gateway)
        page = await stub.Recommend(whole, timeout=5)
        assert not page.source.degraded
        # Ranked without inference, like its first page: and it says so.
        page = await stub.Recommend(degraded, timeout=5)
        assert page.source.degraded_reasons == [types_pb2.DEGRADED_REASON_INFERENCE_UNAVAILABLE]
    await gateway.stop(0.5)


async def test_a_backend_that_retrieves_nothing_degrades_the_answer(
    services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its candidates are missing, even where it scores those of the others."""
    gateway = await services.start_gateway(dense_limit=10, candidates=20)
    await services.until_full(gateway)

    async def fail(*_: Any) -> Any:
        raise BackendError("cf", Failure.TIMEOUT, "no answer in time")

    (replica,) = gateway.backends[0].replicas.values()
    monkeypatch.setattr(replica, "retrieve", fail)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        for _ in range(2):
            answer = await RecommenderServiceStub(channel).Recommend(known(), timeout=5)
            assert answer.source.degraded_reasons == [types_pb2.DEGRADED_REASON_CF_TIMEOUT]
            assert len(answer.items) == 20
    await gateway.stop(0.5)


async def test_a_page_token_expires_with_its_release(stub: Any, services: Any) -> None:
    """Once the release is no longer held, the token says so."""
    request = known(page_size=5)
    request.page_token = (await stub.Recommend(request, timeout=5)).next_page_token
    for seed in (1, 2):
        await services.publish(seed)
        await services.until_full()
    code, reason, _ = await failure(stub.Recommend(request, timeout=5))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAGE_TOKEN_EXPIRED")


async def test_reasons_add_up_to_the_score(stub: Any) -> None:
    """Each item's model shares sum to its score; evidence comes with it."""
    answer = await stub.Recommend(known(include_reasons=True), timeout=5)
    for item in answer.items:
        shares = [r.model_share for r in item.reasons if r.HasField("model_share")]
        assert sum(share.contribution for share in shares) == pytest.approx(item.score, abs=1e-5)
        kinds = {reason.WhichOneof("evidence") for reason in item.reasons}
        assert kinds == {"model_share", "rated_item", "similar_users"}


async def test_one_model_alone_can_be_asked(stub: Any) -> None:
    """Only its weight shows, and its scores rank."""
    answer = await stub.Recommend(known(model="mf"), timeout=5)
    assert [w.model for w in answer.source.models] == ["mf"]
    affinity = await stub.Recommend(known(model="ease"), timeout=5)
    assert affinity.items[0].score != affinity.items[0].predicted_stars
    for release_id, model, reason in (
        ("", "no_such_model", "MODEL_NOT_FOUND"),
        ("20000101T000000Z-0", "", "RELEASE_NOT_FOUND"),
    ):
        request = known(model=model, release_id=release_id)
        code, found, _ = await failure(stub.Recommend(request, timeout=5))
        assert (code, found) == (grpc.StatusCode.NOT_FOUND, reason)


async def test_predicted_ratings_keep_order_and_report_unknown_items(stub: Any) -> None:
    """Each item asked for has its place in the answer."""
    ids = ["i50", "gone", "i3", "i119"]
    request = pb.PredictRatingsRequest(subject=Subject(user_id="u7"), item_ids=ids)
    answer = await stub.PredictRatings(request, timeout=5)
    assert [p.item_id for p in answer.predictions] == ids
    assert [p.HasField("stars") for p in answer.predictions] == [True, False, True, True]
    every = await stub.Recommend(known(page_size=1000, include_seen=True), timeout=5)
    stars = {item.item_id: item.predicted_stars for item in every.items}
    for prediction in answer.predictions:
        if prediction.HasField("stars"):
            assert prediction.stars == pytest.approx(stars[prediction.item_id], abs=1e-5)


async def test_unknown_items_alone_are_reported_too(stub: Any) -> None:
    """A request without a single known item is an answer without a prediction."""
    request = pb.PredictRatingsRequest(subject=Subject(user_id="u7"), item_ids=["x", "y"])
    answer = await stub.PredictRatings(request, timeout=5)
    assert [p.item_id for p in answer.predictions] == ["x", "y"]
    assert not any(p.HasField("stars") for p in answer.predictions)
    assert "mf" in {w.model for w in answer.source.models}


@pytest.mark.parametrize("dense_limit", [1000, 10])
async def test_a_filter_that_leaves_nothing_gives_an_empty_list(
    services: Any, dense_limit: int
) -> None:
    """Of small catalogues and of large ones, which are retrieved from first."""
    gateway = await services.start_gateway(dense_limit=dense_limit, candidates=20)
    await services.until_full(gateway)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        nothing = Filter(genres_any=["No Such Genre"])
        answer = await stub.Recommend(known(filter=nothing), timeout=5)
        assert not answer.items
        assert not answer.next_page_token
    await gateway.stop(0.5)


async def test_a_filter_that_leaves_few_is_served_without_retrieving(
    services: Any, stub: Any
) -> None:
    """Of a large catalogue the few that qualify are scored themselves, and all are listed."""
    gateway = await services.start_gateway(dense_limit=10, candidates=20)
    await services.until_full(gateway)
    few = known(filter=Filter(allowed_item_ids=["i3", "i50", "i77"]), include_seen=True)
    small = await stub.Recommend(few, timeout=5)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        large = await RecommenderServiceStub(channel).Recommend(few, timeout=5)
    assert {item.item_id for item in large.items} == {"i3", "i50", "i77"}
    assert [i.item_id for i in large.items] == [i.item_id for i in small.items]
    await gateway.stop(0.5)


async def test_similar_items_leave_out_the_item_itself(stub: Any) -> None:
    """The blend of all models that represent items, most similar first."""
    request = pb.SimilarItemsRequest(item_id="i5", page_size=10, include_metadata=True)
    answer = await stub.SimilarItems(request, timeout=5)
    assert len(answer.items) == 10
    assert "i5" not in [item.item_id for item in answer.items]
    assert {w.model for w in answer.source.models} == {"item_cf", "ease", "mf"}
    values = [item.similarity for item in answer.items]
    assert values == sorted(values, reverse=True)
    code, reason, _ = await failure(
        stub.SimilarItems(pb.SimilarItemsRequest(item_id="gone"), timeout=5)
    )
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")
    request.page_size = 1000
    everything = await stub.SimilarItems(request, timeout=5)
    # What is unlike the item is not similar to it, however long the page.
    assert 10 < len(everything.items) < 119
    assert all(item.similarity > 0 for item in everything.items)


async def test_search_finds_titles_by_words_and_walks_pages(stub: Any) -> None:
    """The last word may be a beginning; pages cover all matches once."""
    request = pb.SearchItemsRequest(query="number FÍLM 11", page_size=4)
    found = []
    while True:
        answer = await stub.SearchItems(request, timeout=5)
        found += [item.title for item in answer.items]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    expected = {f"Film Number {n}" for n in range(120) if str(n).startswith("11")}
    assert len(found) == len(expected)
    assert set(found) == expected
    assert found[0] == "Film Number 11"


async def test_get_item_tells_what_is_known(stub: Any) -> None:
    """Metadata and statistics of one item."""
    answer = await stub.GetItem(pb.GetItemRequest(item_id="i11"), timeout=5)
    assert answer.item.genres
    assert answer.item.rating_count > 0
    code, reason, _ = await failure(stub.GetItem(pb.GetItemRequest(item_id="gone"), timeout=5))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")


async def test_a_batch_answers_every_subject_once(stub: Any) -> None:
    """Errors of one subject do not end the stream, and answers equal the single call's."""
    subjects = [Subject(user_id=f"u{n}") for n in range(30)]
    subjects[4] = Subject(ratings=[Rating(item_id="i1", stars=9)])
    subjects[5] = Subject()
    request = pb.BatchRecommendRequest(subjects=subjects, page_size=5)
    answers = {
        answer.subject_index: answer
        async for response in stub.BatchRecommend(request, timeout=10)
        for answer in response.answers
    }
    assert sorted(answers) == list(range(30))
    assert answers[4].error.reason == "INVALID_FIELD"
    assert "subjects[4].ratings[0].stars" in answers[4].error.message
    assert answers[5].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    single = await stub.Recommend(known("u9", page_size=5), timeout=5)
    ids = [item.item_id for item in answers[9].recommendations.items]
    assert ids == [item.item_id for item in single.items]


async def test_status_names_release_models_and_backends(stub: Any, services: Any) -> None:
    """All that an operator asks first."""
    status = await stub.GetStatus(pb.GetStatusRequest(), timeout=5)
    assert status.release.release_id == services.first.release_id
    assert {m.weight.model: m.backend for m in status.release.models}["mf"] == "inference"
    assert [(b.backend, b.healthy) for b in status.backends] == [("cf", True), ("inference", True)]
    assert status.release.ensemble_metrics["test_mse"] == 0.9
    assert status.pending_release_reason == ""


async def test_a_lost_backend_degrades_and_its_return_heals(stub: Any, services: Any) -> None:
    """The rest of the ensemble answers, popular items at last, and all again when all is back."""
    inference = services.scoring["inference"]
    await inference.stop()
    answer = await stub.Recommend(known(), timeout=5)
    assert answer.source.degraded
    assert "mf" not in {w.model for w in answer.source.models}
    assert "item_cf" in {w.model for w in answer.source.models}
    reasons = answer.source.degraded_reasons
    assert reasons == [types_pb2.DEGRADED_REASON_INFERENCE_UNAVAILABLE]
    alone = known(model="mf")
    code, reason, _ = await failure(stub.Recommend(alone, timeout=5))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE")
    await services.scoring["cf"].stop()
    answer = await stub.Recommend(known(), timeout=5)
    assert len(answer.items) == 20
    assert {w.model for w in answer.source.models} == {"baseline", "popularity"}
    assert len(answer.source.degraded_reasons) == 2
    for backend in ("cf", "inference"):
        await services.start_backend(backend, services.scoring[backend].bound.port)
    await services.until_full()
    answer = await stub.Recommend(known(), timeout=5)
    assert not answer.source.degraded


async def test_a_promotion_is_served_without_a_failed_or_mixed_answer(
    stub: Any, services: Any
) -> None:
    """Calls go on through promotions and a rollback; each answer is whole and of one release."""
    seen, stop = [], asyncio.Event()

    async def call() -> None:
        while not stop.is_set():
            answer = await stub.Recommend(known(), timeout=5)
            assert not answer.source.degraded
            seen.append(answer.source.release_id)

    callers = [asyncio.create_task(call()) for _ in range(4)]
    second = await services.publish(1)
    await services.until_full()
    services.store.rollback()
    await services.until_full()
    stop.set()
    await asyncio.gather(*callers)
    assert set(seen) <= {services.first.release_id, second.release_id}
    assert second.release_id in seen
    answer = await stub.Recommend(known(), timeout=5)
    assert answer.source.release_id == services.first.release_id


async def test_a_damaged_release_is_refused_and_the_last_good_one_serves(
    stub: Any, services: Any
) -> None:
    """A backend that cannot load it keeps the gateway from switching, and status says why."""
    bad = await services.publish(1, promote=False)
    folder = services.folder / "store" / "releases" / bad.release_id
    services.store.promote(bad.release_id)
    victim = folder / "models" / "mf" / "vectors.npy"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\xff")
    while True:
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=5)
        if "inference refused" in status.pending_release_reason:
            break
        await asyncio.sleep(0.02)
    assert "SHA-256" in status.pending_release_reason
    answer = await stub.Recommend(known(), timeout=5)
    assert answer.source.release_id == services.first.release_id
    assert not answer.source.degraded


async def test_refused_promotions_do_not_push_out_the_release_in_service(
    stub: Any, services: Any
) -> None:
    """However many there are, and though nobody asks in between."""
    for seed in (1, 2, 3):
        bad = await services.publish(seed, promote=False)
        services.store.promote(bad.release_id)
        folder = services.folder / "store" / "releases" / bad.release_id
        (folder / "models" / "mf" / "vectors.npy").write_bytes(b"")
        await services.until(
            lambda bad=bad: bad.release_id in services.scoring["inference"].follower.refused
        )
        await services.until(
            lambda bad=bad: bad.release_id in services.gateway.backends[0].releases
        )
    for release_id in ("", services.first.release_id):
        answer = await stub.Recommend(known(release_id=release_id), timeout=5)
        assert answer.source.release_id == services.first.release_id
        assert not answer.source.degraded
    # A server that starts now serves what the others do.
    inference = services.scoring["inference"]
    await inference.stop()
    started = await services.start_backend("inference", inference.bound.port)
    await services.until(lambda: started.follower.releases)
    assert started.follower.newest().release_id == services.first.release_id
    assert bad.release_id in started.follower.refused


@pytest.mark.parametrize("name", ["ensemble.json", "data/users.npy", "data/years.npy"])
async def test_a_release_that_lacks_a_file_is_refused(services: Any, name: str) -> None:
    """Though its manifest does not name the file either; it is not tried for ever."""
    manifest = await services.publish(1, promote=False)
    folder = services.folder / "store" / "releases" / manifest.release_id
    content = json.loads((folder / "manifest.json").read_text())
    del content["files"][name]
    (folder / "manifest.json").write_text(json.dumps(content))
    (folder / name).unlink()
    services.store.promote(manifest.release_id)
    await services.until(lambda: manifest.release_id in services.gateway.follower.refused)
    assert services.gateway.releases.serving.release_id == services.first.release_id


async def test_health_says_serving_only_once_a_release_is_loaded(
    services: Any, tmp_path: Path
) -> None:
    """A gateway without a release is alive and not ready, and says so to callers."""
    gateway = await services.start_gateway(store=str(tmp_path / "empty"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "marquee.v1.RecommenderService"):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health.Check(request, timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        stub: Any = RecommenderServiceStub(channel)
        code, reason, _ = await failure(stub.Recommend(known(), timeout=5))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "NO_RELEASE")
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=5)
        assert not status.HasField("release")
        assert status.pending_release_reason == "no release has been promoted"
    await gateway.stop(0.5)
    async with grpc.aio.insecure_channel(services.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="marquee.v1.RecommenderService")
        answer = await health.Check(request, timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_bad_request_names_each_field(stub: Any) -> None:
    """All violations come at once, by their paths."""
    request = pb.RecommendRequest(
        subject=Subject(
            user_id="x" * 65,
            ratings=[Rating(item_id="i1", stars=float("nan")), Rating(item_id="i1", stars=3)],
        ),
        page_size=-1,
        options=pb.RecommendOptions(diversity=2, filter=Filter(genres_any=["a\nb"])),
    )
    code, reason, fields = await failure(stub.Recommend(request, timeout=5))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(fields) == {
        "subject.user_id",
        "subject.ratings[0].stars",
        "subject.ratings[1]",
        "page_size",
        "options.diversity",
        "options.filter.genres_any[0]",
    }


async def test_bytes_that_are_no_message_are_the_callers_error(channel: grpc.aio.Channel) -> None:
    """Garbage gets INVALID_ARGUMENT, not INTERNAL."""
    call: Any = channel.unary_unary("/marquee.v1.RecommenderService/Recommend")
    code, reason, _ = await failure(call(b"\xff\xff\xff", timeout=5))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_too_many_calls_are_shed_with_a_reason(services: Any) -> None:
    """Load beyond the limit is refused at once, and what is admitted is answered."""
    gateway = await services.start_gateway(max_calls=2)
    await services.until_full(gateway)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        calls = [stub.Recommend(known(f"u{n}"), timeout=5) for n in range(30)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    shed = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert shed
    assert len(shed) < len(results)
    assert {error.code() for error in shed} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    await gateway.stop(0.5)
