"""Answers that need no scoring: kept from earlier, or ranked when the release was made."""

from __future__ import annotations

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_services.errors import NoRelease, ReleaseNotFound
from marquee_services.gateway import answers
from marquee_services.gateway.answer_cache import AnswerCache, CachedAnswer, request_key
from marquee_services.gateway.first_pages import asks_for_first_page
from marquee_services.gateway.lists import PageToken, new_list_id
from marquee_services.gateway.page_bytes import items_bytes, metadata_bytes
from marquee_services.gateway.release import GatewayRelease
from marquee_services.gateway.releases import Releases
from marquee_services.gateway.router import Router
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE

_KNOWN = pb.RecommendResponse(subject_kind=types_pb2.SUBJECT_KIND_KNOWN).SerializeToString()


class ReadyAnswers:
    """Gives known users the answer that scoring would give them.

    While a backend is away there is none: the answer is then what the rest of the ensemble says.
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

    def single(self, request: pb.RecommendRequest) -> tuple[pb.RecommendResponse, str] | None:
        """The answer to a request, and how it came: `kept` or `release`.

        None is, of a request whose form is not valid.
        """
        found = self._find(request)
        if found is None:
            return None
        release_id, answer, origin = found
        response = pb.RecommendResponse()
        answer.fill(response, new_list_id())
        if answer.has_more:
            response.next_page_token = PageToken(
                response.recommendation_id,
                release_id,
                tuple(sorted(answer.backends)),
                answer.digest,
                answer.item_count,
            ).encode()
        return response, origin

    def fill(
        self, request: pb.RecommendRequest, answer: pb.BatchRecommendResponse.Recommendations
    ) -> bool:
        """As `single`, for a subject of a batch; whether there is one."""
        found = self._find(request)
        if found is None:
            return False
        found[1].fill(answer, new_list_id())
        return True

    def _find(self, request: pb.RecommendRequest) -> tuple[str, CachedAnswer, str] | None:
        if request.page_token:
            return None
        try:
            release = self._releases.pick(request.options.release_id)
        except (NoRelease, ReleaseNotFound):
            return None
        if not self._router.is_whole(release):
            return None
        key = request_key(request)
        kept = self._cache.get(release.release_id, key)
        if kept is not None:
            return release.release_id, kept, "kept"
        made = self._of_first_page(release, request, key)
        return None if made is None else (release.release_id, made, "release")

    def _of_first_page(
        self, release: GatewayRelease, request: pb.RecommendRequest, key: bytes
    ) -> CachedAnswer | None:
        if (
            not self._first_pages
            or release.item_count > self._dense_limit
            or not asks_for_first_page(request)
        ):
            return None
        user = release.users.index(request.subject.user_id)
        size = request.page_size or DEFAULT_PAGE_SIZE
        page = release.first_pages.get(user, size) if user >= 0 else None
        if page is None:
            return None
        indexes = page.items.tolist()
        about = [release.id_bytes[index] for index in indexes]
        if request.options.include_metadata:
            about = [
                itself + metadata_bytes(answers.item_message(release, index))
                for itself, index in zip(about, indexes, strict=True)
            ]
        unseen = release.item_count - len(release.data.matrix.seen(user))
        answer = CachedAnswer(
            key,
            _KNOWN + items_bytes(page, about),
            self._source(release),
            (),
            len(indexes),
            release.backends,
            unseen > size,
        )
        self._cache.add(release.release_id, answer)
        return answer

    def _source(self, release: GatewayRelease) -> bytes:
        """What the whole ensemble's answers say of their source."""
        if self._source_of[0] is not release:
            blends = release.ensemble.blends(sorted(release.backends))
            message = answers.source_message(release, blends, ())
            self._source_of = release, message.SerializeToString()
        return self._source_of[1]
