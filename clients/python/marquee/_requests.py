"""Builds request messages from the arguments of the clients.

The checks here reject only arguments that would silently become a request with a different meaning.
The server checks the constraints of the API and reports violations as `InvalidArgument`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Unpack

from marquee._arguments import integer, number, stars_by_item, strings, text
from marquee._options import ItemFilter, Subject
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2


def subject(
    user: str | Subject | None,
    ratings: Mapping[str, float] | None = None,
    liked_item_ids: Iterable[str] = (),
) -> Subject:
    """Creates the subject described by the arguments of a call.

    Args:
        user: A user's id or a complete `Subject`; None for a visitor.
        ratings: Ratings in stars by item id.
        liked_item_ids: The ids of items that the subject likes.

    Raises:
        TypeError: A `Subject` is combined with ratings or liked items, an id is not a string, a
            rating is not a number, or `liked_item_ids` is a single string.
    """
    liked = strings("liked_item_ids", liked_item_ids)
    stars = stars_by_item("ratings", ratings)
    if isinstance(user, Subject):
        if stars or liked:
            raise TypeError("give either a Subject, or ratings and liked_item_ids, not both")
        return user
    return Subject("" if user is None else text("a user id", user), stars, liked)


def subjects(users: Iterable[str | Subject]) -> list[Subject]:
    """Returns the subjects of a batch.

    Args:
        users: User ids and `Subject`s.

    Raises:
        TypeError: `users` is a single string, or has an entry that is neither a string nor a
            `Subject`.
    """
    if isinstance(users, str):
        raise TypeError("subjects must be an iterable of subjects, not a single string")
    return [subject(user) for user in users]


def recommend(
    subject: Subject, page_size: int, page_token: str, options: pb.RecommendOptions
) -> pb.RecommendRequest:
    """Builds the request of `recommend`."""
    return pb.RecommendRequest(
        subject=subject_message(subject),
        page_size=integer("page_size", page_size),
        page_token=text("page_token", page_token),
        options=options,
    )


def batch_recommend(
    subjects: Iterable[Subject], page_size: int, options: pb.RecommendOptions
) -> pb.BatchRecommendRequest:
    """Builds the request of `batch_recommend`."""
    return pb.BatchRecommendRequest(
        subjects=map(subject_message, subjects),
        page_size=integer("page_size", page_size),
        options=options,
    )


def predict_ratings(
    subject: Subject, item_ids: Iterable[str], release_id: str, model: str
) -> pb.PredictRatingsRequest:
    """Builds the request of `predict_ratings`."""
    return pb.PredictRatingsRequest(
        subject=subject_message(subject),
        item_ids=strings("item_ids", item_ids),
        release_id=text("release_id", release_id),
        model=text("model", model),
    )


def similar_items(
    item_id: str,
    page_size: int,
    release_id: str,
    model: str,
    include_metadata: bool,
    filters: types_pb2.ItemFilter,
) -> pb.SimilarItemsRequest:
    """Builds the request of `similar_items`."""
    return pb.SimilarItemsRequest(
        item_id=text("item_id", item_id),
        page_size=integer("page_size", page_size),
        filter=filters,
        release_id=text("release_id", release_id),
        model=text("model", model),
        include_metadata=include_metadata,
    )


def search_items(query: str, page_size: int, page_token: str) -> pb.SearchItemsRequest:
    """Builds the request of `search_items`."""
    return pb.SearchItemsRequest(
        query=text("query", query),
        page_size=integer("page_size", page_size),
        page_token=text("page_token", page_token),
    )


def get_item(item_id: str) -> pb.GetItemRequest:
    """Builds the request of `get_item`."""
    return pb.GetItemRequest(item_id=text("item_id", item_id))


def subject_message(subject: Subject) -> types_pb2.Subject:
    """Builds the message of a subject.

    Raises:
        TypeError: An id is not a string, a rating is not a number, or `liked_item_ids` is a single
            string.
    """
    return types_pb2.Subject(
        user_id=text("user_id", subject.user_id),
        ratings=[
            types_pb2.Rating(item_id=item_id, stars=stars)
            for item_id, stars in stars_by_item("ratings", subject.ratings).items()
        ],
        liked_item_ids=strings("liked_item_ids", subject.liked_item_ids),
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
    """Builds the message of an `ItemFilter`.

    Raises:
        TypeError: An argument that must be an iterable of strings is a single string or contains
            other values, or a year is not an integer.
        ValueError: `allowed_item_ids` is empty. The message cannot distinguish an empty list from
            None, so the server would allow every item.
    """
    allowed = strings("allowed_item_ids", () if allowed_item_ids is None else allowed_item_ids)
    if allowed_item_ids is not None and not allowed:
        raise ValueError("allowed_item_ids is empty, so no item would pass; use None for no filter")
    return types_pb2.ItemFilter(
        genres_any=strings("genres_any", genres_any),
        genres_all=strings("genres_all", genres_all),
        genres_none=strings("genres_none", genres_none),
        year_min=None if year_min is None else integer("year_min", year_min),
        year_max=None if year_max is None else integer("year_max", year_max),
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
    """Builds the message of `RecommendOptions`.

    Raises:
        TypeError: An argument has the wrong type; see also `item_filter`.
        ValueError: `allowed_item_ids` is empty.
    """
    stars, filter_message = min_predicted_stars, item_filter(**filters)
    return pb.RecommendOptions(
        filter=filter_message if filter_message.ByteSize() else None,
        include_seen=include_seen,
        min_predicted_stars=None if stars is None else number("min_predicted_stars", stars),
        diversity=number("diversity", diversity),
        release_id=text("release_id", release_id),
        model=text("model", model),
        include_metadata=include_metadata,
        include_reasons=include_reasons,
    )
