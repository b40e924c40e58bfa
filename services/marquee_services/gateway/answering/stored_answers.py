"""Answers that need no scoring: kept from earlier, or ranked when the release was made."""

from __future__ import annotations

import time
from collections.abc import Iterator

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.errors import NoRelease, ReleaseNotFound
from marquee_services.gateway.answering import messages as answers
from marquee_services.gateway.caching.answer_cache import AnswerCache, CachedAnswer
from marquee_services.gateway.caching.page_token import PageToken, new_list_id
from marquee_services.gateway.caching.request_key import RequestKey, options_key
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.releases.precomputed import asks_for_first_page
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE


class StoredAnswers:
    """Gives known users the answer that scoring would give them, as bytes.

    While a backend is away there is none: the answer is then what the rest of the ensemble says.
    There is none either to a request whose form is not valid.
    """

    def __init__(
        self,
        releases: Releases,
        router: Router,
        cache: AnswerCache,
        first_pages: bool,
        dense_limit: int,
    ) -> None:
        """Takes its collaborators.

        Args:
            releases: The releases that can be answered with.
            router: Knows which backends are there.
            cache: Keeps known users' answers.
            first_pages: Whether to answer with the pages that releases hold.
            dense_limit: The largest catalogue that is scored whole; pages are ranked so.
        """
        self._releases = releases
        self._router = router
        self._cache = cache
        self._first_pages = first_pages
        self._dense_limit = dense_limit
        self._source_of: tuple[GatewayRelease | None, bytes] = None, b""

    def single(self, request: pb.RecommendRequest, start: float) -> tuple[bytes, str] | None:
        """The answer to a request, and how it came: `kept` or `release`.

        Args:
            request: The request.
            start: When it came, `time.perf_counter()`.

        Returns:
            A RecommendResponse's bytes; None when there is no ready answer.
        """
        if request.page_token:
            return None
        key, options = RequestKey.of(request), request.options
        release = self._whole_release(options)
        if release is None:
            return None
        found = self._find(release, request.subject, options, key)
        if found is None:
            return None
        answer, origin = found
        list_id, token = new_list_id(), ""
        if answer.has_more:
            token = PageToken(
                list_id, release.release_id, answer.backends, key.digest, key.page_size
            ).encode()
        return answer.response(list_id, token, _us_since(start)), origin

    def batch(self, request: pb.BatchRecommendRequest, start: float) -> Iterator[bytes | None]:
        """For each subject of a batch, as it is its turn, what `single` gives without a token."""
        options = request.options
        asked = options_key(options)
        for subject in request.subjects:
            # Looked at anew: between two subjects a reader may take its time.
            release, found = self._whole_release(options), None
            if release is not None:
                key = RequestKey.of_subject(subject, request.page_size, asked)
                found = self._find(release, subject, options, key)
            yield None if found is None else found[0].response(new_list_id(), "", _us_since(start))

    def _whole_release(self, options: pb.RecommendOptions) -> GatewayRelease | None:
        """The release that is to answer; None where it cannot answer in full."""
        try:
            release = self._releases.pick(options.release_id)
        except (NoRelease, ReleaseNotFound):
            return None
        return release if self._router.is_whole(release) else None

    def _find(
        self,
        release: GatewayRelease,
        subject: types_pb2.Subject,
        options: pb.RecommendOptions,
        key: RequestKey,
    ) -> tuple[CachedAnswer, str] | None:
        kept = self._cache.get(release.release_id, key)
        if kept is not None:
            return kept, "kept"
        made = self._of_first_page(release, subject, options, key)
        return None if made is None else (made, "release")

    def _of_first_page(
        self,
        release: GatewayRelease,
        subject: types_pb2.Subject,
        options: pb.RecommendOptions,
        key: RequestKey,
    ) -> CachedAnswer | None:
        if (
            not self._first_pages
            or release.item_count > self._dense_limit
            or not asks_for_first_page(subject, key.page_size, options)
        ):
            return None
        user = release.users.index(subject.user_id)
        page = release.first_pages.get(user) if user >= 0 else b""
        if not page:
            return None
        unseen = release.item_count - len(release.data.matrix.seen(user))
        as_it_is = key.page_size == DEFAULT_PAGE_SIZE and not options.include_metadata
        answer = CachedAnswer(
            page if as_it_is else _cut(release, page, key.page_size, options.include_metadata),
            self._source(release),
            tuple(sorted(release.backends)),
            unseen > key.page_size,
        )
        if not as_it_is:
            # What only has to be copied out of the release needs no memory of its own.
            self._cache.add(release.release_id, key, answer)
        return answer

    def _source(self, release: GatewayRelease) -> bytes:
        """What the whole ensemble's answers say of their source."""
        if self._source_of[0] is not release:
            blends = release.ensemble.blends(sorted(release.backends))
            message = answers.source_message(release, blends, ())
            self._source_of = release, message.SerializeToString()
        return self._source_of[1]


def _cut(release: GatewayRelease, page: bytes, size: int, with_metadata: bool) -> bytes:
    """A first page's beginning, with metadata on request."""
    response = pb.RecommendResponse.FromString(page)
    del response.items[size:]
    if with_metadata:
        answers.add_metadata(release, response.items)
    return response.SerializeToString()


def _us_since(start: float) -> int:
    return int((time.perf_counter() - start) * 1e6)
