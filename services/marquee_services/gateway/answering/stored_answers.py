"""Finds answers that need no scoring: cached, or precomputed with the release.

Stored answers are used only while the full ensemble is available. Otherwise the answer is computed
with the remaining models and marked as degraded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple
from weakref import ReferenceType, ref

import structlog

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.errors import NoRelease, ReleaseNotFound
from marquee_services.gateway.answer_metrics import AnswerMetrics
from marquee_services.gateway.answering import messages
from marquee_services.gateway.caching.answer_cache import AnswerCache, CachedAnswer
from marquee_services.gateway.caching.message_bytes import SerializedResponse
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.caching.request_key import RequestKey, options_key
from marquee_services.gateway.experiments.route import Route
from marquee_services.gateway.experiments.routing import Routing
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.releases.precomputed import can_use_precomputed_page
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE

_log = structlog.get_logger()

# The most requests whose answers are found without parsing the request, and their largest size and
# that of an answer in bytes.
_MAX_REPEATED, _MAX_REQUEST_BYTES, _MAX_ANSWER_BYTES = 1024, 256, 4096


class AnswerOrigin(StrEnum):
    """The origin of an answer, a label of the metric `marquee_answers_total`."""

    CACHED = "cached"
    PRECOMPUTED = "precomputed"
    COMPUTED = "computed"


class _Repeated(NamedTuple):
    """A request with a stored answer, which is found again by the serialised request.

    Attributes:
        user_id: The user's id.
        names: The release and the model in the request; "" if it names none.
        route: A weak reference to the route that answers, which does not keep its release loaded.
        feedback_version: The version of the user's feedback on which the answer is based.
        cache_version: The same version, as it identifies cached answers.
        answer: The answer.
        origin: Its origin.
        digest: The digest of the request, for page tokens.
        page_size: The number of items of a page.
    """

    user_id: str
    names: tuple[str, str]
    route: ReferenceType[Route]
    feedback_version: int
    cache_version: int
    answer: CachedAnswer
    origin: AnswerOrigin
    digest: str
    page_size: int


class StoredAnswers:
    """Finds the stored, serialised answers to known users, which are the same as computed ones.

    Requests need not have been validated: an invalid request has no stored answer.
    """

    def __init__(
        self,
        routing: Routing,
        router: Router,
        answer_cache: AnswerCache,
        use_precomputed: bool,
        dense_limit: int,
        candidates: int,
        fresh: FreshFeedback,
        metrics: AnswerMetrics,
    ) -> None:
        """Creates a finder.

        Args:
            routing: Selects the release that answers a request.
            router: Reports whether the full ensemble is available.
            answer_cache: The cached first pages of known users.
            use_precomputed: Whether to use the pages that were precomputed with a release.
            dense_limit: The largest catalogue, in items, that is ranked completely.
            candidates: The number of items of a larger catalogue that each model retrieves.
                Precomputed pages are used only if they were ranked with the same settings, because
                further pages are computed with them.
            fresh: The feedback of users since the release was trained. Precomputed pages do not
                reflect it, and cached pages reflect one version of it.
            metrics: Counts the answers and their items.
        """
        self._routing = routing
        self._router = router
        self._cache = answer_cache
        self._use_precomputed = use_precomputed
        self._dense_limit = dense_limit
        self._candidates = candidates
        self._fresh = fresh
        self._metrics = metrics
        # The last release whose pages were ranked with other settings, to log it only once.
        self._mismatched = ""
        # The least recently added request comes first.
        self._repeated: dict[bytes, _Repeated] = {}

    def single(
        self, request: pb.RecommendRequest, key: RequestKey, start: float
    ) -> tuple[SerializedResponse, AnswerOrigin] | None:
        """Returns the stored answer to a Recommend request, and its origin.

        Args:
            request: The request.
            key: The key of the request.
            start: When the request arrived, by `time.perf_counter()`.

        Returns:
            The serialised RecommendResponse and its origin; None if it must be computed.
        """
        subject, options = request.subject, request.options
        user_id = subject.user_id
        if request.page_token or not user_id or subject.ratings or subject.liked_item_ids:
            return None  # Only answers that depend on recorded ratings alone are stored.
        names = options.release_id, options.model
        route = self._route_with_full_ensemble(user_id, *names)
        if route is None:
            return None
        feedback = self._fresh.for_release(user_id, route.release.manifest)
        found = self._find(route, subject, options, key, feedback.cache_version)
        if found is None:
            return None
        repeated = _Repeated(
            *(user_id, names, ref(route), feedback.version, feedback.cache_version),
            *(*found, key.digest, key.page_size),
        )
        self._remember(request.SerializeToString(deterministic=True), repeated)
        return self._complete(repeated, route, start)

    def again(self, request: bytes, start: float) -> tuple[SerializedResponse, AnswerOrigin] | None:
        """Returns the stored answer to a request that `single` has answered before, if it still is.

        Args:
            request: The serialised request.
            start: When the request arrived, by `time.perf_counter()`.

        Returns:
            As `single`; None if the request is not remembered, or its answer has changed.
        """
        repeated = self._repeated.get(request)
        if repeated is None:
            return None
        user_id = repeated.user_id
        route = self._route_with_full_ensemble(user_id, *repeated.names)
        if (
            route is None
            or route is not repeated.route()
            or self._fresh.for_release(user_id, route.release.manifest).cache_version
            != repeated.cache_version
        ):
            del self._repeated[request]
            return None
        self._metrics.count_stored(route.release, repeated.answer.body)
        return self._complete(repeated, route, start)

    def _remember(self, request: bytes, repeated: _Repeated) -> None:
        if len(request) > _MAX_REQUEST_BYTES or len(repeated.answer.body) > _MAX_ANSWER_BYTES:
            return
        if len(self._repeated) >= _MAX_REPEATED:
            del self._repeated[next(iter(self._repeated))]
        self._repeated[request] = repeated

    def _complete(
        self, found: _Repeated, route: Route, start: float
    ) -> tuple[SerializedResponse, AnswerOrigin]:
        """Completes a stored answer with its id, page token and time."""
        answer = found.answer
        list_id, token = route.new_list_id(found.user_id), ""
        if answer.has_more:
            token = PageToken(
                *(list_id, route.release.release_id, answer.backends),
                *(found.digest, found.page_size, found.feedback_version),
            ).encode()
        self._routing.record_list(route, found.user_id)
        return answer.response(list_id, token, microseconds_since(start)), found.origin

    def batch(
        self, request: pb.BatchRecommendRequest, start: float
    ) -> Iterator[SerializedResponse | None]:
        """Yields the stored answers to the subjects of a batch, without page tokens.

        Args:
            request: The request.
            start: When the request arrived, by `time.perf_counter()`.

        Yields:
            For each subject, the serialised RecommendResponse; None if it must be computed.
        """
        options = request.options
        options_bytes = options_key(options)
        for subject in request.subjects:
            # Determined anew for each subject: a release may be promoted or a backend may fail
            # before a slow reader takes the next message.
            user_id = subject.user_id
            names = options.release_id, options.model
            route, found = self._route_with_full_ensemble(user_id, *names), None
            if route is not None:
                key = RequestKey.of_subject(subject, request.page_size, options_bytes)
                feedback = self._fresh.for_release(user_id, route.release.manifest)
                found = self._find(route, subject, options, key, feedback.cache_version)
            if route is None or found is None:
                yield None
            else:
                answer, _ = found
                self._routing.record_list(route, user_id)
                list_id = route.new_list_id(user_id)
                yield answer.response(list_id, "", microseconds_since(start))

    def _route_with_full_ensemble(self, user_id: str, release_id: str, model: str) -> Route | None:
        """Returns the route of a request; None if its release or one of the backends is missing."""
        try:
            route = self._routing.route(user_id, release_id, model)
        except (NoRelease, ReleaseNotFound):
            return None
        return route if self._router.can_use_full_ensemble(route.release) else None

    def _find(
        self,
        route: Route,
        subject: types_pb2.Subject,
        options: pb.RecommendOptions,
        key: RequestKey,
        feedback_version: int,
    ) -> tuple[CachedAnswer, AnswerOrigin] | None:
        cached = self._cache.get(route.cache_key, key, feedback_version)
        if cached is not None:
            self._metrics.count_stored(route.release, cached.body)
            return cached, AnswerOrigin.CACHED
        if feedback_version:
            return None
        precomputed = self._from_precomputed_page(route, subject, options, key)
        if precomputed is None:
            return None
        self._metrics.count_stored(route.release, precomputed.body)
        return precomputed, AnswerOrigin.PRECOMPUTED

    def _from_precomputed_page(
        self,
        route: Route,
        subject: types_pb2.Subject,
        options: pb.RecommendOptions,
        key: RequestKey,
    ) -> CachedAnswer | None:
        release = route.release
        if not self._use_precomputed or not can_use_precomputed_page(
            subject, key.page_size, options
        ):
            return None
        user = release.users.index(subject.user_id)
        page = release.precomputed_pages.get(user) if user >= 0 else b""
        if not page or not self._ranks_like_pages(release):
            return None
        unseen = release.item_count - len(release.data.matrix.seen(user))
        unchanged = key.page_size == DEFAULT_PAGE_SIZE and not options.include_metadata
        answer = CachedAnswer(
            page if unchanged else _shorten(release, page, key.page_size, options.include_metadata),
            messages.serialized_source(route, release.ensemble.blends(sorted(release.backends))),
            tuple(sorted(release.backends)),
            unseen > key.page_size,
        )
        if not unchanged:
            # An unchanged page is not cached, because the release already holds its bytes.
            self._cache.add(route.cache_key, key, answer)
        return answer

    def _ranks_like_pages(self, release: GatewayRelease) -> bool:
        """Returns whether this gateway ranks as the precomputed pages were ranked."""
        own = self._candidates if release.item_count > self._dense_limit else 0
        pages = release.precomputed_pages.candidates
        if pages != own and self._mismatched != release.release_id:
            self._mismatched = release.release_id
            _log.warning(
                "precomputed_pages_not_used",
                release_id=release.release_id,
                why=f"they were ranked with {pages or 'all items as'} candidates, but the settings "
                f"dense_limit and candidates require {own or 'all items as'} candidates",
            )
        return pages == own


def _shorten(release: GatewayRelease, page: bytes, size: int, with_metadata: bool) -> bytes:
    """Returns the first `size` items of a precomputed page, with metadata on request."""
    response = pb.RecommendResponse.FromString(page)
    del response.items[size:]
    if with_metadata:
        messages.add_metadata(release, response.items)
    return response.SerializeToString()


def microseconds_since(start: float) -> int:
    """Returns the microseconds since a time of `time.perf_counter()`."""
    return int((time.perf_counter() - start) * 1e6)
