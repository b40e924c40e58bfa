"""Answers Recommend when scores are needed: resolve, score, cut the page, build the answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.gateway.answer_metrics import AnswerMetrics
from marquee_services.gateway.answering import messages
from marquee_services.gateway.answering.page_scorer import PageScorer
from marquee_services.gateway.answering.reasons import Explainer
from marquee_services.gateway.answering.resolved_request import resolve_request
from marquee_services.gateway.caching.answer_cache import AnswerCache
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.caching.request_key import RequestKey
from marquee_services.gateway.experiments.routing import Routing
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE

# Metadata is added to so many items before other calls get their turn; it takes about 2 ms.
_SLICE = 100


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
            routing: Knows which release answers a request.
            page_scorer: Scores the candidates and cuts the page.
            explainer: Adds reasons to the items on request.
            answer_cache: Receives the first pages of known users.
            fresh: The feedback of users since the release was trained.
            metrics: Counts the answers by what they recommend.
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
        deadline: Deadline,
        field: str = "subject",
        paged: bool = True,
        leave_out_reasons: bool = False,
        leave_out_models: bool = False,
    ) -> pb.RecommendResponse:
        """Computes a page of recommendations.

        Args:
            request: The request.
            deadline: How long the backends may take.
            field: The path of the subject in the caller's request, for error messages.
            paged: Whether the answer may carry a token for the next page.
            leave_out_reasons: Whether to leave out reasons, and say so, if the request asks for
                them.
            leave_out_models: Whether to leave out the slowest models, and say so. A further page
                is ranked as the first one was.

        Raises:
            ServiceError: The request cannot be answered; the protocol lists the method's errors.
        """
        options, size = request.options, request.page_size or DEFAULT_PAGE_SIZE
        key = RequestKey.of(request)
        digest = key.digest if paged else ""
        token = PageToken.verify(request.page_token, digest)
        resolved = resolve_request(self._routing, self._fresh, request, token, field)
        release = resolved.release
        if leave_out_models and token is None and not options.model:
            left_out = self._page_scorer.slowest_models(release)
            selection = replace(resolved.selection, left_out=left_out)
            resolved = replace(resolved, selection=selection)
        left_out = resolved.selection.left_out
        scored_page = await self._page_scorer.score_page(resolved, options, size, deadline)
        ranked, page, scored = scored_page.ranked, scored_page.page, scored_page.scored
        shown = ranked.item_indexes(page.positions)
        scored_stars = scored.stars if release.predicts_stars else None
        items = messages.recommended_items(
            release.catalogue.items.ids(shown),
            ranked.scores[page.positions],
            scored_stars,
            ranked.proposers(page.positions),
            resolved.offset + 1,
        )
        if options.include_metadata:
            for start in range(0, len(items), _SLICE):
                messages.add_metadata(release, items[start : start + _SLICE])
                if len(items) > _SLICE:
                    await asyncio.sleep(0)
        failures = [*ranked.failures, *scored.failures]
        leave_out_reasons &= options.include_reasons
        if options.include_reasons and not leave_out_reasons:
            failures += await self._explainer.add_reasons(
                items, release, resolved.subject, scored_page, deadline
            )
        next_token = ""
        if paged and page.has_more:
            self._page_scorer.cache(resolved.list_id, ranked)
            backends = tuple(sorted(ranked.backends))
            next_token = PageToken(
                resolved.list_id,
                release.release_id,
                backends,
                digest,
                resolved.offset + size,
                resolved.feedback.version,
                tuple(sorted(left_out)),
            ).encode()
        response = pb.RecommendResponse(
            recommendation_id=resolved.list_id,
            subject_kind=resolved.subject.kind,
            items=items,
            next_page_token=next_token,
            source=messages.source_message(
                resolved.route, scored.blends, failures, scored.abstaining
            ),
            unknown_item_ids=resolved.unknown_items,
        )
        self._metrics.count(release, resolved.subject.kind, shown, scored_stars)
        if token is None:
            self._routing.served(resolved.route, request.subject.user_id)
        if leave_out_reasons:
            response.source.degraded = True
            response.source.degraded_reasons.append(types_pb2.DEGRADED_REASON_REASONS_LEFT_OUT)
        if left_out:
            response.source.degraded = True
            response.source.degraded_reasons.append(types_pb2.DEGRADED_REASON_MODELS_LEFT_OUT)
        if not (leave_out_reasons or left_out) and token is None:
            adds_ratings = request.subject.ratings or request.subject.liked_item_ids
            self._answer_cache.put(
                resolved.route.cache_key,
                key,
                response,
                ranked.backends,
                page.has_more,
                0 if adds_ratings else resolved.feedback.cache_version,
            )
        return response

    def check_options(self, options: pb.RecommendOptions) -> None:
        """Checks the release and the model that options name.

        Raises:
            ReleaseNotFound: The release is not loaded.
            NoRelease: No release is in service yet.
            ModelNotFound: The release has no model of that name.
        """
        release = self._releases.pick(options.release_id)
        if options.model:
            release.model(options.model)
