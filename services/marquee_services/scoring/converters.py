"""Converts between the messages of `ScoringService` and the types of the engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from marquee.v1 import scoring_service_pb2 as pb
from marquee_core.arrays import Bool, Float32
from marquee_core.retrieval.exact import Found
from marquee_core.scorers.scorer import RatedEvidence
from marquee_services.errors import FieldViolation, InvalidFields
from marquee_services.scoring.engine import Evidence
from marquee_services.scoring.plan import (
    MAX_TOP_MODELS,
    BestItems,
    ModelWeights,
    Query,
    RankingPlan,
    TopItems,
)
from marquee_services.scoring.ranking import UserRanking
from marquee_services.scoring.similarities import Comparison, Similarities
from marquee_services.server.wire import (
    MAX_RETRIEVED,
    pack_floats,
    pack_ints,
    unpack_bits,
    unpack_floats,
    unpack_ints,
)

# The models whose evidence is also sent in the fields that older gateways read.
_ITEM_CF, _USER_CF = "item_cf", "user_cf"


def check_range(field: str, value: int, high: int, low: int = 1) -> None:
    """Checks a number in a request.

    Raises:
        InvalidFields: The value is not between `low` and `high`.
    """
    if not low <= value <= high:
        reason = f"must be between {low} and {high}, not {value}"
        raise InvalidFields([FieldViolation(field, reason)])


def to_queries(
    users: Sequence[pb.UserQuery], max_users: int, item_count: int | None = None
) -> list[Query]:
    """Returns the users of a request; `Engine.check` checks them against the release.

    Args:
        users: The users.
        max_users: The maximum number of users.
        item_count: The number of items of the catalogue, to read the users' eligible items; None to
            ignore them.

    Raises:
        InvalidFields: There are no users or more than `max_users`, or an array has the wrong number
            of bytes.
    """
    check_range("users", len(users), max_users)
    return [
        Query(
            user.user_index if user.HasField("user_index") else -1,
            unpack_ints(f"users[{position}].rated_items", user.rated_items),
            unpack_floats(f"users[{position}].ratings", user.ratings),
            unpack_ints(f"users[{position}].candidates", user.candidates)
            if user.HasField("candidates")
            else None,
            None if item_count is None else to_eligible(user.eligible, item_count, position),
            user.new_only,
        )
        for position, user in enumerate(users)
    ]


def to_eligible(data: bytes, item_count: int, user: int | None = None) -> Bool | None:
    """Returns whether each item is eligible (bool, items); None if all are.

    Args:
        data: The packed bits.
        item_count: The number of items of the catalogue.
        user: The position of the user to whom the bits apply; None if they apply to the request.

    Raises:
        InvalidFields: The number of bytes does not match the number of items.
    """
    if not data:
        return None
    field = "eligible" if user is None else f"users[{user}].eligible"
    return unpack_bits(field, data, item_count)


def to_comparison(request: pb.CompareItemsRequest, item_count: int) -> Comparison:
    """Returns the comparison that a request asks for.

    Raises:
        InvalidFields: The count is out of range, an array has the wrong number of bytes, or there
            are both a count and candidates.
    """
    check_range("count", request.count, MAX_RETRIEVED, low=0)
    if request.count and request.candidates:
        raise InvalidFields([FieldViolation("candidates", "must be empty with a count")])
    return Comparison(
        request.item_index,
        request.count,
        to_eligible(request.eligible, item_count),
        unpack_ints("candidates", request.candidates) if request.candidates else None,
    )


def to_plan(request: pb.RankItemsRequest) -> RankingPlan:
    """Returns the plan of a request; `check_plan` checks its models against the release.

    Raises:
        InvalidFields: There are no models, a model occurs twice, a weight is missing or not finite,
            a count is out of range, the request has a `top_count` with too many models or with
            candidates, or it has a `retrieve_count` without a `top_count`.
    """
    if not request.models:
        raise InvalidFields([FieldViolation("models", "must name at least one model")])
    check_range("best_count", request.best_count, MAX_RETRIEVED, low=0)
    check_range("stars_count", request.stars_count, MAX_RETRIEVED, low=0)
    check_range("top_count", request.top_count, MAX_RETRIEVED, low=0)
    check_range("retrieve_count", request.retrieve_count, MAX_RETRIEVED, low=0)
    if request.top_count:
        _check_top(request)
    elif request.retrieve_count:
        raise InvalidFields([FieldViolation("retrieve_count", "must be 0 without top_count")])
    return RankingPlan(
        _to_weights("models", request.models, "weights", request.weights),
        request.best_count,
        _to_weights(
            "gateway_models", request.gateway_models, "gateway_weights", request.gateway_weights
        ),
        tuple(dict.fromkeys(request.stars_models)),
        request.stars_count,
        request.top_count,
        request.retrieve_count,
    )


def _check_top(request: pb.RankItemsRequest) -> None:
    """Checks a request that has a `top_count`.

    Raises:
        InvalidFields: There are too many models, or a user has candidates.
    """
    if len(request.models) > MAX_TOP_MODELS:
        reason = f"must name at most {MAX_TOP_MODELS} models with top_count"
        raise InvalidFields([FieldViolation("models", reason)])
    for position, user in enumerate(request.users):
        if user.HasField("candidates"):
            reason = "must be unset with top_count"
            raise InvalidFields([FieldViolation(f"users[{position}].candidates", reason)])


def _to_weights(
    names_field: str, names: Sequence[str], weights_field: str, weights: Sequence[float]
) -> ModelWeights:
    """Returns models with their weights.

    Raises:
        InvalidFields: A model occurs twice, or a weight is missing or not finite.
    """
    if len(set(names)) != len(names):
        raise InvalidFields([FieldViolation(names_field, "must name each model only once")])
    if len(weights) != len(names) or not all(map(math.isfinite, weights)):
        raise InvalidFields(
            [FieldViolation(weights_field, "must have one finite number for each model")]
        )
    return tuple(zip(names, weights, strict=True))


def rank_response(
    release_id: str, rankings: Sequence[UserRanking], plan: RankingPlan
) -> pb.RankItemsResponse:
    """Returns a response with the rankings of its users, at least one."""
    best = _best_items([ranking.stars for ranking in rankings if ranking.stars is not None])
    if plan.top_count:
        names = [name for name, _ in plan.weights]
        return pb.RankItemsResponse(
            release_id=release_id,
            models=[
                pb.RankItemsResponse.ModelItems(model=name, abstains=_abstaining(rankings, name))
                for name in names
            ],
            best=best,
            top=_top_items([ranking.top for ranking in rankings if ranking.top is not None]),
        )
    return pb.RankItemsResponse(
        release_id=release_id,
        scores=b"".join(pack_floats(ranking.scores) for ranking in rankings),
        models=[
            pb.RankItemsResponse.ModelItems(
                model=name,
                items=b"".join(pack_ints(ranking.best[name][0]) for ranking in rankings),
                scores=b"".join(pack_floats(ranking.best[name][1]) for ranking in rankings),
                counts=pack_ints(np.array([len(r.best[name][0]) for r in rankings])),
                abstains=_abstaining(rankings, name),
            )
            for name in rankings[0].best
        ],
        best=best,
    )


def _abstaining(rankings: Sequence[UserRanking], model: str) -> bytes:
    """Returns the packed positions of the users whom a model cannot score."""
    found = [position for position, ranking in enumerate(rankings) if model in ranking.abstaining]
    return pack_ints(np.array(found)) if found else b""


def _top_items(users: Sequence[TopItems]) -> pb.RankItemsResponse.TopItems:
    return pb.RankItemsResponse.TopItems(
        items=pack_ints(np.concatenate([user.items for user in users])),
        counts=pack_ints(np.array([len(user.items) for user in users])),
        scores=pack_floats(np.concatenate([user.scores for user in users])),
        proposers=pack_ints(np.concatenate([user.proposers for user in users])),
        user_biases=pack_floats(np.array([user.bias for user in users])),
    )


def _best_items(users: Sequence[BestItems]) -> pb.RankItemsResponse.BestItems | None:
    """Returns the scores of each user's best items; None without users."""
    if not users:
        return None
    return pb.RankItemsResponse.BestItems(
        items=pack_ints(np.concatenate([user.items for user in users])),
        counts=pack_ints(np.array([len(user.items) for user in users])),
        models=[
            pb.ScoreItemsResponse.ModelScores(
                model=name,
                scores=pack_floats(np.concatenate([user.scores[name] for user in users])),
            )
            for name in users[0].scores
        ],
    )


def score_response(release_id: str, scores: Mapping[str, Float32]) -> pb.ScoreItemsResponse:
    """Returns a response with each model's scores."""
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
    """Returns a response with each model's best items, user after user."""
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
    release_id: str, similarities: Mapping[str, Similarities]
) -> pb.CompareItemsResponse:
    """Returns a response with each model's similarities."""
    return pb.CompareItemsResponse(
        release_id=release_id,
        models=[
            pb.CompareItemsResponse.ModelSimilarities(
                model=name,
                similarities=pack_floats(found.values),
                items=b"" if found.items is None else pack_ints(found.items),
                highest=found.highest,
            )
            for name, found in similarities.items()
        ],
    )


def explain_response(release_id: str, evidence: Sequence[Evidence]) -> pb.ExplainItemsResponse:
    """Returns a response with the evidence for each candidate."""
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
    release_ids: Sequence[str], refused: Mapping[str, str], model_seconds: Mapping[str, float]
) -> pb.ListReleasesResponse:
    """Returns a response with the loaded and refused releases and the times of the models."""
    return pb.ListReleasesResponse(
        release_ids=release_ids,
        refused=[
            pb.ListReleasesResponse.RefusedRelease(release_id=release_id, why=why)
            for release_id, why in refused.items()
        ],
        model_seconds=model_seconds,
    )
