"""Explains recommended items by the models' shares of the score and the evidence for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import scoring_service_pb2
from marquee_core.service_names import GATEWAY
from marquee_services.gateway.answering.evidence import ModelEvidence, reasons_of
from marquee_services.gateway.answering.page_scorer import ScoredPage
from marquee_services.gateway.backends.failures import BackendError, BackendFailure
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates
from marquee_services.gateway.ranking.subjects import ResolvedSubject
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.scoring.plan import Query
from marquee_services.server.time_slice import TimeSlice

# Rated items to fetch for each item and model. These are more than are shown, because an item
# outside the first few of every model can be among the first few of all models combined.
_EVIDENCE_PER_MODEL = 25


class Explainer:
    """Finds the reasons for recommended items."""

    def __init__(self, router: Router) -> None:
        """Creates an explainer.

        Args:
            router: Provides the backends.
        """
        self._router = router

    async def reasons(
        self,
        release: GatewayRelease,
        subject: ResolvedSubject,
        scored_page: ScoredPage,
        deadline: Deadline,
    ) -> tuple[list[bytes], list[BackendFailure]]:
        """Returns each model's share of the items' scores, and the evidence for the shares.

        Args:
            release: The release that ranked the items.
            subject: The subject to whom they are recommended.
            scored_page: The page with the scores of its items by each model.
            deadline: The time that the backends have to return the evidence.

        Returns:
            The serialised field `reasons` of each item of the page, and the failures of the
            backends that did not answer, whose evidence is missing.
        """
        scored, positions = scored_page.scored, scored_page.page.positions
        models = _models_to_explain(release, scored)
        answers: list[Sequence[scoring_service_pb2.ExplainItemsResponse.ItemEvidence]] = []
        names_of: list[Sequence[str]] = []
        failures = []
        if len(positions):
            query = subject.query(scored_page.ranked.item_indexes(positions))
            fetched = await asyncio.gather(
                *(
                    self._fetch(backend, release, query, names, deadline)
                    for backend, names in models.items()
                )
            )
            for names, answer in zip(models.values(), fetched, strict=True):
                if isinstance(answer, BackendFailure):
                    failures.append(answer)
                else:
                    answers.append(answer)
                    names_of.append(names)
        found, time_slice = [], TimeSlice()
        for position in range(len(positions)):
            evidence: dict[str, ModelEvidence] = {}
            for names, answer in zip(names_of, answers, strict=True):
                evidence |= ModelEvidence.of_backend(names, answer[position])
            reasons = reasons_of(release, subject, scored, position, evidence)
            found.append(pb.RecommendedItem(reasons=reasons).SerializeToString())
            await time_slice.give_way()
        return found, failures

    async def _fetch(
        self,
        backend: str,
        release: GatewayRelease,
        query: Query,
        models: Sequence[str],
        deadline: Deadline,
    ) -> Sequence[scoring_service_pb2.ExplainItemsResponse.ItemEvidence] | BackendFailure:
        """Fetches the evidence of a backend's models for each candidate of a query."""
        try:
            return await self._router.backends[backend].call(
                release.release_id,
                deadline.left(),
                lambda replica, left: replica.explain(
                    release.release_id, query, models, _EVIDENCE_PER_MODEL, left
                ),
            )
        except BackendError as error:
            return error.reason


def _models_to_explain(
    release: GatewayRelease, scored: ScoredCandidates
) -> Mapping[str, Sequence[str]]:
    """Returns the models that took part in the ranking, by backend."""
    models: dict[str, list[str]] = {}
    for name in scored.blends.ranking.weights:
        backend = release.models[name].backend
        if backend != GATEWAY and name not in scored.abstaining:
            models.setdefault(backend, []).append(name)
    return models
