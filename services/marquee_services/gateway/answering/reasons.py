"""Explains recommended items: the models' contributions, and evidence from the profile."""

from __future__ import annotations

from collections.abc import Sequence

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Int32
from marquee_services.gateway.answering.messages import evidence_reasons, model_shares
from marquee_services.gateway.backends.failures import BackendError
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease

# The most rated items that are named as reasons for a recommended item.
_MAX_EVIDENCE_ITEMS = 5


class Explainer:
    """Adds reasons to recommended items."""

    def __init__(self, router: Router, evidence_backend: str) -> None:
        """Creates an explainer.

        Args:
            router: Gives access to the backends.
            evidence_backend: The name of the backend whose models name rated items and similar
                users as evidence.
        """
        self._router = router
        self._evidence_backend = evidence_backend

    async def add_reasons(
        self,
        items: Sequence[pb.RecommendedItem],
        release: GatewayRelease,
        subject: ResolvedSubject,
        scored: ScoredCandidates,
        positions: Int32,
        deadline: Deadline,
    ) -> list[BackendError]:
        """Adds each model's contribution to the items' scores, and evidence if there is any.

        Args:
            items: The recommended items, which are changed in place (n).
            release: The release that ranked them.
            subject: The subject whom they are recommended to.
            scored: The scores of all candidates.
            positions: The items' positions among the candidates (int32, n).
            deadline: How long the evidence may take.

        Returns:
            The failure of the evidence backend, if it did not answer; its evidence is then missing.
        """
        for item, position in zip(items, positions.tolist(), strict=True):
            item.reasons.extend(model_shares(scored, position))
        if not items or self._evidence_backend not in scored.backends:
            return []
        query = subject.query(scored.item_indexes(positions))
        try:
            evidence = await self._router.backends[self._evidence_backend].call(
                release.release_id,
                deadline.left(),
                lambda replica, left: replica.explain(
                    release.release_id, query, _MAX_EVIDENCE_ITEMS, left
                ),
            )
        except BackendError as error:
            return [error]
        for item, found in zip(items, evidence, strict=True):
            item.reasons.extend(evidence_reasons(release, subject, found))
        return []
