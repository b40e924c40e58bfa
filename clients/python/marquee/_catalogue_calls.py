"""The methods of the blocking client that look up items, without a subject."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from marquee._answers import FoundItems
from marquee._blocking_calls import BlockingCalls
from marquee._lazy import LazyModule
from marquee._options import PAGE_SIZE, Metadata
from marquee._types import Item

if TYPE_CHECKING:
    from marquee import _convert, _requests
else:
    _convert = LazyModule("marquee._convert")
    _requests = LazyModule("marquee._requests")


class CatalogueCalls(BlockingCalls):
    """A blocking client that searches the catalogue."""

    def search_items(
        self,
        query: str,
        *,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> FoundItems:
        """Finds items whose titles contain the words of a query, best match first.

        Args:
            query: Words in any order; the last one may be incomplete. Case and accents are ignored.
            page_size: The maximum number of items; at most 1,000.
            page_token: The `next_page_token` of the previous page; empty for the first page. The
                query must be the same as for the first page.
            timeout: The deadline of this call in seconds; None for the client's default.
            metadata: Additional request metadata of this call; see `recommend`.
        """
        request = _requests.search_items(query, page_size, page_token)
        answer = self._read(self._stub().SearchItems, request, timeout, metadata)
        return _convert.found_items(answer)

    def search_pages(
        self,
        query: str,
        *,
        page_size: int = PAGE_SIZE,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[FoundItems]:
        """Iterates over the pages of search results, one call per page.

        The arguments are those of `search_items`, and `timeout` applies to each page.
        """
        token = ""
        while True:
            page = self.search_items(
                query, page_size=page_size, page_token=token, timeout=timeout, metadata=metadata
            )
            yield page
            if not (token := page.next_page_token):
                return

    def get_item(
        self, item_id: str, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Item:
        """Returns the metadata, attributes and rating statistics of an item.

        Raises:
            NotFound: The release has no such item.
        """
        request = _requests.get_item(item_id)
        return _convert.item(self._read(self._stub().GetItem, request, timeout, metadata).item)
