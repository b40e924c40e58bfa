"""Explains recommended items: the models' contributions, and evidence from the profile."""

from __future__ import annotations

from collections.abc import Sequence

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.gateway.answering.messages import evidence_reasons, model_shares
from marquee_services.gateway.answering.page_scorer import ScoredPage
from marquee_services.gateway.backends.failures import BackendError
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.router import Router
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
        scored_page: ScoredPage,
        deadline: Deadline,
    ) -> list[BackendError]:
        """Adds each model's contribution to the items' scores, and evidence if there is any.

        Args:
            items: The recommended items, which are changed in place (n).
            release: The release that ranked them.
            subject: The subject whom they are recommended to.
            scored_page: The page with the scores of its items by each model.
            deadline: How long the evidence may take.

        Returns:
            The failure of the evidence backend, if it did not answer; its evidence is then missing.
        """
        ranked, outputs = scored_page.ranked, scored_page.scored.outputs
        for position, item in enumerate(items):
            item.reasons.extend(model_shares(ranked.blends.ranking, outputs, position))
        if not items or self._evidence_backend not in ranked.backends:
            return []
        query = subject.query(ranked.item_indexes(scored_page.page.positions))
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
