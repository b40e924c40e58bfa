"""Makes request messages of what callers give.

Constraints are the server's to check: what breaks one comes back as `InvalidArgument`. Refused here
is only what a message could not carry as it was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Unpack

from marquee._options import ItemFilter, RecommendOptions, Subject
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2


def subject(
    who: str | Subject | None,
    ratings: Mapping[str, float] | None = None,
    liked_item_ids: Iterable[str] = (),
) -> Subject:
    """The subject that a call names: a user's id or a `Subject`, or its parts.

    Raises:
        TypeError: A `Subject` comes with parts besides, or an id is not a string.
    """
    liked = strings("liked_item_ids", liked_item_ids)
    if isinstance(who, Subject):
        if ratings or liked:
            raise TypeError("give a Subject, or ratings and liked_item_ids; not both")
        return who
    if who is not None and not isinstance(who, str):
        raise TypeError(f"a user id is a string, not {type(who).__name__}")
    return Subject(who or "", dict(ratings or {}), liked)


def subjects(whos: Iterable[str | Subject]) -> list[Subject]:
    """The subjects that a batch names.

    Raises:
        TypeError: They are one string, or one of them is no subject.
    """
    if isinstance(whos, str):
        raise TypeError("subjects takes several subjects, not one")
    return [subject(who) for who in whos]


def recommend(
    who: Subject, page_size: int, page_token: str, options: RecommendOptions
) -> pb.RecommendRequest:
    """The request of `recommend`."""
    return pb.RecommendRequest(
        subject=subject_message(who),
        page_size=page_size,
        page_token=page_token,
        options=recommend_options(**options),
    )


def batch_recommend(
    subjects: Iterable[Subject], page_size: int, options: RecommendOptions
) -> pb.BatchRecommendRequest:
    """The request of `batch_recommend`."""
    return pb.BatchRecommendRequest(
        subjects=map(subject_message, subjects),
        page_size=page_size,
        options=recommend_options(**options),
    )


def predict_ratings(
    who: Subject, item_ids: Iterable[str], release_id: str, model: str
) -> pb.PredictRatingsRequest:
    """The request of `predict_ratings`."""
    return pb.PredictRatingsRequest(
        subject=subject_message(who),
        item_ids=strings("item_ids", item_ids),
        release_id=release_id,
        model=model,
    )


def similar_items(
    item_id: str,
    page_size: int,
    release_id: str,
    model: str,
    include_metadata: bool,
    filters: ItemFilter,
) -> pb.SimilarItemsRequest:
    """The request of `similar_items`."""
    return pb.SimilarItemsRequest(
        item_id=item_id,
        page_size=page_size,
        filter=item_filter(**filters),
        release_id=release_id,
        model=model,
        include_metadata=include_metadata,
    )


def subject_message(who: Subject) -> types_pb2.Subject:
    """The message of a subject."""
    return types_pb2.Subject(
        user_id=who.user_id,
        ratings=[types_pb2.Rating(item_id=item, stars=s) for item, s in who.ratings.items()],
        liked_item_ids=strings("liked_item_ids", who.liked_item_ids),
    )


def item_filter(
    *,
    genres_any: Iterable[str] = (),
    genres_all: Iterable[str] = (),
    genres_none: Iterable[str] = (),
    year_min: int | None = None,
    year_max: int | None = None,
    allowed_item_ids: Iterable[str] | None = None,
    excluded_item_ids: Iterable[str] = (),
) -> types_pb2.ItemFilter:
    """The message of the options of `ItemFilter`.

    Raises:
        TypeError: A list of strings is one string.
        ValueError: The allow-list is empty, which on the wire would allow every item.
    """
    allowed = strings("allowed_item_ids", () if allowed_item_ids is None else allowed_item_ids)
    if allowed_item_ids is not None and not allowed:
        raise ValueError("allowed_item_ids is empty: no item would qualify; None does not filter")
    return types_pb2.ItemFilter(
        genres_any=strings("genres_any", genres_any),
        genres_all=strings("genres_all", genres_all),
        genres_none=strings("genres_none", genres_none),
        year_min=year_min,
        year_max=year_max,
        allowed_item_ids=allowed,
        excluded_item_ids=strings("excluded_item_ids", excluded_item_ids),
    )


def recommend_options(
    *,
    include_seen: bool = False,
    min_predicted_stars: float | None = None,
    diversity: float = 0.0,
    release_id: str = "",
    model: str = "",
    include_metadata: bool = False,
    include_reasons: bool = False,
    **filters: Unpack[ItemFilter],
) -> pb.RecommendOptions:
    """The message of the options of `RecommendOptions`; raises as `item_filter` does."""
    wanted = item_filter(**filters)
    return pb.RecommendOptions(
        filter=wanted if wanted.ByteSize() else None,
        include_seen=include_seen,
        min_predicted_stars=min_predicted_stars,
        diversity=diversity,
        release_id=release_id,
        model=model,
        include_metadata=include_metadata,
        include_reasons=include_reasons,
    )


def strings(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """The values as a tuple.

    Raises:
        TypeError: They are one string, whose letters would each be taken for a value.
    """
    if isinstance(values, str):
        raise TypeError(f"{name} takes several strings, not one")
    return tuple(values)
