"""Scores the candidates of a list until a page of it is full."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import BackendUnavailable
from marquee_services.gateway.answering.resolved_request import ResolvedRequest
from marquee_services.gateway.backends.failures import BackendError
from marquee_services.gateway.caching.list_cache import ListCache
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.pages import Page, cut_page
from marquee_services.gateway.ranking.router import ModelSelection, Router
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates
from marquee_services.server.wire import MAX_RETRIEVED

# Each further retrieval, for a page that is not full, asks for this many times more items.
_RETRIEVAL_GROWTH = 4


class PageScorer:
    """Scores small catalogues as a whole, and retrieved candidates of large ones.

    The scores of a list are cached, so that its further pages need no scoring.
    """

    def __init__(
        self, router: Router, list_cache: ListCache, dense_limit: int, candidates: int
    ) -> None:
        """Creates a page scorer.

        Args:
            router: Retrieves and scores candidates.
            list_cache: Caches the scores of lists for their further pages.
            dense_limit: The largest catalogue, in items, that is scored as a whole.
            candidates: How many items of a larger catalogue each model retrieves at first.
        """
        self._router = router
        self._list_cache = list_cache
        self._dense_limit = dense_limit
        self._candidates = candidates

    def cache(self, list_id: str, scored: ScoredCandidates) -> None:
        """Caches the scores of a list for its further pages."""
        self._list_cache.put(list_id, scored)

    async def score_page(
        self,
        resolved: ResolvedRequest,
        options: pb.RecommendOptions,
        size: int,
        deadline: Deadline,
    ) -> tuple[ScoredCandidates, Page]:
        """Scores candidates until the page is full or no candidates are left.

        Args:
            resolved: The resolved request.
            options: The options of the request.
            size: The number of items of the page.
            deadline: How long the backends may take.

        Raises:
            BackendUnavailable: A backend that ranked the list's first page did not answer.
            ModelUnavailable: The backend of the only selected model did not answer.
            ModelAbstains: The only selected model cannot score the subject.
            DeadlineExceeded: The deadline passed before the only selected model answered.
        """
        try:
            scored = self._list_cache.get(resolved.list_id)
            scored = scored or await self._score(resolved, None, resolved.selection, deadline)
        except BackendError as error:
            raise BackendUnavailable(error.backend) from error
        eligible_count = int(resolved.eligible.sum())
        while True:
            page = cut_page(
                scored,
                resolved.eligible,
                options.min_predicted_stars if options.HasField("min_predicted_stars") else None,
                options.diversity,
                resolved.release.item_vectors,
                resolved.offset,
                size,
            )
            if page.has_more or scored.items is None or len(scored.items) >= eligible_count:
                return scored, page
            # Further candidates must be scored by the same backends as the earlier ones.
            selection = ModelSelection(options.model, None if options.model else scored.backends)
            try:
                more = await self._score(resolved, scored, selection, deadline)
            except BackendError as error:
                # A backend failed in the meantime: the page stays short, and the answer degraded.
                return replace(scored, failures=(*scored.failures, error)), page
            if more.items is None or not len(more.items):
                return scored, page
            scored = scored.extended(more)

    async def _score(
        self,
        resolved: ResolvedRequest,
        before: ScoredCandidates | None,
        selection: ModelSelection,
        deadline: Deadline,
    ) -> ScoredCandidates:
        """Scores a small catalogue as a whole, or the next tier of candidates of a large one.

        Args:
            resolved: The resolved request.
            before: The candidates scored so far; None for none.
            selection: The models to use.
            deadline: How long the backends may take.
        """
        release, subject, eligible = resolved.release, resolved.subject, resolved.eligible
        if release.item_count <= self._dense_limit:
            return await self._router.score(release, subject, None, selection, deadline)
        tier = 0
        if before is not None:
            tier = 1 if before.tiers is None else int(before.tiers.max()) + 1
        count = min(self._candidates * _RETRIEVAL_GROWTH**tier, MAX_RETRIEVED)
        failures: list[BackendError] = []
        if int(eligible.sum()) <= count:
            items = np.flatnonzero(eligible).astype(np.int32)
        else:
            items, failures = await self._router.retrieve(
                release, subject, eligible, count, selection, deadline
            )
        if before is not None and before.items is not None:
            items = np.setdiff1d(items, before.items, assume_unique=True).astype(np.int32)
        scored = await self._router.score(release, subject, items, selection, deadline)
        return replace(scored, failures=(*failures, *scored.failures))
