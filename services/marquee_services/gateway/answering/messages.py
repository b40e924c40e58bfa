"""Builds the messages that answers consist of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import scoring_service_pb2, types_pb2
from marquee_core.arrays import Float32, Float64
from marquee_core.release.ensemble import Blend, BlendPair
from marquee_services.gateway.answering.degraded import degraded_reasons
from marquee_services.gateway.backends.failures import BackendError
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.wire import unpack_floats, unpack_ints

INTERCEPT = "intercept"
"""The name under which reasons list the constant of the blend."""


def item_message(release: GatewayRelease, index: int) -> types_pb2.Item:
    """An item's metadata and rating statistics."""
    catalogue = release.catalogue
    count = int(release.rating_counts[index])
    return types_pb2.Item(
        item_id=catalogue.items.id(index),
        title=catalogue.title(index),
        year=int(catalogue.years[index]),
        genres=catalogue.item_genres(index),
        rating_count=count,
        mean_stars=float(release.mean_stars[index]) if count else None,
    )


def source_message(
    release: GatewayRelease,
    blends: BlendPair,
    failures: Sequence[BackendError],
    abstaining: Sequence[str] = (),
) -> types_pb2.AnswerSource:
    """Which release and models answered; `server_time_us` is set when the answer is complete.

    Args:
        release: The release that answered.
        blends: The blends that the answer is based on.
        failures: The failures of backends that did not answer.
        abstaining: The names of models that could not score the subject.
    """
    return types_pb2.AnswerSource(
        release_id=release.release_id,
        models=model_weights(release, blends),
        degraded=bool(failures),
        degraded_reasons=degraded_reasons(failures),
        abstaining_models=abstaining,
    )


def model_weights(release: GatewayRelease, blends: BlendPair) -> list[types_pb2.ModelWeight]:
    """The models of the blends with their weights, those with the largest weights first."""
    weights = [
        types_pb2.ModelWeight(
            model=name,
            version=release.models[name].version,
            ranking_weight=blends.ranking.weights.get(name, 0.0),
            rating_weight=blends.rating.weights.get(name, 0.0),
        )
        for name in blends.models()
    ]
    return sorted(weights, key=lambda w: (-abs(w.ranking_weight), -abs(w.rating_weight), w.model))


def recommended_items(
    item_ids: Sequence[str],
    scores: Float64,
    stars: NDArray[np.floating],
    proposers: Sequence[Sequence[str]],
    first_rank: int,
) -> list[pb.RecommendedItem]:
    """Builds the items of a page, without their metadata.

    Args:
        item_ids: The items' ids, best first (n).
        scores: The ranking scores (float64, n).
        stars: The predicted ratings in stars (float, n).
        proposers: The names of the models that proposed each item (n).
        first_rank: The rank of the first item, counted from 1.
    """
    return [
        pb.RecommendedItem(
            item_id=item_id,
            rank=first_rank + row,
            score=score,
            predicted_stars=predicted,
            proposed_by=names,
        )
        for row, (item_id, score, predicted, names) in enumerate(
            zip(item_ids, scores.tolist(), stars.tolist(), proposers, strict=True)
        )
    ]


def add_metadata(release: GatewayRelease, items: Iterable[pb.RecommendedItem]) -> None:
    """Adds the metadata of each item."""
    for item in items:
        index = release.catalogue.items.index(item.item_id)
        item.metadata.CopyFrom(item_message(release, index))


def model_shares(blend: Blend, outputs: Mapping[str, Float32], position: int) -> list[pb.Reason]:
    """Each model's contribution to an item's ranking score, largest first.

    The contributions, with that of the intercept, add up to the score, unless a backend that
    ranked the item has failed since: the shares of its models are missing.

    Args:
        blend: The ranking blend.
        outputs: The scores of each model by name (float32, n).
        position: The item's position in the scores.
    """
    shares = [
        pb.Reason.ModelShare(
            model=name,
            output=float(outputs[name][position]),
            contribution=weight * float(outputs[name][position]),
        )
        for name, weight in blend.weights.items()
        if name in outputs
    ]
    shares.append(pb.Reason.ModelShare(model=INTERCEPT, output=1.0, contribution=blend.intercept))
    shares.sort(key=lambda share: -abs(share.contribution))
    return [pb.Reason(model_share=share) for share in shares]


def evidence_reasons(
    release: GatewayRelease,
    subject: ResolvedSubject,
    evidence: scoring_service_pb2.ExplainItemsResponse.ItemEvidence,
) -> list[pb.Reason]:
    """The rated items and the similar users that a backend names as evidence for an item."""
    stars_of: Mapping[int, float] = dict(
        zip(subject.profile.items.tolist(), subject.profile.ratings.tolist(), strict=True)
    )
    rated = unpack_ints("rated_items", evidence.rated_items).tolist()
    rows = zip(
        rated,
        unpack_floats("similarities", evidence.similarities).tolist(),
        unpack_floats("contributions", evidence.contributions).tolist(),
        strict=True,
    )
    reasons = [
        pb.Reason(
            rated_item=pb.Reason.RatedItem(
                item_id=release.catalogue.items.id(index),
                title=release.catalogue.title(index),
                stars=stars_of[index],
                similarity=similarity,
                contribution=contribution,
            )
        )
        for index, similarity, contribution in rows
    ]
    if evidence.neighbour_count:
        users = pb.Reason.SimilarUsers(
            count=evidence.neighbour_count,
            mean_stars=evidence.neighbour_mean_stars,
            contribution=evidence.neighbour_contribution,
        )
        reasons.append(pb.Reason(similar_users=users))
    return reasons
