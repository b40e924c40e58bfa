"""Ranks the candidates of a list and predicts their stars, until a page is full."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Bool, Int32
from marquee_core.release.ensemble import POPULARITY, BlendPair
from marquee_services.errors import BackendUnavailable
from marquee_services.gateway.answering.resolved_request import ResolvedRequest
from marquee_services.gateway.backends.failures import BackendError, BackendFailure
from marquee_services.gateway.caching.list_cache import ListCache
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.early_scores import (
    NO_EARLY_SCORES,
    EarlyScores,
    begin_early_scores,
)
from marquee_services.gateway.ranking.ensemble_calls import ModelSelection
from marquee_services.gateway.ranking.pages import Page, best_positions, cut_page, page_depth
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates
from marquee_services.gateway.ranking.shortlists import retrieve_shortlist
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.server.wire import MAX_RETRIEVED

# If a page is not full, each further retrieval requests this many times more items. If too few
# items have enough stars, so does each further prediction of stars.
_GROWTH = 4
# A shortlist holds this many pages, up to a number of items that only a larger page exceeds.
_SHORTLIST_PAGES, _MAX_SHORTLIST = 4, 200


@dataclass(frozen=True)
class ScoredPage:
    """A page with all that its answer contains.

    Attributes:
        ranked: The ranking from which the page is cut.
        page: The page.
        scored: The predicted stars of the page's items in their order, the scores by the models
            that were used for them, and the blends of the answer.
    """

    ranked: RankedCandidates
    page: Page
    scored: ScoredCandidates


class PageScorer:
    """Ranks the candidates, then predicts the stars of the items on the page.

    Small catalogues are ranked completely; in large ones, only retrieved candidates are ranked.
    Only models with a weight in the ranking blend score that many items. The ranking of a list is
    cached, so that further pages need only stars.
    """

    def __init__(
        self, router: Router, list_cache: ListCache, dense_limit: int, candidates: int
    ) -> None:
        """Creates a page scorer.

        Args:
            router: Retrieves, ranks and scores candidates.
            list_cache: Caches the rankings of lists for their further pages.
            dense_limit: The largest catalogue, in items, that is ranked completely.
            candidates: The number of items of a larger catalogue that each model first retrieves.
        """
        self._router = router
        self._list_cache = list_cache
        self._dense_limit = dense_limit
        self._candidates = candidates

    def cache(self, list_id: str, ranked: RankedCandidates) -> None:
        """Caches the ranking of a list for its further pages."""
        self._list_cache.put(list_id, ranked)

    def is_limited_by_models(self) -> bool:
        """Returns whether leaving out models makes answers faster; see `ModelLoad`."""
        return self._router.is_limited_by_models()

    def slowest_models(self, release: GatewayRelease) -> frozenset[str]:
        """Returns the models to leave out under overload; see `Router.slowest_models`."""
        return self._router.slowest_models(release)

    async def score_page(
        self,
        resolved: ResolvedRequest,
        options: pb.RecommendOptions,
        size: int,
        deadline: Deadline,
    ) -> ScoredPage:
        """Ranks candidates until the page is full or no candidates are left.

        Args:
            resolved: The resolved request.
            options: The options of the request.
            size: The number of items of the page.
            deadline: The time that the backends have.

        Raises:
            BackendUnavailable: A backend that ranked the list's first page did not answer.
            ModelUnavailable: The backend of the only selected model did not answer.
            ModelAbstains: The only selected model cannot score the subject.
            DeadlineExceeded: The deadline passed before the only selected model answered.
        """
        ranked = self._list_cache.get(resolved.list_id)
        if ranked is not None:
            return await self._fill(resolved, options, size, deadline, ranked, NO_EARLY_SCORES)
        best_count = max(size, DEFAULT_PAGE_SIZE)
        stars_count = 0 if resolved.offset else _stars_count(options, size)
        selection = resolved.selection
        with begin_early_scores(
            self._router.backends, resolved.release, resolved.subject, selection, deadline
        ) as early:
            try:
                ranked = await self._rank(
                    resolved, None, best_count, selection, deadline, stars_count
                )
            except BackendError as error:
                raise BackendUnavailable(error.reason.backend) from error
            return await self._fill(resolved, options, size, deadline, ranked, early)

    async def _fill(
        self,
        resolved: ResolvedRequest,
        options: pb.RecommendOptions,
        size: int,
        deadline: Deadline,
        ranked: RankedCandidates,
        early: EarlyScores,
    ) -> ScoredPage:
        """Cuts a page from a ranking, and ranks further candidates until it is full."""
        while True:
            allowed = None
            if not ranked.is_shortlist:
                allowed, failures = await self._allowed(
                    resolved, ranked, options, size, deadline, early
                )
                if failures:
                    ranked = _with_failures(ranked, failures)
            page = cut_page(
                ranked,
                allowed,
                options.diversity,
                resolved.release.item_vectors,
                resolved.offset,
                size,
            )
            if page.has_more or not _may_have_more(resolved, ranked, self._dense_limit):
                break
            # Further candidates must be ranked by the same backends as the previous ones.
            selection = ModelSelection(
                options.model,
                ranked.backends,
                required=True,
                left_out=resolved.selection.left_out,
            )
            try:
                more = await self._rank(resolved, ranked, ranked.best_count, selection, deadline)
            except BackendError as error:
                # A backend has failed in the meantime: the page stays short, the answer degraded.
                ranked = _with_failures(ranked, [error.reason])
                break
            if ranked.is_shortlist and more.items is None:
                ranked = ranked.continued(more)
                continue
            if more.items is None or not len(more.items):
                break
            ranked = ranked.extended(more)
        scored = await self._predict(
            resolved, ranked, page.positions, deadline, early, options.include_reasons
        )
        if scored.blends is not ranked.blends or ranked.abstaining:
            # If a backend has failed since the ranking, the blends of the two differ.
            blends = BlendPair(scored.blends.rating, ranked.blends.ranking)
            abstaining = tuple(dict.fromkeys((*ranked.abstaining, *scored.abstaining)))
            scored = replace(scored, blends=blends, abstaining=abstaining)
        return ScoredPage(ranked, page, scored)

    async def _allowed(
        self,
        resolved: ResolvedRequest,
        ranked: RankedCandidates,
        options: pb.RecommendOptions,
        size: int,
        deadline: Deadline,
        early: EarlyScores,
    ) -> tuple[Bool | None, list[BackendFailure]]:
        """Determines the candidates that the filter and `min_predicted_stars` allow.

        With `min_predicted_stars`, stars are predicted for the best candidates, and for more of
        them until enough have the requested stars to fill the page. Other candidates are not
        allowed.

        Returns:
            Whether each candidate is allowed (bool, C), None to allow all; and the failures of
            backends that did not predict stars.
        """
        eligible = resolved.eligible.mask
        if ranked.items is not None:
            eligible = eligible[ranked.items]
        if not options.HasField("min_predicted_stars"):
            return eligible, []
        depth = page_depth(options.diversity, resolved.offset + size)
        count = 2 * depth
        failures: list[BackendFailure] = []
        while True:
            best = best_positions(ranked, count, eligible)
            unknown = best[np.isnan(ranked.stars[best])]
            if len(unknown):
                scored = await self._predict(resolved, ranked, unknown, deadline, early)
                ranked.stars[unknown] = scored.stars
                failures += scored.failures
            enough = best[ranked.stars[best] >= np.float32(options.min_predicted_stars)]
            if len(enough) >= depth or len(best) < count:
                allowed = np.zeros(len(eligible), dtype=np.bool_)
                allowed[enough] = True
                return allowed, failures
            count *= _GROWTH

    async def _predict(
        self,
        resolved: ResolvedRequest,
        ranked: RankedCandidates,
        positions: Int32,
        deadline: Deadline,
        early: EarlyScores,
        with_ranking: bool = False,
    ) -> ScoredCandidates:
        """Predicts the stars of some candidates.

        Args:
            resolved: The resolved request.
            ranked: The candidates.
            positions: Positions among the candidates (int32, n).
            deadline: The time that the backends have.
            early: Scores of all items that are already being computed.
            with_ranking: Whether to score with the models of the ranking too.
        """
        model = resolved.selection.model
        items = ranked.item_indexes(positions)
        known = ranked.known_scores(items) | await early.at(items)
        if model:
            # The ranking scores of a single model are its own scores.
            known[model] = ranked.scores[positions].astype(np.float32)
        return await self._router.score(
            resolved.release,
            resolved.subject,
            items,
            ModelSelection(model, ranked.backends, left_out=resolved.selection.left_out),
            deadline,
            known,
            with_ranking,
            ranked.replicas,
        )

    async def _rank(
        self,
        resolved: ResolvedRequest,
        before: RankedCandidates | None,
        best_count: int,
        selection: ModelSelection,
        deadline: Deadline,
        stars_count: int = 0,
    ) -> RankedCandidates:
        """Ranks a small catalogue completely, or the next tier of candidates of a large one.

        Args:
            resolved: The resolved request.
            before: The candidates ranked so far; None for none.
            best_count: The maximum number of best items of each model.
            selection: The models to use.
            deadline: The time that the backends have.
            stars_count: The number of best items whose stars are predicted in the same call.
        """
        release, subject, eligible = resolved.release, resolved.subject, resolved.eligible
        top_count = 0
        if stars_count:
            max_count = max(stars_count, _MAX_SHORTLIST)
            top_count = min(_SHORTLIST_PAGES * stars_count, max_count) + 1
        if release.item_count <= self._dense_limit:
            return await self._router.rank(
                *(release, subject, None, eligible, best_count, selection, deadline, stars_count),
                top_count=top_count if top_count < release.item_count else 0,
            )
        retrievals = 0 if before is None else before.retrievals
        count = min(self._candidates * _GROWTH**retrievals, MAX_RETRIEVED)
        if not retrievals:
            shortlist, failed = await retrieve_shortlist(
                self._router.backends,
                *(release, subject, eligible, best_count, selection, deadline),
                *(stars_count, top_count or MAX_RETRIEVED, count),
            )
            if shortlist is not None and top_count:
                return replace(shortlist, retrievals=0 if shortlist.is_incomplete else 1)
            if shortlist is not None:
                # These are all candidates, from which more than the best may be selected.
                ranked = replace(shortlist, top_count=0, retrievals=1)
                return ranked if before is None else ranked.without(before)
            selection = replace(selection, failed=failed)
        failures: list[BackendFailure] = []
        if int(eligible.mask.sum()) <= count:
            items = np.flatnonzero(eligible.mask).astype(np.int32)
        else:
            items, failures = await self._router.retrieve(
                release, subject, eligible.mask, count, selection, deadline
            )
        if before is not None and before.items is not None:
            items = np.setdiff1d(items, before.items, assume_unique=True).astype(np.int32)
            if not len(items):
                # The models retrieve no further items, so the most popular of the rest follow.
                order = release.orders[POPULARITY]
                is_left = eligible.mask.copy()
                is_left[before.items] = False
                items = np.sort(order[is_left[order]][:MAX_RETRIEVED])
        ranked = await self._router.rank(
            release, subject, items, eligible, best_count, selection, deadline, stars_count
        )
        failures += ranked.failures
        return replace(ranked, failures=tuple(failures), retrievals=retrievals + 1)


def _may_have_more(resolved: ResolvedRequest, ranked: RankedCandidates, dense_limit: int) -> bool:
    """Returns whether there are eligible items that are not among the candidates."""
    if ranked.is_incomplete:
        return True
    if ranked.is_shortlist and resolved.release.item_count <= dense_limit:
        return False
    return ranked.items is not None and len(ranked.items) < int(resolved.eligible.mask.sum())


def _stars_count(options: pb.RecommendOptions, size: int) -> int:
    """Returns for how many of the best items to predict stars while ranking.

    Single models, diversity and a minimum of stars may select other items than the ensemble's best,
    so the result is 0 for them.
    """
    if options.model or options.diversity > 0 or options.HasField("min_predicted_stars"):
        return 0
    return size


def _with_failures(ranked: RankedCandidates, failures: list[BackendFailure]) -> RankedCandidates:
    """Returns the same ranking with additional failures of backends."""
    changed = replace(ranked, failures=(*ranked.failures, *failures))
    if "stars" in ranked.__dict__:
        changed.stars[:] = ranked.stars
    return changed
