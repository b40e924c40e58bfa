"""Subjects: known users, visitors that are folded in, and cold starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gateway.calls import TIMEOUT_S, Rating, Subject, request_for
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.feedback.events import EntryType, FeedbackEvent, FeedbackKind, LogEntry
from marquee_core.ratings import RatingsMatrix
from marquee_core.release.manifest import IMPLICIT
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.ranking.subjects import resolve_subject


async def test_a_user_without_training_ratings_is_a_cold_start(services: Any) -> None:
    """The release knows the id, but the models know nothing about the user."""
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


async def test_a_visitor_is_folded_in_and_gets_unrated_items(stub: Any) -> None:
    """Ratings in the request change the answer, and unknown item ids are reported."""
    rated = [Rating(item_id=f"i{n}", stars=5 if n < 3 else 1) for n in range(6)]
    subject = Subject(ratings=[*rated, Rating(item_id="gone", stars=3)], liked_item_ids=["i9"])
    answer = await stub.Recommend(pb.RecommendRequest(subject=subject), timeout=TIMEOUT_S)
    assert answer.subject_kind == types_pb2.SUBJECT_KIND_VISITOR
    assert answer.unknown_item_ids == ["gone"]
    ids = [item.item_id for item in answer.items]
    assert not set(ids) & {"i0", "i1", "i2", "i3", "i4", "i5", "i9"}
    cold = await stub.Recommend(request_for("nobody"), timeout=TIMEOUT_S)
    assert ids != [item.item_id for item in cold.items]


async def test_folding_in_the_ratings_of_a_known_user_gives_the_same_list(
    stub: Any, services: Any
) -> None:
    """Folding in the training ratings of a user equals training on them."""
    release = services.gateway.releases.serving
    profile = release.data.matrix.profiles([release.users.index("u7")])
    ids = release.catalogue.items.ids(profile.items)
    ratings = [
        Rating(item_id=i, stars=s) for i, s in zip(ids, profile.ratings.tolist(), strict=True)
    ]
    visitor = pb.RecommendRequest(subject=Subject(ratings=ratings))
    as_visitor = await stub.Recommend(visitor, timeout=TIMEOUT_S)
    as_user = await stub.Recommend(request_for(), timeout=TIMEOUT_S)
    assert [i.item_id for i in as_visitor.items] == [i.item_id for i in as_user.items]


async def test_new_ratings_replace_those_of_the_release(stub: Any) -> None:
    """A rating in the request replaces the training rating of the user."""
    subject = Subject(user_id="u7", ratings=[Rating(item_id="i5", stars=1)])
    answer = await stub.Recommend(pb.RecommendRequest(subject=subject), timeout=TIMEOUT_S)
    assert answer.subject_kind == types_pb2.SUBJECT_KIND_KNOWN_WITH_FRESH_RATINGS
    assert "i5" not in [item.item_id for item in answer.items]


async def test_a_dislike_is_not_an_interaction_in_implicit_feedback(
    services: Any,
) -> None:
    """The profile contains the item with a strength below that of all interactions."""
    release = services.gateway.releases.serving
    data = replace(release.manifest.data, feedback=IMPLICIT, rating_min=0.0, rating_max=9.0)
    implicit = replace(release, manifest=replace(release.manifest, data=data))
    events = tuple(
        FeedbackEvent("new", item, kind, 0.0, time, f"k{time}")
        for time, (item, kind) in enumerate(
            [("i1", FeedbackKind.LIKE), ("i2", FeedbackKind.DISLIKE)], start=1
        )
    )
    fresh = FreshFeedback(1024 * 1024)
    fresh.apply(
        [
            LogEntry(place, EntryType.EVENT, event, 0, b"")
            for place, event in enumerate(events, start=1)
        ]
    )
    feedback = fresh.of("new", 0)
    resolved = resolve_subject(implicit, Subject(user_id="new"), feedback=feedback)
    strengths = dict(zip(resolved.items.tolist(), resolved.ratings.tolist(), strict=True))
    liked, disliked = release.catalogue.items.indexes(["i1", "i2"]).tolist()
    assert strengths[liked] == 9.0
    assert strengths[disliked] < 0.0
