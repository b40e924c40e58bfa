"""Answers SearchItems and GetItem, which need only the catalogue."""

from __future__ import annotations

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import ItemNotFound
from marquee_services.gateway.answering.messages import item_message
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.caching.request_key import request_digest
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE


class Lookups:
    """Looks items up in the catalogue. Requests must have been validated."""

    def __init__(self, releases: Releases) -> None:
        """Looks items up in the given releases."""
        self._releases = releases

    def search(self, request: pb.SearchItemsRequest) -> pb.SearchItemsResponse:
        """Finds items by the words of their titles.

        Raises:
            PageTokenMismatch: The page token is damaged or belongs to another query.
            PageTokenExpired: The page token's release is no longer loaded.
            NoRelease: No release is in service yet.
        """
        digest = request_digest(request.query.encode())
        token = PageToken.verify(request.page_token, digest)
        if token is None:
            release, offset = self._releases.pick(""), 0
        else:
            release, offset = self._releases.of_page_token(token.release_id), token.offset
        found = release.titles.search(request.query, release.rating_counts)
        end = offset + (request.page_size or DEFAULT_PAGE_SIZE)
        next_page = PageToken("", release.release_id, (), digest, end).encode()
        return pb.SearchItemsResponse(
            items=[item_message(release, index) for index in found[offset:end].tolist()],
            next_page_token=next_page if end < len(found) else "",
            release_id=release.release_id,
        )

    def item(self, request: pb.GetItemRequest) -> pb.GetItemResponse:
        """Answers an item's metadata, attributes and rating statistics.

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
