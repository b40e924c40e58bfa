"""Caches the scores of lists of which a caller may request further pages."""

from __future__ import annotations

from marquee_services.gateway.caching.counting_lru import CountingLRU
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates


class ListCache:
    """Caches scored lists up to a number of bytes, evicting the least recently used.

    Further pages of a cached list are cut from the scores of its first page. If the list has been
    evicted, the same release and the same backends compute the scores again.

    Attributes:
        entries: The entries, for metrics.
    """

    def __init__(self, max_bytes: int) -> None:
        """Creates an empty cache of at most `max_bytes` bytes."""
        self.entries: CountingLRU[str, RankedCandidates] = CountingLRU(
            max_bytes, getsizeof=lambda ranked: ranked.nbytes
        )

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, list_id: str, ranked: RankedCandidates) -> None:
        """Caches or replaces the scores of a list, unless they are larger than the whole cache."""
        if ranked.nbytes <= self.entries.maxsize and self.entries.get(list_id) is not ranked:
            self.entries[list_id] = ranked.detached()

    def get(self, list_id: str) -> RankedCandidates | None:
        """Returns the scores of a list; None if it is not cached."""
        return self.entries.get(list_id)
