"""Converts between the messages of `ScoringService` and the types of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from marquee.v1 import scoring_service_pb2 as pb
from marquee_core.arrays import Bool, Float32
from marquee_core.retrieval.exact import Found
from marquee_core.scorers.scorer import RatedEvidence
from marquee_services.errors import FieldViolation, InvalidFields
from marquee_services.scoring.engine import Evidence, Query
from marquee_services.server.wire import (
    pack_floats,
    pack_ints,
    unpack_bits,
    unpack_floats,
    unpack_ints,
)

# The models whose evidence is also written in the form that older gateways read.
_ITEM_CF, _USER_CF = "item_cf", "user_cf"


def check_range(field: str, value: int, high: int) -> None:
    """Checks a number of a request.

    Raises:
        InvalidFields: The value is not between 1 and `high`.
    """
    if not 1 <= value <= high:
        raise InvalidFields([FieldViolation(field, f"must be between 1 and {high}, not {value}")])


def to_queries(users: Sequence[pb.UserQuery], max_users: int) -> list[Query]:
    """The users of a request; `Engine.check` checks them against the release.

    Raises:
        InvalidFields: There are no users or more than `max_users`, or the bytes of an array have
            the wrong length.
    """
    check_range("users", len(users), max_users)
    return [
        Query(
            user.user_index if user.HasField("user_index") else -1,
            unpack_ints(f"users[{place}].rated_items", user.rated_items),
            unpack_floats(f"users[{place}].ratings", user.ratings),
            unpack_ints(f"users[{place}].candidates", user.candidates)
            if user.HasField("candidates")
            else None,
        )
        for place, user in enumerate(users)
    ]


def to_eligible(data: bytes, item_count: int) -> Bool | None:
    """Which items may be retrieved (bool, items); None for all.

    Raises:
        InvalidFields: The bytes do not hold one bit for each item.
    """
    return unpack_bits("eligible", data, item_count) if data else None


def score_response(release_id: str, scores: Mapping[str, Float32]) -> pb.ScoreItemsResponse:
    """A response with each model's scores."""
    return pb.ScoreItemsResponse(
        release_id=release_id,
        models=[
            pb.ScoreItemsResponse.ModelScores(model=name, scores=pack_floats(values))
            for name, values in scores.items()
        ],
    )


def retrieve_response(
    release_id: str, best: Mapping[str, Sequence[Found]]
) -> pb.RetrieveItemsResponse:
    """A response with each model's best items, user after user."""
    return pb.RetrieveItemsResponse(
        release_id=release_id,
        models=[
            pb.RetrieveItemsResponse.ModelItems(
                model=name,
                items=b"".join(pack_ints(items) for items, _ in rows),
                scores=b"".join(pack_floats(scores) for _, scores in rows),
                counts=pack_ints(np.array([len(items) for items, _ in rows])),
            )
            for name, rows in best.items()
        ],
    )


def compare_response(
    release_id: str, similarities: Mapping[str, Float32]
) -> pb.CompareItemsResponse:
    """A response with each model's similarities."""
    return pb.CompareItemsResponse(
        release_id=release_id,
        models=[
            pb.CompareItemsResponse.ModelSimilarities(model=name, similarities=pack_floats(row))
            for name, row in similarities.items()
        ],
    )


def explain_response(release_id: str, evidence: Sequence[Evidence]) -> pb.ExplainItemsResponse:
    """A response with the evidence for each candidate."""
    return pb.ExplainItemsResponse(
        release_id=release_id, items=[_evidence_message(item) for item in evidence]
    )


def _evidence_message(evidence: Evidence) -> pb.ExplainItemsResponse.ItemEvidence:
    message = pb.ExplainItemsResponse.ItemEvidence()
    for name in dict.fromkeys((*evidence.rated, *evidence.neighbours)):
        model = message.models.add(model=name)
        if name in evidence.rated:
            model.rated_items.CopyFrom(_rated_message(evidence.rated[name]))
        if name in evidence.neighbours:
            users = evidence.neighbours[name]
            model.similar_users.count = users.count
            model.similar_users.mean_stars = users.mean_stars
            model.similar_users.contribution = users.contribution
    # For gateways that do not read `models`.
    if _ITEM_CF in evidence.rated:
        rated = _rated_message(evidence.rated[_ITEM_CF])
        message.rated_items = rated.items
        message.similarities = rated.similarities
        message.contributions = rated.contributions
    if _USER_CF in evidence.neighbours:
        users = evidence.neighbours[_USER_CF]
        message.neighbour_count = users.count
        message.neighbour_mean_stars = users.mean_stars
        message.neighbour_contribution = users.contribution
    return message


def _rated_message(evidence: RatedEvidence) -> pb.ExplainItemsResponse.RatedItems:
    return pb.ExplainItemsResponse.RatedItems(
        items=pack_ints(evidence.items),
        similarities=pack_floats(evidence.similarities),
        contributions=pack_floats(evidence.contributions),
        total=evidence.total,
    )


def releases_response(
    release_ids: Sequence[str], refused: Mapping[str, str]
) -> pb.ListReleasesResponse:
    """A response with the loaded releases and those that could not be loaded."""
    return pb.ListReleasesResponse(
        release_ids=release_ids,
        refused=[
            pb.ListReleasesResponse.RefusedRelease(release_id=release_id, why=why)
            for release_id, why in refused.items()
        ],
    )
