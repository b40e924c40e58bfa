"""Builds the messages of which answers consist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.release.ensemble import BlendPair
from marquee_services.gateway.experiments.route import Route
from marquee_services.gateway.releases.release import GatewayRelease


def item_message(release: GatewayRelease, index: int) -> types_pb2.Item:
    """Returns an item's metadata and rating statistics."""
    catalogue = release.catalogue
    count = int(release.rating_counts[index])
    return types_pb2.Item(
        item_id=catalogue.items.id(index),
        title=catalogue.title(index),
        year=int(catalogue.years[index]),
        genres=catalogue.item_genres(index),
        rating_count=count,
        mean_stars=float(release.mean_stars[index]) if count and release.predicts_stars else None,
    )


def source_message(
    route: Route,
    blends: BlendPair,
    degraded_reasons: Sequence[types_pb2.DegradedReason.ValueType] = (),
    abstaining: Sequence[str] = (),
) -> types_pb2.AnswerSource:
    """Returns the source of an answer; `server_time_us` is set when the answer is complete.

    Args:
        route: The release that answered, and the arm of an experiment.
        blends: The blends that the answer is based on.
        degraded_reasons: Why the answer is degraded, from `degradation.py`; empty if it is not.
        abstaining: The names of models that could not score the subject.
    """
    return types_pb2.AnswerSource(
        release_id=route.release.release_id,
        models=model_weights(route.release, blends),
        degraded=bool(degraded_reasons),
        degraded_reasons=degraded_reasons,
        abstaining_models=abstaining,
        experiment=route.experiment_name,
        arm=route.arm_name,
    )


def serialized_source(
    route: Route,
    blends: BlendPair,
    degraded_reasons: Sequence[types_pb2.DegradedReason.ValueType] = (),
    abstaining: Sequence[str] = (),
) -> bytes:
    """Returns a serialised AnswerSource: the same bytes object for all complete answers.

    The arguments are those of `source_message`.
    """

    def compute() -> bytes:
        return source_message(route, blends, degraded_reasons, abstaining).SerializeToString()

    if degraded_reasons or abstaining:
        return compute()
    what = "source", route.experiment_name, route.arm_name
    return route.release.cached((blends.rating, blends.ranking), what, compute)


def model_weights(release: GatewayRelease, blends: BlendPair) -> Sequence[types_pb2.ModelWeight]:
    """Returns the models of the blends with their weights, the largest weights first.

    The messages are shared by all answers with these blends and must not be modified.
    """

    def compute() -> list[types_pb2.ModelWeight]:
        weights = [
            types_pb2.ModelWeight(
                model=name,
                version=release.models[name].version,
                ranking_weight=blends.ranking.weights.get(name, 0.0),
                rating_weight=blends.rating.weights.get(name, 0.0),
            )
            for name in blends.models()
        ]
        return sorted(
            weights, key=lambda w: (-abs(w.ranking_weight), -abs(w.rating_weight), w.model)
        )

    return release.cached((blends.rating, blends.ranking), "model weights", compute)


def add_metadata(release: GatewayRelease, items: Iterable[pb.RecommendedItem]) -> None:
    """Adds the metadata of each item."""
    for item in items:
        index = release.catalogue.items.index(item.item_id)
        item.metadata.CopyFrom(item_message(release, index))
