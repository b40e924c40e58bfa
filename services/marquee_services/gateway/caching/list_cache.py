"""Caches the scores of lists whose further pages a caller may request."""

from __future__ import annotations

from cachetools import LRUCache

from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates


class ListCache:
    """Caches scored lists up to a number of bytes, and evicts the least recently used one.

    Further pages of a cached list are cut from the scores of its first page. If the list has been
    evicted, the same release and the same backends compute the scores again.
    """

    def __init__(self, max_bytes: int) -> None:
        """Creates an empty cache of at most `max_bytes` bytes."""
        self._lists: LRUCache[str, RankedCandidates] = LRUCache(
            max_bytes, getsizeof=lambda ranked: ranked.nbytes
        )

    def __len__(self) -> int:
        return len(self._lists)

    def put(self, list_id: str, ranked: RankedCandidates) -> None:
        """Caches a list in place of its former scores, unless it is larger than the cache."""
        if self._lists.get(list_id) is not ranked and ranked.nbytes <= self._lists.maxsize:
            self._lists[list_id] = ranked.detached()

    def get(self, list_id: str) -> RankedCandidates | None:
        """The scores of a list; None if it is not cached."""
        return self._lists.get(list_id)
