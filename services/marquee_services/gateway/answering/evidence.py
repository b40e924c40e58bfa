"""Turns the models' evidence into reasons: shares of the score, rated items and similar users.

The share of a model is its ranking weight times its output, and the shares of all models add up to
the score. If the output is a sum over rated items, so is the share. A rated item therefore counts
as a reason in proportion to its contribution to the score.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.scoring_service_pb2 import ExplainItemsResponse
from marquee_core.service_names import GATEWAY
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.wire import unpack_floats, unpack_ints

INTERCEPT = "intercept"
"""The name under which reasons list the constant of the blend."""

# The most rated items that are listed as reasons for a recommended item.
_MAX_RATED_ITEMS = 5


@dataclass(frozen=True)
class RatedContribution:
    """The contribution of one rated item to the output of one model.

    Attributes:
        index: The index of the rated item.
        similarity: Its similarity to the recommended item by the model; 0 if the model has none.
        contribution: Its contribution to the model's output, in the unit of the output.
    """

    index: int
    similarity: float
    contribution: float


@dataclass(frozen=True)
class ModelEvidence:
    """The evidence that one model has for one item.

    Attributes:
        rated: The rated items with the largest contributions.
        rated_total: The sum of the contributions of all rated items; None if the model's output is
            not a sum over rated items.
        similar_users: The similar users who rated the item; None if the model has none.
    """

    rated: Sequence[RatedContribution] = ()
    rated_total: float | None = None
    similar_users: ExplainItemsResponse.SimilarUsers | None = None

    @classmethod
    def of_backend(
        cls, models: Sequence[str], message: ExplainItemsResponse.ItemEvidence
    ) -> dict[str, ModelEvidence]:
        """Returns the evidence of a backend's models by name.

        A model that the backend left out cannot be decomposed, and has empty evidence.

        Args:
            models: The names of the models whose evidence was requested.
            message: The backend's evidence for one item.
        """
        found = {name: cls() for name in models}
        for model in message.models:
            rated = model.rated_items
            rows = zip(
                unpack_ints("items", rated.items).tolist(),
                unpack_floats("similarities", rated.similarities).tolist(),
                unpack_floats("contributions", rated.contributions).tolist(),
                strict=True,
            )
            found[model.model] = cls(
                tuple(RatedContribution(*row) for row in rows),
                rated.total if model.HasField("rated_items") else None,
                model.similar_users if model.HasField("similar_users") else None,
            )
        return found


def reasons_of(
    release: GatewayRelease,
    subject: ResolvedSubject,
    scored: ScoredCandidates,
    position: int,
    evidence: Mapping[str, ModelEvidence],
) -> list[pb.Reason]:
    """Returns all reasons for an item: model shares, then rated items, then similar users.

    Args:
        release: The release that ranked the item.
        subject: The subject to whom the item is recommended.
        scored: The scores of the items on the page.
        position: The position of the item on the page.
        evidence: The evidence of the models whose backends answered, by name.
    """
    shares = model_shares(release, scored, position, evidence)
    weights = scored.blends.ranking.weights
    rated = rated_items(release, subject, weights, evidence)
    return [
        *(pb.Reason(model_share=share) for share in shares),
        *(pb.Reason(rated_item=item) for item in rated),
        *(pb.Reason(similar_users=users) for users in similar_users(weights, evidence)),
    ]


def model_shares(
    release: GatewayRelease,
    scored: ScoredCandidates,
    position: int,
    evidence: Mapping[str, ModelEvidence],
) -> list[pb.Reason.ModelShare]:
    """Returns each model's contribution to an item's ranking score, the largest first.

    The contributions, including the intercept's, add up to the score. If a backend has failed since
    it ranked the item, the shares of its models are missing.
    """
    blend = scored.blends.ranking
    shares = []
    for name, weight in blend.weights.items():
        if name not in scored.outputs:
            continue
        output = float(scored.outputs[name][position])
        share = pb.Reason.ModelShare(model=name, output=output, contribution=weight * output)
        found = evidence.get(name)
        # If a model abstains, its output is a neutral value.
        if release.models[name].backend == GATEWAY or name in scored.abstaining:
            share.decomposition = pb.Reason.DECOMPOSITION_IMPERSONAL
        elif found is None:
            share.decomposition = pb.Reason.DECOMPOSITION_UNSPECIFIED
        elif found.rated_total is not None:
            share.decomposition = pb.Reason.DECOMPOSITION_RATED_ITEMS
            share.explained = weight * found.rated_total
        elif found.similar_users is not None:
            share.decomposition = pb.Reason.DECOMPOSITION_SIMILAR_USERS
            share.explained = weight * found.similar_users.contribution
        else:
            share.decomposition = pb.Reason.DECOMPOSITION_OPAQUE
        shares.append(share)
    shares.append(
        pb.Reason.ModelShare(
            model=INTERCEPT,
            output=1.0,
            contribution=blend.intercept,
            decomposition=pb.Reason.DECOMPOSITION_IMPERSONAL,
        )
    )
    return sorted(shares, key=lambda share: -abs(share.contribution))


def rated_items(
    release: GatewayRelease,
    subject: ResolvedSubject,
    weights: Mapping[str, float],
    evidence: Mapping[str, ModelEvidence],
) -> list[pb.Reason.RatedItem]:
    """Returns the rated items with the largest total contributions to the score.

    A rated item has one entry for each model to which it contributes. The entries of an item are
    adjacent, with the largest contribution first.
    """
    by_item: dict[int, list[tuple[float, str, RatedContribution]]] = defaultdict(list)
    for name, found in evidence.items():
        for rated in found.rated:
            by_item[rated.index].append((weights[name] * rated.contribution, name, rated))
    ranked = sorted(by_item.values(), key=lambda entries: -abs(sum(entry[0] for entry in entries)))
    stars_of: Mapping[int, float] = dict(
        zip(subject.profile.items.tolist(), subject.profile.ratings.tolist(), strict=True)
    )
    items = release.catalogue.items
    return [
        pb.Reason.RatedItem(
            item_id=items.id(rated.index),
            title=release.catalogue.title(rated.index),
            stars=stars_of[rated.index],
            similarity=rated.similarity,
            contribution=rated.contribution,
            model=name,
            score_contribution=to_score,
        )
        for entries in ranked[:_MAX_RATED_ITEMS]
        for to_score, name, rated in sorted(entries, key=lambda entry: (-abs(entry[0]), entry[1]))
    ]


def similar_users(
    weights: Mapping[str, float], evidence: Mapping[str, ModelEvidence]
) -> list[pb.Reason.SimilarUsers]:
    """Returns the similar users of each user-based model, if any of them rated the item."""
    return [
        pb.Reason.SimilarUsers(
            count=found.similar_users.count,
            mean_stars=found.similar_users.mean_stars,
            contribution=found.similar_users.contribution,
            model=name,
            score_contribution=weights[name] * found.similar_users.contribution,
        )
        for name, found in evidence.items()
        if found.similar_users is not None and found.similar_users.count
    ]
