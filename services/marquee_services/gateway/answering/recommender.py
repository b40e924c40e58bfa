"""Answers what takes scores: recommendations, predictions and similar items."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Bool
from marquee_core.retrieval.top import top_indexes
from marquee_services.errors import (
    BackendUnavailable,
    FieldViolation,
    InvalidFields,
    ItemNotFound,
    PageTokenMismatch,
)
from marquee_services.gateway.answering import messages as answers
from marquee_services.gateway.backends.failures import BackendError
from marquee_services.gateway.caching.answer_cache import AnswerCache
from marquee_services.gateway.caching.list_cache import ListCache
from marquee_services.gateway.caching.page_token import PageToken, new_list_id
from marquee_services.gateway.caching.request_key import RequestKey
from marquee_services.gateway.ranking.filters import eligible_items
from marquee_services.gateway.ranking.pages import Page, cut_page
from marquee_services.gateway.ranking.router import Deadline, Router, ScoreOptions
from marquee_services.gateway.ranking.scored import Scored
from marquee_services.gateway.ranking.similar import blend_similarities, mean_of
from marquee_services.gateway.ranking.subjects import ResolvedSubject, resolve_subject
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.server.wire import MAX_RETRIEVED

# Rated items named as reasons for each recommended item.
_EVIDENCE_ITEMS = 5
# How many times more items each further retrieval asks for, when a page did not fill.
_RETRIEVAL_GROWTH = 4


@dataclass(frozen=True)
class _List:
    """A list that a page is cut from."""

    list_id: str
    release: GatewayRelease
    subject: ResolvedSubject
    eligible: Bool
    unknown_items: tuple[str, ...]
    offset: int


class Recommender:
    """Answers calls; requests are valid in form."""

    def __init__(
        self,
        releases: Releases,
        router: Router,
        lists: ListCache,
        answer_cache: AnswerCache,
        dense_limit: int,
        candidates: int,
    ) -> None:
        """Takes its collaborators.

        Args:
            releases: The releases that can be answered with.
            router: Scores.
            lists: Keeps lists for their next pages.
            answer_cache: Keeps known users' answers.
            dense_limit: The largest catalogue that is scored whole.
            candidates: How many items each model retrieves of a larger one, at first.
        """
        self._releases = releases
        self._router = router
        self._lists = lists
        self._cache = answer_cache
        self._dense_limit = dense_limit
        self._candidates = candidates

    async def recommend(
        self,
        request: pb.RecommendRequest,
        deadline: Deadline,
        field: str = "subject",
        paged: bool = True,
    ) -> pb.RecommendResponse:
        """Answers a page of recommendations.

        Args:
            request: The request.
            deadline: When the answer is due.
            field: The path of the subject in the call's request.
            paged: Whether the answer may name a next page.

        Raises:
            ServiceError: See the errors of the method in the protocol.
        """
        options, size = request.options, request.page_size or DEFAULT_PAGE_SIZE
        key = RequestKey.of(request)
        digest = key.digest if paged else ""
        token = PageToken.of(request.page_token, digest)
        asked = self._begin(request, token, field)
        scored, page = await self._scored_page(asked, request, token, size, deadline)
        count, indexes = max(size, DEFAULT_PAGE_SIZE), scored.item_indexes(page.places)
        items = answers.recommended_items(
            asked.release.catalogue.items.ids(indexes),
            scored.ranking[page.places],
            scored.stars[page.places],
            scored.proposers(page.places, page.eligible, count),
            asked.offset + 1,
        )
        if options.include_metadata:
            answers.add_metadata(asked.release, items)
        failures = list(scored.failures)
        if options.include_reasons:
            failures += await self._add_reasons(asked, scored, page, items, deadline)
        next_token = ""
        if paged and page.has_more:
            self._lists.put(asked.list_id, scored)
            next_token = PageToken(
                asked.list_id,
                asked.release.release_id,
                tuple(sorted(scored.backends)),
                digest,
                asked.offset + size,
            ).encode()
        response = pb.RecommendResponse(
            recommendation_id=asked.list_id,
            subject_kind=asked.subject.kind,
            items=items,
            next_page_token=next_token,
            source=answers.source_message(
                asked.release, scored.blends, _distinct(failures), scored.abstaining
            ),
            unknown_item_ids=asked.unknown_items,
        )
        if token is None:
            release_id = asked.release.release_id
            self._cache.put(release_id, key, response, scored.backends, page.has_more)
        return response

    def check_options(self, options: pb.RecommendOptions) -> None:
        """Checks what options name.

        Raises:
            ReleaseNotFound: The release is not loaded.
            ModelNotFound: The release has no such model.
        """
        release = self._releases.pick(options.release_id)
        if options.model:
            release.model(options.model)

    async def predict(
        self, request: pb.PredictRatingsRequest, deadline: Deadline
    ) -> pb.PredictRatingsResponse:
        """Predicts ratings of given items.

        Raises:
            ServiceError: See the errors of the method in the protocol.
        """
        release = self._releases.pick(request.release_id)
        subject = resolve_subject(release, request.subject)
        indexes = release.catalogue.items.indexes(request.item_ids)
        known = indexes >= 0
        scored = await self._router.score(
            release, subject, indexes[known], ScoreOptions(request.model), deadline
        )
        stars = iter(scored.stars.tolist())
        return pb.PredictRatingsResponse(
            predictions=[
                pb.PredictedRating(item_id=item_id, stars=next(stars) if is_known else None)
                for item_id, is_known in zip(request.item_ids, known.tolist(), strict=True)
            ],
            subject_kind=subject.kind,
            source=answers.source_message(
                release, scored.blends, scored.failures, scored.abstaining
            ),
            unknown_item_ids=subject.unknown_items,
        )

    async def similar(
        self, request: pb.SimilarItemsRequest, deadline: Deadline
    ) -> pb.SimilarItemsResponse:
        """Answers the items most similar to an item.

        Raises:
            ServiceError: See the errors of the method in the protocol.
        """
        release = self._releases.pick(request.release_id)
        item = release.catalogue.items.index(request.item_id)
        if item < 0:
            raise ItemNotFound(request.item_id)
        eligible, unknown = eligible_items(release, request.filter)
        eligible[item] = False
        rows, failures = await self._router.compare(release, item, request.model, deadline)
        size = request.page_size or DEFAULT_PAGE_SIZE
        blend, rows = blend_similarities(rows, item, release)
        best = top_indexes(blend, size, eligible & (blend > 0))
        proposals = {
            name: set(top_indexes(row, max(size, DEFAULT_PAGE_SIZE), eligible & (row > 0)).tolist())
            for name, row in sorted(rows.items())
        }
        return pb.SimilarItemsResponse(
            items=[
                pb.SimilarItem(
                    item_id=release.catalogue.items.id(index),
                    rank=rank,
                    similarity=float(blend[index]),
                    proposed_by=[name for name, top in proposals.items() if index in top],
                    metadata=answers.item_message(release, index)
                    if request.include_metadata
                    else None,
                )
                for rank, index in enumerate(best.tolist(), start=1)
            ],
            source=answers.source_message(release, mean_of(rows), failures),
            unknown_item_ids=unknown,
        )

    def _begin(self, request: pb.RecommendRequest, token: PageToken | None, field: str) -> _List:
        """Looks up what a page is cut from."""
        options = request.options
        if token is None:
            release = self._releases.pick(options.release_id)
        else:
            release = self._releases.of_page(token.release_id)
            if not release.backends.issuperset(token.backends):
                raise PageTokenMismatch("damaged")
        if options.HasField("min_predicted_stars"):
            high = release.manifest.data.rating_max
            if options.min_predicted_stars > high:
                raise InvalidFields(
                    [FieldViolation("options.min_predicted_stars", f"above {high:g}")]
                )
        if options.model:
            release.model(options.model)
        subject = resolve_subject(release, request.subject, field)
        eligible, unknown = eligible_items(release, options.filter)
        if not options.include_seen:
            eligible[subject.profile.items] = False
        return _List(
            list_id=token.list_id if token else new_list_id(),
            release=release,
            subject=subject,
            eligible=eligible,
            unknown_items=tuple(dict.fromkeys((*subject.unknown_items, *unknown))),
            offset=token.offset if token else 0,
        )

    async def _scored_page(
        self,
        asked: _List,
        request: pb.RecommendRequest,
        token: PageToken | None,
        size: int,
        deadline: Deadline,
    ) -> tuple[Scored, Page]:
        """Scores candidates until the page is full or there are no more."""
        options = request.options
        pinned = frozenset(token.backends) if token and not options.model else None
        wanted = ScoreOptions(options.model, pinned)
        try:
            scored = self._lists.get(token.list_id) if token else None
            scored = scored or await self._score(asked, None, wanted, deadline)
        except BackendError as error:
            raise BackendUnavailable(error.backend) from error
        qualifying = int(asked.eligible.sum())
        while True:
            page = cut_page(
                scored,
                asked.eligible,
                options.min_predicted_stars if options.HasField("min_predicted_stars") else None,
                options.diversity,
                asked.release.item_vectors,
                asked.offset,
                size,
            )
            if page.has_more or scored.items is None or len(scored.items) >= qualifying:
                return scored, page
            wanted = ScoreOptions(options.model, None if options.model else scored.backends)
            try:
                more = await self._score(asked, scored, wanted, deadline)
            except BackendError as error:
                # A backend was lost on the way: what there is, and word of it.
                return replace(scored, failures=(*scored.failures, error)), page
            if more.items is None or not len(more.items):
                return scored, page
            scored = scored.extended(more)

    async def _score(
        self, asked: _List, before: Scored | None, wanted: ScoreOptions, deadline: Deadline
    ) -> Scored:
        """Scores the whole of a small catalogue, or of a large one the next tier of candidates."""
        release = asked.release
        if release.item_count <= self._dense_limit:
            return await self._router.score(release, asked.subject, None, wanted, deadline)
        turn = 0
        if before is not None:
            turn = 1 if before.tiers is None else int(before.tiers.max()) + 1
        count = min(self._candidates * _RETRIEVAL_GROWTH**turn, MAX_RETRIEVED)
        failures: list[BackendError] = []
        if int(asked.eligible.sum()) <= count:
            items = np.flatnonzero(asked.eligible).astype(np.int32)
        else:
            items, failures = await self._router.retrieve(
                release, asked.subject, asked.eligible, count, wanted, deadline
            )
        if before is not None and before.items is not None:
            items = np.setdiff1d(items, before.items, assume_unique=True).astype(np.int32)
        scored = await self._router.score(release, asked.subject, items, wanted, deadline)
        return replace(scored, failures=(*failures, *scored.failures))

    async def _add_reasons(
        self,
        asked: _List,
        scored: Scored,
        page: Page,
        items: list[pb.RecommendedItem],
        deadline: Deadline,
    ) -> list[BackendError]:
        """Adds the reasons to each item; evidence is missing when its backend is away."""
        for item, place in zip(items, page.places.tolist(), strict=True):
            item.reasons.extend(answers.model_shares(scored, place))
        if not items or "cf" not in scored.backends:
            return []
        release_id = asked.release.release_id
        query = asked.subject.query(scored.item_indexes(page.places))
        try:
            evidence = await self._router.backends["cf"].call(
                release_id,
                deadline.left(),
                lambda r, left: r.explain(release_id, query, _EVIDENCE_ITEMS, left),
            )
        except BackendError as error:
            return [error]
        for item, found in zip(items, evidence, strict=True):
            item.reasons.extend(answers.evidence_reasons(asked.release, asked.subject, found))
        return []


def _distinct(failures: list[BackendError]) -> list[BackendError]:
    """The first failure of each kind."""
    return list({(f.backend, f.failure): f for f in reversed(failures)}.values())[::-1]
