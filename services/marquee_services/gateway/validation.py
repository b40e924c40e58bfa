"""Validates public requests before any other work; the proto files document the limits.

All violations of a request are collected, so that the caller gets them in one error. Constraints
that depend on a release, such as the rating scale, are checked when the request is resolved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from marquee.v1 import feedback_service_pb2 as feedback_pb
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.errors import FieldViolation, InvalidFields
from marquee_services.gateway.rated_items import RatedItems

MAX_ID_LENGTH = 256
MAX_RATINGS = 1_000
MAX_LIKED = 100
MAX_GENRES = 32
MAX_FILTER_IDS = 10_000
MAX_PAGE_SIZE = 1_000
MAX_PAGE_SIZE_WITH_REASONS = 100
MAX_PREDICTED = 1_000
MAX_BATCH_SUBJECTS = 10_000
MAX_BATCH_RATINGS = 100_000
MAX_QUERY_LENGTH = 200
MAX_TOKEN_LENGTH = 1_024
MAX_EVENTS = 1_000
MAX_KEY_LENGTH = 128
MAX_LIST_ID_LENGTH = 64
DEFAULT_PAGE_SIZE = 20

# The last second of the year 9999, in seconds since 1970.
_LAST_SECOND = 253_402_300_799

_KINDS = frozenset(feedback_pb.FeedbackKind.values()) - {0}

_M = TypeVar("_M", bound=Message)


class _Checker:
    """Collects the violations of a request."""

    def __init__(self, rated: RatedItems | None = None) -> None:
        self.violations: list[FieldViolation] = []
        self.rated = rated

    def require(self, holds: bool, field: str, reason: str) -> None:
        if not holds:
            self.violations.append(FieldViolation(field, reason))

    def text(self, field: str, value: str, max_length: int, *, allow_empty: bool) -> None:
        self.require(allow_empty or bool(value), field, "empty")
        self.require(len(value) <= max_length, field, f"longer than {max_length} characters")
        self.require(value.isprintable(), field, "contains characters that are not printable")

    def id(self, field: str, value: str, *, allow_empty: bool = False) -> None:
        """Checks the id of a user or item: any text without NUL, which databases cannot store."""
        self.require(allow_empty or bool(value), field, "empty")
        self.require(len(value) <= MAX_ID_LENGTH, field, f"longer than {MAX_ID_LENGTH} characters")
        self.require("\0" not in value, field, "contains a NUL character")

    def texts(
        self,
        field: str,
        values: Sequence[str],
        max_count: int,
        *,
        min_count: int = 0,
        distinct: bool = False,
    ) -> None:
        self.entries(field, len(values), min_count, max_count)
        if not values:
            return
        values = values[:max_count]
        if _are_distinct_ids(values):
            return
        for position, value in enumerate(values):
            self.id(f"{field}[{position}]", value)
        if distinct:
            self.distinct(field, values)

    def distinct(self, field: str, values: Sequence[str]) -> None:
        seen: set[str] = set()
        for position, value in enumerate(values):
            self.require(value not in seen, f"{field}[{position}]", "occurs twice")
            seen.add(value)

    def size(self, field: str, value: int, high: int) -> None:
        self.require(0 <= value <= high, field, f"must be between 0 and {high}, not {value}")

    def entries(self, field: str, count: int, low: int, high: int) -> None:
        limits = f"between {low} and {high} entries" if low else f"at most {high} entries"
        self.require(low <= count <= high, field, f"must have {limits}, not {count}")

    def number(self, field: str, value: float, low: float, high: float) -> None:
        holds = math.isfinite(value) and low <= value <= high
        limits = f"between {low:g} and {high:g}" if math.isfinite(high) else "a finite number"
        self.require(holds, field, f"must be {limits}, not {value:g}")


def _are_distinct_ids(values: Sequence[str]) -> bool:
    """Returns whether `_Checker.id` and `_Checker.distinct` would find no violation."""
    return (
        len(set(values)) == len(values)
        and all(values)
        and max(map(len, values), default=0) <= MAX_ID_LENGTH
        and "\0" not in "".join(values)
    )


def _ratings(check: _Checker, field: str, rated: Sequence[str], stars: Sequence[float]) -> None:
    for position, (item_id, value) in enumerate(zip(rated, stars, strict=True)):
        prefix = f"{field}.ratings[{position}]"
        check.id(f"{prefix}.item_id", item_id)
        # `resolve_subject` checks that the rating is on the release's scale.
        check.require(math.isfinite(value), f"{prefix}.stars", "not a finite number")
    check.distinct(f"{field}.ratings", rated)


def _subject(check: _Checker, field: str, subject: types_pb2.Subject) -> None:
    has_content = subject.user_id or subject.ratings or subject.liked_item_ids
    check.require(bool(has_content), field, "has no user, no rating and no liked item")
    check.id(f"{field}.user_id", subject.user_id, allow_empty=True)
    check.entries(f"{field}.ratings", len(subject.ratings), 0, MAX_RATINGS)
    found = check.rated or RatedItems.of(subject)
    rated, stars = found.ids[:MAX_RATINGS], found.stars[:MAX_RATINGS]
    # Almost all requests are valid, and this check of all ratings takes a tenth of the time.
    if not (_are_distinct_ids(rated) and math.isfinite(sum(stars))):
        _ratings(check, field, rated, stars)
    liked = subject.liked_item_ids
    check.texts(f"{field}.liked_item_ids", liked, MAX_LIKED, distinct=True)
    for position in range(min(len(liked), MAX_LIKED) if rated else 0):
        check.require(
            liked[position] not in rated,
            f"{field}.liked_item_ids[{position}]",
            "is also among the ratings",
        )


def _filter(check: _Checker, field: str, item_filter: types_pb2.ItemFilter) -> None:
    for name in ("genres_any", "genres_all", "genres_none"):
        check.texts(f"{field}.{name}", getattr(item_filter, name), MAX_GENRES)
    for name in ("allowed_item_ids", "excluded_item_ids"):
        check.texts(f"{field}.{name}", getattr(item_filter, name), MAX_FILTER_IDS)
    if item_filter.HasField("year_min") and item_filter.HasField("year_max"):
        check.require(
            item_filter.year_min <= item_filter.year_max, f"{field}.year_min", "after year_max"
        )


def _options(check: _Checker, options: pb.RecommendOptions, page_size: int) -> None:
    max_size = MAX_PAGE_SIZE_WITH_REASONS if options.include_reasons else MAX_PAGE_SIZE
    check.size("page_size", page_size, max_size)
    if not options.ByteSize():  # All options have defaults, as in most requests.
        return
    _filter(check, "options.filter", options.filter)
    if options.HasField("min_predicted_stars"):
        value = options.min_predicted_stars
        check.require(math.isfinite(value), "options.min_predicted_stars", "not a finite number")
    check.number("options.diversity", options.diversity, 0.0, 1.0)
    check.text("options.release_id", options.release_id, MAX_ID_LENGTH, allow_empty=True)
    check.text("options.model", options.model, MAX_ID_LENGTH, allow_empty=True)


def _recommend(check: _Checker, request: pb.RecommendRequest) -> None:
    _subject(check, "subject", request.subject)
    _options(check, request.options, request.page_size)
    check.text("page_token", request.page_token, MAX_TOKEN_LENGTH, allow_empty=True)


def _batch_recommend(check: _Checker, request: pb.BatchRecommendRequest) -> None:
    check.entries("subjects", len(request.subjects), 1, MAX_BATCH_SUBJECTS)
    if check.violations:
        return  # There may be too many to check.
    # A rating takes two bytes or more. Counting those of ten thousand subjects takes milliseconds.
    if request.ByteSize() > 2 * MAX_BATCH_RATINGS:
        total = sum(len(s.ratings) + len(s.liked_item_ids) for s in request.subjects)
        check.require(
            total <= MAX_BATCH_RATINGS,
            "subjects",
            f"more than {MAX_BATCH_RATINGS} ratings in total",
        )
    _options(check, request.options, request.page_size)


def _predict_ratings(check: _Checker, request: pb.PredictRatingsRequest) -> None:
    _subject(check, "subject", request.subject)
    check.texts("item_ids", request.item_ids, MAX_PREDICTED, min_count=1, distinct=True)
    check.text("release_id", request.release_id, MAX_ID_LENGTH, allow_empty=True)
    check.text("model", request.model, MAX_ID_LENGTH, allow_empty=True)


def _similar_items(check: _Checker, request: pb.SimilarItemsRequest) -> None:
    check.id("item_id", request.item_id)
    check.size("page_size", request.page_size, MAX_PAGE_SIZE)
    _filter(check, "filter", request.filter)
    check.text("release_id", request.release_id, MAX_ID_LENGTH, allow_empty=True)
    check.text("model", request.model, MAX_ID_LENGTH, allow_empty=True)


def _search_items(check: _Checker, request: pb.SearchItemsRequest) -> None:
    check.text("query", request.query, MAX_QUERY_LENGTH, allow_empty=False)
    check.size("page_size", request.page_size, MAX_PAGE_SIZE)
    check.text("page_token", request.page_token, MAX_TOKEN_LENGTH, allow_empty=True)


def _get_item(check: _Checker, request: pb.GetItemRequest) -> None:
    check.id("item_id", request.item_id)


def _event(check: _Checker, field: str, event: feedback_pb.FeedbackEvent) -> None:
    check.id(f"{field}.user_id", event.user_id)
    check.id(f"{field}.item_id", event.item_id)
    check.text(f"{field}.event_id", event.event_id, MAX_KEY_LENGTH, allow_empty=False)
    list_id = event.recommendation_id
    check.text(f"{field}.recommendation_id", list_id, MAX_LIST_ID_LENGTH, allow_empty=True)
    known = event.kind in _KINDS
    check.require(known, f"{field}.kind", "not a kind of feedback")
    is_rating = event.kind == feedback_pb.FEEDBACK_KIND_RATING
    is_play = event.kind == feedback_pb.FEEDBACK_KIND_PLAY
    # The feedback servicer checks that the rating is on the release's scale.
    unlimited = -math.inf, math.inf
    for name, value, (low, high), is_needed in (
        ("stars", event.stars if event.HasField("stars") else None, unlimited, is_rating),
        (
            "share_watched",
            event.share_watched if event.HasField("share_watched") else None,
            (0.0, 1.0),
            is_play,
        ),
    ):
        if value is None:
            check.require(not is_needed, f"{field}.{name}", "required for this kind")
        else:
            check.require(is_needed, f"{field}.{name}", "not allowed for this kind")
            check.number(f"{field}.{name}", value, low, high)
    if event.HasField("time"):
        holds = _is_possible(event.time)
        check.require(holds, f"{field}.time", "not between the years 1970 and 9999")


def _record_feedback(check: _Checker, request: feedback_pb.RecordFeedbackRequest) -> None:
    check.entries("events", len(request.events), 1, MAX_EVENTS)
    for position, event in enumerate(request.events[:MAX_EVENTS]):
        # Almost all events are valid, and most are ratings: this check takes a third of the time.
        if not _is_plain_rating(event):
            _event(check, f"events[{position}]", event)


def _is_plain_rating(event: feedback_pb.FeedbackEvent) -> bool:
    """Returns whether an event is a rating in which `_event` would find no violation."""
    user_id, item_id, event_id = event.user_id, event.item_id, event.event_id
    return (
        event.kind == feedback_pb.FEEDBACK_KIND_RATING
        and 0 < len(user_id) <= MAX_ID_LENGTH
        and 0 < len(item_id) <= MAX_ID_LENGTH
        and 0 < len(event_id) <= MAX_KEY_LENGTH
        and len(event.recommendation_id) <= MAX_LIST_ID_LENGTH
        and "\0" not in user_id
        and "\0" not in item_id
        and event_id.isprintable()
        and event.recommendation_id.isprintable()
        and event.HasField("stars")
        and math.isfinite(event.stars)
        and not event.HasField("share_watched")
        and (not event.HasField("time") or _is_possible(event.time))
    )


def _is_possible(time: Timestamp) -> bool:
    return 0 <= time.seconds <= _LAST_SECOND and 0 <= time.nanos < 10**9


def _delete_feedback(check: _Checker, request: feedback_pb.DeleteFeedbackRequest) -> None:
    check.id("user_id", request.user_id)
    check.text("event_id", request.event_id, MAX_KEY_LENGTH, allow_empty=True)
    check.id("item_id", request.item_id, allow_empty=True)
    one = bool(request.event_id) != bool(request.item_id)
    check.require(one, "event_id", "exactly one of event_id and item_id must be set")


def _forget_user(check: _Checker, request: feedback_pb.ForgetUserRequest) -> None:
    check.id("user_id", request.user_id)


def _list_feedback(check: _Checker, request: feedback_pb.ListFeedbackRequest) -> None:
    check.id("user_id", request.user_id)
    check.size("page_size", request.page_size, MAX_PAGE_SIZE)
    check.text("page_token", request.page_token, MAX_TOKEN_LENGTH, allow_empty=True)


_CHECKS: Mapping[type[Message], Callable[[_Checker, Any], None]] = {
    pb.RecommendRequest: _recommend,
    pb.BatchRecommendRequest: _batch_recommend,
    pb.PredictRatingsRequest: _predict_ratings,
    pb.SimilarItemsRequest: _similar_items,
    pb.SearchItemsRequest: _search_items,
    pb.GetItemRequest: _get_item,
    pb.GetStatusRequest: lambda _check, _request: None,
    feedback_pb.RecordFeedbackRequest: _record_feedback,
    feedback_pb.DeleteFeedbackRequest: _delete_feedback,
    feedback_pb.ForgetUserRequest: _forget_user,
    feedback_pb.ListFeedbackRequest: _list_feedback,
}


def validate(request: _M, rated: RatedItems | None = None) -> _M:
    """Validates a request and returns it.

    Args:
        request: The request.
        rated: The ratings of the subject, if they have already been read.

    Raises:
        InvalidFields: Fields of the request violate their constraints.
    """
    check = _Checker(rated)
    _CHECKS[type(request)](check, request)
    if check.violations:
        raise InvalidFields(check.violations)
    return request


def validate_subject(subject: types_pb2.Subject, rated: RatedItems, field: str) -> None:
    """Validates one subject of a batch.

    Args:
        subject: The subject.
        rated: The ratings of the subject.
        field: The path of the subject in the request, for error messages.

    Raises:
        InvalidFields: Fields of the subject violate their constraints.
    """
    check = _Checker(rated)
    _subject(check, field, subject)
    if check.violations:
        raise InvalidFields(check.violations)
