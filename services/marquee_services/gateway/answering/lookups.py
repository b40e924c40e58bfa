"""Answers SearchItems and GetItem, which need only the catalogue."""

from __future__ import annotations

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import ItemNotFound, PageTokenMismatch
from marquee_services.gateway.answering.messages import item_message
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.caching.request_key import request_digest
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.releases.titles import TitleQuery
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.server.worker_threads import WorkerThreads

# Most of a search runs in NumPy without the interpreter's lock, in parallel with the event loop.
_THREADS = 2
# Searches and pages up to these sizes take less than 0.2 ms, as long as handing them to a thread.
_QUICK_COST, _QUICK_PAGE = 5_000, 50


class Lookups:
    """Looks items up in the catalogue. Requests must have been validated."""

    def __init__(self, releases: Releases, max_searches: int) -> None:
        """Creates the look-ups.

        Args:
            releases: The loaded releases.
            max_searches: The most searches in progress or queued in the threads.
        """
        self._releases = releases
        self._threads = WorkerThreads("title-search", _THREADS, max_searches)

    def close(self) -> None:
        """Stops the search threads."""
        self._threads.close()

    async def search(self, request: pb.SearchItemsRequest) -> pb.SearchItemsResponse:
        """Searches items by the words of their titles.

        An expensive search, which would delay other calls, runs in a thread.

        Raises:
            PageTokenMismatch: The page token is damaged or belongs to another query.
            PageTokenExpired: The page token's release is no longer loaded.
            NoRelease: No release is in service yet.
            QueueFullError: Too many searches are in progress or queued.
        """
        digest = request_digest(request.query.encode())
        token = PageToken.verify(request.page_token, digest)
        if token is None:
            release, start = self._releases.pick(""), 0
        else:
            release, start = self._releases.of_page_token(token.release_id), token.offset
            if start > len(release.catalogue):
                raise PageTokenMismatch("damaged")
        size = request.page_size or DEFAULT_PAGE_SIZE
        query = release.titles.look_up(request.query)

        def work() -> pb.SearchItemsResponse:
            return _page(release, query, digest, start, start + size)

        if query.cost + start <= _QUICK_COST and size <= _QUICK_PAGE:
            return work()
        return await self._threads.run(work)

    def item(self, request: pb.GetItemRequest) -> pb.GetItemResponse:
        """Returns an item's metadata, attributes and rating statistics.

        Raises:
            ItemNotFound: The release has no item with this id.
            NoRelease: No release is in service yet.
        """
        release = self._releases.pick("")
        index = release.catalogue.items.index(request.item_id)
        if index < 0:
            raise ItemNotFound(request.item_id)
        item = item_message(release, index)
        item.attributes.update(release.attributes.of_item(index))
        return pb.GetItemResponse(item=item, release_id=release.release_id)


def _page(
    release: GatewayRelease, query: TitleQuery, digest: str, start: int, end: int
) -> pb.SearchItemsResponse:
    """Returns a page of the items that a query finds."""
    items, count = release.titles.search(query, start, end)
    next_page = PageToken("", release.release_id, (), digest, end).encode()
    return pb.SearchItemsResponse(
        items=[item_message(release, index) for index in items.tolist()],
        next_page_token=next_page if end < count else "",
        release_id=release.release_id,
    )
