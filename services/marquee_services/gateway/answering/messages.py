"""Builds the messages of answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import scoring_service_pb2, types_pb2
from marquee_core.arrays import Float64
from marquee_core.release.ensemble import BlendPair
from marquee_services.gateway.backends.failures import BackendError
from marquee_services.gateway.ranking.scored import Scored
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.wire import unpack_floats, unpack_ints

INTERCEPT = "intercept"


def item_message(release: GatewayRelease, index: int) -> types_pb2.Item:
    """What is known about an item."""
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
    """Which release answered, and with what; the server's time is set last."""
    return types_pb2.AnswerSource(
        release_id=release.release_id,
        models=model_weights(release, blends),
        degraded=bool(failures),
        degraded_reasons=degraded_reasons(failures),
        abstaining_models=abstaining,
    )


def degraded_reasons(
    failures: Sequence[BackendError],
) -> list[types_pb2.DegradedReason.ValueType]:
    """Failures as the protocol names them."""
    return [
        types_pb2.DegradedReason.Value(f"DEGRADED_REASON_{f.backend.upper()}_{f.failure}")
        for f in failures
    ]


def model_weights(release: GatewayRelease, blends: BlendPair) -> list[types_pb2.ModelWeight]:
    """The models of a blend, most weight first."""
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
    """The items of a page, without their metadata.

    Args:
        item_ids: The items' ids, best first (n).
        scores: The scores for order (float64, n).
        stars: The predicted ratings (float, n).
        proposers: For each, the models that proposed it.
        first_rank: The rank of the first.
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
    """Adds what is known about each item."""
    for item in items:
        index = release.catalogue.items.index(item.item_id)
        item.metadata.CopyFrom(item_message(release, index))


def model_shares(scored: Scored, place: int) -> list[pb.Reason]:
    """What each model adds to the score of a candidate, most first; they add up to it."""
    blend = scored.blends.ranking
    shares = [
        pb.Reason.ModelShare(
            model=name,
            output=float(scored.outputs[name][place]),
            contribution=weight * float(scored.outputs[name][place]),
        )
        for name, weight in blend.weights.items()
    ]
    shares.append(pb.Reason.ModelShare(model=INTERCEPT, output=1.0, contribution=blend.intercept))
    shares.sort(key=lambda share: -abs(share.contribution))
    return [pb.Reason(model_share=share) for share in shares]


def evidence_reasons(
    release: GatewayRelease,
    subject: ResolvedSubject,
    evidence: scoring_service_pb2.ExplainItemsResponse.ItemEvidence,
) -> list[pb.Reason]:
    """Rated items and similar users that speak for an item."""
    own: Mapping[int, float] = dict(
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
                stars=own[index],
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


def release_status(release: GatewayRelease) -> pb.ReleaseStatus:
    """A release with its models and metrics."""
    manifest = release.manifest
    blends = release.ensemble.blends(sorted(release.backends))
    weights = {weight.model: weight for weight in model_weights(release, blends)}
    return pb.ReleaseStatus(
        release_id=release.release_id,
        published_at=manifest.published_at,
        data_source=manifest.data.source,
        data_fingerprint=manifest.data.fingerprint,
        user_count=manifest.data.user_count,
        item_count=manifest.data.item_count,
        rating_count=manifest.data.rating_count,
        models=[
            pb.ModelStatus(
                weight=weights.get(
                    model.name, types_pb2.ModelWeight(model=model.name, version=model.version)
                ),
                backend=model.backend,
                metrics=finite(model.metrics),
            )
            for model in manifest.models
        ],
        ensemble_metrics=finite(manifest.evaluation.get("ensemble_metrics", {})),
    )


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are finite numbers."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
