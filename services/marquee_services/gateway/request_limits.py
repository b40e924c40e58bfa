"""Limits on the size of the gateway's requests by method; `validation.py` checks their contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor

from marquee.v1 import feedback_service_pb2 as feedback_pb
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.gateway import validation
from marquee_services.server.admission.request_limits import ElementLimits, RequestLimits

_KIB = 1024
# Enough for the request of a look-up: an id or a query, and a page token.
_LOOKUP_BYTES = 16 * _KIB
# Enough for the largest valid request: the ratings of the largest batch with their fields, its
# subjects, and both id lists of a filter.
_MAX_FIELDS = 4 * validation.MAX_BATCH_RATINGS


def _fields(message: Any, **limits: ElementLimits) -> Mapping[int, ElementLimits]:
    """Returns limits by the field numbers of a message, from limits by field name."""
    descriptor: Descriptor = message.DESCRIPTOR
    return {descriptor.fields_by_name[name].number: found for name, found in limits.items()}


def _subject(total: int | None) -> Mapping[int, ElementLimits]:
    return _fields(
        types_pb2.Subject,
        ratings=ElementLimits("ratings", validation.MAX_RATINGS, total),
        liked_item_ids=ElementLimits("liked_item_ids", validation.MAX_LIKED, total),
    )


def _ids(name: str, most: int) -> ElementLimits:
    return ElementLimits(name, most)


_ITEM_FILTER = _fields(
    types_pb2.ItemFilter,
    genres_any=_ids("genres_any", validation.MAX_GENRES),
    genres_all=_ids("genres_all", validation.MAX_GENRES),
    genres_none=_ids("genres_none", validation.MAX_GENRES),
    allowed_item_ids=_ids("allowed_item_ids", validation.MAX_FILTER_IDS),
    excluded_item_ids=_ids("excluded_item_ids", validation.MAX_FILTER_IDS),
)
_OPTIONS = ElementLimits(
    "options",
    fields=_fields(pb.RecommendOptions, filter=ElementLimits("filter", fields=_ITEM_FILTER)),
)
_ONE_SUBJECT = ElementLimits("subject", fields=_subject(None))

REQUEST_LIMITS: Mapping[str, RequestLimits] = {
    "Recommend": RequestLimits(
        max_fields=_MAX_FIELDS,
        fields=_fields(pb.RecommendRequest, subject=_ONE_SUBJECT, options=_OPTIONS),
    ),
    "BatchRecommend": RequestLimits(
        max_fields=_MAX_FIELDS,
        fields=_fields(
            pb.BatchRecommendRequest,
            subjects=ElementLimits(
                "subjects",
                validation.MAX_BATCH_SUBJECTS,
                fields=_subject(validation.MAX_BATCH_RATINGS),
            ),
            options=_OPTIONS,
        ),
    ),
    "PredictRatings": RequestLimits(
        max_fields=_MAX_FIELDS,
        fields=_fields(
            pb.PredictRatingsRequest,
            subject=_ONE_SUBJECT,
            item_ids=_ids("item_ids", validation.MAX_PREDICTED),
        ),
    ),
    "SimilarItems": RequestLimits(
        max_fields=_MAX_FIELDS,
        fields=_fields(pb.SimilarItemsRequest, filter=ElementLimits("filter", fields=_ITEM_FILTER)),
    ),
    "SearchItems": RequestLimits(max_bytes=_LOOKUP_BYTES),
    "GetItem": RequestLimits(max_bytes=_LOOKUP_BYTES),
    "GetStatus": RequestLimits(max_bytes=_LOOKUP_BYTES),
    "RecordFeedback": RequestLimits(
        max_fields=_MAX_FIELDS,
        fields=_fields(
            feedback_pb.RecordFeedbackRequest, events=_ids("events", validation.MAX_EVENTS)
        ),
    ),
    "DeleteFeedback": RequestLimits(max_bytes=_LOOKUP_BYTES),
    "ForgetUser": RequestLimits(max_bytes=_LOOKUP_BYTES),
    "ListFeedback": RequestLimits(max_bytes=_LOOKUP_BYTES),
}
