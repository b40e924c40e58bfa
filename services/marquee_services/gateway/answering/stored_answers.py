"""Answers that need no scoring: cached, or precomputed with the release.

They are used only while the full ensemble is available. Otherwise the answer is computed by the
models that remain, and is marked as degraded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import StrEnum

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.errors import NoRelease, ReleaseNotFound
from marquee_services.gateway.answer_metrics import AnswerMetrics
from marquee_services.gateway.answering import messages
from marquee_services.gateway.caching.answer_cache import AnswerCache, CachedAnswer
from marquee_services.gateway.caching.message_bytes import SerializedResponse
from marquee_services.gateway.caching.page_token import PageToken, new_list_id
from marquee_services.gateway.caching.request_key import RequestKey, options_key
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.releases.precomputed import can_use_precomputed_page
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE


class AnswerOrigin(StrEnum):
    """Where an answer comes from, as the metric `marquee_answers_total` labels it."""

    CACHED = "cached"
    PRECOMPUTED = "precomputed"
    COMPUTED = "computed"


class StoredAnswers:
    """Finds the stored answer to a known user: the one that scoring would give, serialised.

    Requests need not have been validated: an invalid request has no stored answer.
    """

    def __init__(
        self,
        releases: Releases,
        router: Router,
        answer_cache: AnswerCache,
        use_precomputed: bool,
        dense_limit: int,
        fresh: FreshFeedback,
        metrics: AnswerMetrics,
    ) -> None:
        """Creates a finder.

        Args:
            releases: The releases that a request may name.
            router: Knows whether the full ensemble is available.
            answer_cache: The cached first pages of known users.
            use_precomputed: Whether to use the pages that were precomputed with a release.
            dense_limit: The largest catalogue, in items, that is scored as a whole. Precomputed
                pages are ranked that way, and are not used for larger catalogues.
            fresh: The feedback of users since the release was trained. Precomputed pages do not
                know it, and cached ones are of one version of it.
            metrics: Counts the answers by what they recommend.
        """
        self._releases = releases
        self._router = router
        self._cache = answer_cache
        self._use_precomputed = use_precomputed
        self._dense_limit = dense_limit
        self._fresh = fresh
        self._metrics = metrics
        # The serialised source of the last release asked for; it is the same for all its answers.
        self._release_source: tuple[GatewayRelease | None, bytes] = None, b""

    def single(
        self, request: pb.RecommendRequest, start: float
    ) -> tuple[SerializedResponse, AnswerOrigin] | None:
        """The stored answer to a Recommend request, and its origin.

        Args:
            request: The request.
            start: When the request arrived, by `time.perf_counter()`.

        Returns:
            The serialised RecommendResponse and where it comes from; None if it must be computed.
        """
        if request.page_token:
            return None
        key, options = RequestKey.of(request), request.options
        release = self._release_with_full_ensemble(options)
        if release is None:
            return None
        version = self._feedback_version(release, request.subject)
        found = self._find(release, request.subject, options, key, version)
        if found is None:
            return None
        answer, origin = found
        list_id, token = new_list_id(), ""
        if answer.has_more:
            token = PageToken(
                list_id, release.release_id, answer.backends, key.digest, key.page_size, version
            ).encode()
        return answer.response(list_id, token, _microseconds_since(start)), origin

    def batch(
        self, request: pb.BatchRecommendRequest, start: float
    ) -> Iterator[SerializedResponse | None]:
        """The stored answers to the subjects of a batch, without page tokens.

        Args:
            request: The request.
            start: When the request arrived, by `time.perf_counter()`.

        Yields:
            For each subject the serialised RecommendResponse; None if it must be computed.
        """
        options = request.options
        options_bytes = options_key(options)
        for subject in request.subjects:
            # Picked again for each subject: a release may be promoted, or a backend lost, before a
            # slow reader takes the next message.
            release, found = self._release_with_full_ensemble(options), None
            if release is not None:
                key = RequestKey.of_subject(subject, request.page_size, options_bytes)
                version = self._feedback_version(release, subject)
                found = self._find(release, subject, options, key, version)
            if found is None:
                yield None
            else:
                answer, _ = found
                yield answer.response(new_list_id(), "", _microseconds_since(start))

    def _release_with_full_ensemble(self, options: pb.RecommendOptions) -> GatewayRelease | None:
        """The release that answers; None if it is not loaded or lacks one of its backends."""
        try:
            release = self._releases.pick(options.release_id)
        except (NoRelease, ReleaseNotFound):
            return None
        return release if self._router.can_use_full_ensemble(release) else None

    def _feedback_version(self, release: GatewayRelease, subject: types_pb2.Subject) -> int:
        return self._fresh.of(subject.user_id, release.manifest.feedback_position).version

    def _find(
        self,
        release: GatewayRelease,
        subject: types_pb2.Subject,
        options: pb.RecommendOptions,
        key: RequestKey,
        feedback_version: int,
    ) -> tuple[CachedAnswer, AnswerOrigin] | None:
        cached = self._cache.get(release.release_id, key, feedback_version)
        if cached is not None:
            self._metrics.count_stored(release, cached.body)
            return cached, AnswerOrigin.CACHED
        if feedback_version:
            return None
        precomputed = self._from_precomputed_page(release, subject, options, key)
        if precomputed is None:
            return None
        self._metrics.count_stored(release, precomputed.body)
        return precomputed, AnswerOrigin.PRECOMPUTED

    def _from_precomputed_page(
        self,
        release: GatewayRelease,
        subject: types_pb2.Subject,
        options: pb.RecommendOptions,
        key: RequestKey,
    ) -> CachedAnswer | None:
        if (
            not self._use_precomputed
            or release.item_count > self._dense_limit
            or not can_use_precomputed_page(subject, key.page_size, options)
        ):
            return None
        user = release.users.index(subject.user_id)
        page = release.precomputed_pages.get(user) if user >= 0 else b""
        if not page:
            return None
        unseen = release.item_count - len(release.data.matrix.seen(user))
        unchanged = key.page_size == DEFAULT_PAGE_SIZE and not options.include_metadata
        answer = CachedAnswer(
            page if unchanged else _shorten(release, page, key.page_size, options.include_metadata),
            self._full_ensemble_source(release),
            tuple(sorted(release.backends)),
            unseen > key.page_size,
        )
        if not unchanged:
            # An unchanged page is not cached: the release holds its bytes already.
            self._cache.add(release.release_id, key, answer)
        return answer

    def _full_ensemble_source(self, release: GatewayRelease) -> bytes:
        """The serialised AnswerSource of an answer that the full ensemble gives."""
        if self._release_source[0] is not release:
            blends = release.ensemble.blends(sorted(release.backends))
            message = messages.source_message(release, blends, ())
            self._release_source = release, message.SerializeToString()
        return self._release_source[1]


def _shorten(release: GatewayRelease, page: bytes, size: int, with_metadata: bool) -> bytes:
    """The first `size` items of a precomputed page, with metadata on request."""
    response = pb.RecommendResponse.FromString(page)
    del response.items[size:]
    if with_metadata:
        messages.add_metadata(release, response.items)
    return response.SerializeToString()


def _microseconds_since(start: float) -> int:
    return int((time.perf_counter() - start) * 1e6)
