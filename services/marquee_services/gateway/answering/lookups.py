"""Answers what takes the catalogue alone: searches and single items."""

from __future__ import annotations

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import ItemNotFound
from marquee_services.gateway.answering import messages as answers
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.caching.request_key import request_digest
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE


class Lookups:
    """Answers calls; requests are valid in form."""

    def __init__(self, releases: Releases) -> None:
        """Takes the releases that can be answered with."""
        self._releases = releases

    def search(self, request: pb.SearchItemsRequest) -> pb.SearchItemsResponse:
        """Finds items by title.

        Raises:
            ServiceError: See the errors of the method in the protocol.
        """
        digest = request_digest(request.query.encode())
        token = PageToken.of(request.page_token, digest)
        release = self._releases.of_page(token.release_id) if token else self._releases.pick("")
        offset = token.offset if token else 0
        size = request.page_size or DEFAULT_PAGE_SIZE
        found = release.titles.search(request.query, release.rating_counts)
        end = offset + size
        more = PageToken("", release.release_id, (), digest, end).encode()
        return pb.SearchItemsResponse(
            items=[answers.item_message(release, index) for index in found[offset:end].tolist()],
            next_page_token=more if end < len(found) else "",
            release_id=release.release_id,
        )

    def item(self, request: pb.GetItemRequest) -> pb.GetItemResponse:
        """Answers what is known about one item.

        Raises:
            ServiceError: See the errors of the method in the protocol.
        """
        release = self._releases.pick("")
        index = release.catalogue.items.index(request.item_id)
        if index < 0:
            raise ItemNotFound(request.item_id)
        return pb.GetItemResponse(
            item=answers.item_message(release, index), release_id=release.release_id
        )
