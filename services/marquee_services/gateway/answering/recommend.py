"""Answers Recommend when scoring is needed: resolve, score, cut the page, build the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.arrays import Int32
from marquee_services.gateway.answer_metrics import AnswerMetrics
from marquee_services.gateway.answering import messages
from marquee_services.gateway.answering.degradation import degraded_reasons
from marquee_services.gateway.answering.item_bytes import serialized_items
from marquee_services.gateway.answering.item_metadata import serialized_metadata
from marquee_services.gateway.answering.page_scorer import PageScorer, ScoredPage
from marquee_services.gateway.answering.reasons import Explainer
from marquee_services.gateway.answering.resolved_request import ResolvedRequest, resolve_request
from marquee_services.gateway.backends.failures import BackendFailure
from marquee_services.gateway.caching.answer_cache import AnswerCache, CachedAnswer
from marquee_services.gateway.caching.message_bytes import SerializedResponse
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.caching.request_key import RequestKey
from marquee_services.gateway.experiments.routing import Routing
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.rated_items import RatedItems
from marquee_services.gateway.releases.serving import Releases

# Longer pages are assembled in slices of this many items, between which other tasks get a turn.
_SLICE = 100


@dataclass(frozen=True, slots=True)
class ComputedAnswer:
    """An answer that is serialised except for its timing.

    Attributes:
        answer: The answer without its id, page token and timing.
        list_id: The id of the list from which the page is cut.
        next_page_token: The token of the next page; "" if there is none.
        degraded_reasons: The reasons for which the answer is degraded.
    """

    answer: CachedAnswer
    list_id: str
    next_page_token: str
    degraded_reasons: Sequence[types_pb2.DegradedReason.ValueType]

    def response(self, server_time_us: int) -> SerializedResponse:
        """Returns the answer as a serialised RecommendResponse.

        Args:
            server_time_us: The time that the answer took, in microseconds.
        """
        return self.answer.response(self.list_id, self.next_page_token, server_time_us)


class Recommender:
    """Computes recommendations. Requests must have been validated."""

    def __init__(
        self,
        releases: Releases,
        routing: Routing,
        page_scorer: PageScorer,
        explainer: Explainer,
        answer_cache: AnswerCache,
        fresh: FreshFeedback,
        metrics: AnswerMetrics,
    ) -> None:
        """Creates a recommender.

        Args:
            releases: The releases that a request may name.
            routing: Selects the release that answers a request.
            page_scorer: Scores the candidates and cuts the page.
            explainer: Finds the reasons for the items on request.
            answer_cache: Caches the first pages of known users.
            fresh: The feedback of users since the release was trained.
            metrics: Counts the answers and their items.
        """
        self._releases = releases
        self._routing = routing
        self._page_scorer = page_scorer
        self._explainer = explainer
        self._answer_cache = answer_cache
        self._fresh = fresh
        self._metrics = metrics

    async def recommend(
        self,
        request: pb.RecommendRequest,
        key: RequestKey,
        rated: RatedItems,
        deadline: Deadline,
        field: str = "subject",
        paged: bool = True,
        leave_out_reasons: bool = False,
        leave_out_models: bool = False,
    ) -> ComputedAnswer:
        """Computes a page of recommendations.

        Args:
            request: The request.
            key: The key of the request.
            rated: The ratings of the subject.
            deadline: The time that the backends have.
            field: The path of the subject in the caller's request, for error messages.
            paged: Whether the answer may include a token for the next page.
            leave_out_reasons: Whether to leave out reasons that the request asks for. The answer
                is then marked as degraded.
            leave_out_models: Whether to leave out the slowest models of a first page. The answer
                is then marked as degraded, and further pages use the same models.

        Raises:
            ServiceError: The request cannot be answered; the protocol lists the method's errors.
        """
        options, size = request.options, key.page_size
        token = None
        if request.page_token:
            token = PageToken.verify(request.page_token, key.digest if paged else "")
        resolved = resolve_request(self._routing, self._fresh, request, rated, token, field)
        release, kind = resolved.release, resolved.subject.kind
        if leave_out_models and token is None and not options.model:
            selection = replace(
                resolved.selection, left_out=self._page_scorer.slowest_models(release)
            )
            resolved = replace(resolved, selection=selection)
        left_out = resolved.selection.left_out
        scored_page = await self._page_scorer.score_page(resolved, options, size, deadline)
        ranked, page, scored = scored_page.ranked, scored_page.page, scored_page.scored
        shown = ranked.item_indexes(page.positions)
        is_long = len(shown) > _SLICE
        if is_long:
            await asyncio.sleep(0)
        stars = scored.stars if release.predicts_stars else None
        failures: Sequence[BackendFailure] = (*ranked.failures, *scored.failures)
        leave_out_reasons &= options.include_reasons
        details = None
        if options.include_metadata or options.include_reasons:
            details, more_failures = await self._details(
                resolved, scored_page, shown, options, deadline, leave_out_reasons
            )
            failures = (*failures, *more_failures)
        items, proposers = b"", ranked.proposers(page.positions)
        for start in range(0, len(shown), _SLICE):
            if is_long:
                await asyncio.sleep(0)
            part = slice(start, start + _SLICE)
            items += serialized_items(
                release.catalogue.items.encoded_ids(shown[part]),
                ranked.scores[page.positions[part]],
                None if stars is None else stars[part],
                proposers[part],
                resolved.offset + 1 + start,
                None if details is None else details[part],
            )
        degraded_by = degraded_reasons(failures, leave_out_reasons, bool(left_out))
        source = messages.serialized_source(
            resolved.route, scored.blends, degraded_by, scored.abstaining
        )
        about_subject = _serialized_kind(kind)
        if resolved.unknown_items:
            unknown = pb.RecommendResponse(unknown_item_ids=resolved.unknown_items)
            about_subject += unknown.SerializeToString()
        backends = tuple(sorted(ranked.backends))
        answer = CachedAnswer(about_subject + items, source, backends, page.has_more)
        next_token = ""
        if paged and page.has_more:
            self._page_scorer.cache(resolved.list_id, ranked)
            next_token = PageToken(
                resolved.list_id,
                release.release_id,
                backends,
                key.digest,
                resolved.offset + size,
                resolved.feedback.version,
                tuple(sorted(left_out)),
            ).encode()
        self._metrics.count(release, kind, shown, stars)
        if token is None and not _may_match_nothing(options):
            self._releases.count_answer(release, not len(shown) and not failures)
        if token is None:
            self._routing.record_list(resolved.route, request.subject.user_id)
            adds_ratings = request.subject.ratings or request.subject.liked_item_ids
            self._answer_cache.put(
                resolved.route.cache_key,
                key,
                answer,
                kind,
                bool(degraded_by),
                0 if adds_ratings else resolved.feedback.cache_version,
            )
        return ComputedAnswer(answer, resolved.list_id, next_token, degraded_by)

    async def _details(
        self,
        resolved: ResolvedRequest,
        scored_page: ScoredPage,
        shown: Int32,
        options: pb.RecommendOptions,
        deadline: Deadline,
        leave_out_reasons: bool,
    ) -> tuple[list[bytes], list[BackendFailure]]:
        """Finds the metadata and the reasons that the options request for the items of a page.

        Returns:
            The serialised fields `metadata` and `reasons` of each item, and the failures of
            backends that did not return evidence for the reasons.
        """
        details, failures = [b""] * len(shown), list[BackendFailure]()
        if options.include_metadata:
            details = await serialized_metadata(resolved.release, shown)
        if options.include_reasons and not leave_out_reasons:
            reasons, failures = await self._explainer.reasons(
                resolved.release, resolved.subject, scored_page, deadline
            )
            details = [metadata + why for metadata, why in zip(details, reasons, strict=True)]
        return details, failures

    def is_limited_by_models(self) -> bool:
        """Returns whether leaving out models makes answers faster; see `ModelLoad`."""
        return self._page_scorer.is_limited_by_models()

    def check_options(self, options: pb.RecommendOptions) -> None:
        """Checks the release and the model that options name.

        Raises:
            ReleaseNotFound: The release is not loaded.
            NoRelease: No release is in service yet.
            ModelNotFound: The release has no model with that name.
        """
        release = self._releases.pick(options.release_id)
        if options.model:
            release.model(options.model)


@lru_cache
def _serialized_kind(kind: types_pb2.SubjectKind.ValueType) -> bytes:
    """Returns the serialised field `subject_kind` of a response."""
    return pb.RecommendResponse(subject_kind=kind).SerializeToString()


def _may_match_nothing(options: pb.RecommendOptions) -> bool:
    """Returns whether options may exclude all items of any release."""
    return (
        options.HasField("filter")
        or options.HasField("min_predicted_stars")
        or bool(options.release_id or options.model)
    )
