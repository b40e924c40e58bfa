"""Parsers of callers' input: serialised requests, page tokens, packed arrays, list ids."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message

from fuzz.mutate import mutate_json
from fuzz.targets import Target
from marquee.v1 import feedback_service_pb2 as feedback_pb
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import scoring_service_pb2 as scoring_pb
from marquee.v1 import types_pb2
from marquee_core.experiments.recommendation_id import parse_recommendation_id
from marquee_services.errors import ServiceError
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.feedback_servicer import event_of
from marquee_services.gateway.rated_items import RatedItems
from marquee_services.gateway.request_limits import REQUEST_LIMITS
from marquee_services.gateway.validation import validate, validate_subject
from marquee_services.scoring.converters import to_eligible, to_plan, to_queries
from marquee_services.server import wire

_SUBJECT = types_pb2.Subject(
    user_id="u1",
    ratings=[types_pb2.Rating(item_id=f"i{n}", stars=n) for n in range(1, 4)],
    liked_item_ids=["i7", "ü"],
)
_FILTER = types_pb2.ItemFilter(
    genres_any=["Comedy"], year_min=1950, year_max=2000, allowed_item_ids=["i1", "i2"]
)
_OPTIONS = pb.RecommendOptions(
    filter=_FILTER, min_predicted_stars=3.5, diversity=0.5, model="ease", include_reasons=True
)
_EVENT = feedback_pb.FeedbackEvent(
    user_id="u1",
    item_id="i1",
    kind=feedback_pb.FEEDBACK_KIND_RATING,
    stars=4.0,
    event_id="e1",
    recommendation_id="0" * 32,
)
_EVENT.time.FromMicroseconds(1_700_000_000_000_000)
_REQUESTS: dict[str, Message] = {
    "Recommend": pb.RecommendRequest(subject=_SUBJECT, page_size=20, options=_OPTIONS),
    "BatchRecommend": pb.BatchRecommendRequest(subjects=[_SUBJECT] * 3, options=_OPTIONS),
    "PredictRatings": pb.PredictRatingsRequest(subject=_SUBJECT, item_ids=["i1", "i2"]),
    "SimilarItems": pb.SimilarItemsRequest(item_id="i1", page_size=5, filter=_FILTER),
    "SearchItems": pb.SearchItemsRequest(query="film number", page_size=7),
    "GetItem": pb.GetItemRequest(item_id="i1"),
    "RecordFeedback": feedback_pb.RecordFeedbackRequest(events=[_EVENT] * 2),
    "DeleteFeedback": feedback_pb.DeleteFeedbackRequest(user_id="u1", event_id="e1"),
    "ForgetUser": feedback_pb.ForgetUserRequest(user_id="u1"),
    "ListFeedback": feedback_pb.ListFeedbackRequest(user_id="u1", page_size=10),
}
# The fields of a large request are counted before it is parsed.
_LARGE = pb.BatchRecommendRequest(subjects=[_SUBJECT] * 400, options=_OPTIONS)
_ITEM_COUNT, _MAX_USERS = 120, 64


def request_targets(_folder: Path) -> list[Target]:
    """Returns the targets."""
    methods = sorted(_REQUESTS)
    seeds = [bytes([methods.index(m)]) + _REQUESTS[m].SerializeToString() for m in methods]
    large = [bytes([methods.index("BatchRecommend")]) + _LARGE.SerializeToString()]
    token = PageToken("0" * 32, "20260101T000000Z-0", ("cf",), "d" * 32, 20, 7).encode()
    return [
        Target("requests", 300, seeds, lambda data: _request(methods, data), _REFUSALS),
        Target("large requests", 8, large, lambda data: _request(methods, data), _REFUSALS),
        Target("scoring requests", 80, _scoring_seeds(), _scoring_request, _REFUSALS),
        Target("packed arrays", 40, [bytes(range(64))], _packed, _REFUSALS),
        Target("page tokens", 50, [token.encode()], _page_token, _REFUSALS),
        Target("forged page tokens", 50, _TOKEN_BODIES, _forged_token, _REFUSALS, mutate_json),
        Target("list ids", 20, [f"x{'a' * 16}-1-{'0' * 24}-{'b' * 8}".encode()], _list_id, ()),
    ]


_REFUSALS: tuple[type[BaseException], ...] = (DecodeError, ServiceError)
_TOKEN_BODIES = [
    b'["l","20260101T000000Z-0",["cf","inference"],"d",20,7]',
    b'["","20260101T000000Z-0",[],"d",0]',
]


def _run_coroutine(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that only yields to the event loop, without a loop."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration:
        return


def _request(methods: Sequence[str], data: bytes) -> None:
    method = methods[data[0] % len(methods)] if data else methods[0]
    body = data[1:]
    _run_coroutine(REQUEST_LIMITS[method].check(body))
    request: Any = type(_REQUESTS[method]).FromString(body)
    validate(request)
    if method == "BatchRecommend":
        for place, subject in enumerate(request.subjects):
            validate_subject(subject, RatedItems.of(subject), f"subjects[{place}]")
    if method == "RecordFeedback":
        for event in request.events:
            event_of(event)


def _scoring_seeds() -> list[bytes]:
    indexes = wire.pack_ints(np.array([3, 1, 2]))
    user = scoring_pb.UserQuery(
        rated_items=indexes, ratings=wire.pack_floats(np.array([1.0, 2.5, 5.0]))
    )
    eligible = wire.pack_bits(np.ones(_ITEM_COUNT, bool))
    ranked = scoring_pb.RankItemsRequest(
        release_id="r", users=[user, user], models=["ease"], weights=[1.0], best_count=5
    )
    retrieved = scoring_pb.RetrieveItemsRequest(users=[user], eligible=eligible, count=10)
    return [b"\0" + ranked.SerializeToString(), b"\1" + retrieved.SerializeToString()]


def _scoring_request(data: bytes) -> None:
    if data[:1] == b"\1":
        request = scoring_pb.RetrieveItemsRequest.FromString(data[1:])
        to_eligible(request.eligible, _ITEM_COUNT)
        to_queries(request.users, _MAX_USERS)
        return
    ranked = scoring_pb.RankItemsRequest.FromString(data[1:])
    to_plan(ranked)
    to_queries(ranked.users, _MAX_USERS, _ITEM_COUNT)


def _packed(data: bytes) -> None:
    kind = data[0] % 3 if data else 0
    if kind == 0:
        wire.unpack_ints("f", data[1:])
    elif kind == 1:
        wire.unpack_floats("f", data[1:])
    else:
        wire.unpack_bits("f", data[1:], 8 * (len(data) % 70))


def _page_token(data: bytes) -> None:
    PageToken.verify(data.decode("utf-8", "replace"), "d" * 32)


def _forged_token(body: bytes) -> None:
    """Decodes a token with a valid checksum, which any caller can compute."""
    digest = hashlib.sha256(b"marquee page token" + body).digest()[:8]
    token = PageToken.decode(base64.urlsafe_b64encode(digest + body).decode())
    if not 0 <= token.offset < 2**63 or not 0 <= token.feedback_version < 2**63:
        raise AssertionError("the offset or the feedback version is out of range")


def _list_id(data: bytes) -> None:
    parse_recommendation_id(data.decode("utf-8", "replace"))
