"""Caches scored lists whose further pages a caller may request."""

from __future__ import annotations

from dataclasses import replace

from cachetools import LRUCache

from marquee_services.gateway.ranking.scored import Scored


class ListCache:
    """Keeps scored lists, within a bound of bytes; the longest unused goes first.

    A page of a list that is kept is cut from the same scores as the page before. Of one that is
    not, the scores are computed anew by the same release and blend.
    """

    def __init__(self, max_bytes: int) -> None:
        """Takes the bound."""
        self._lists: LRUCache[str, Scored] = LRUCache(
            max_bytes, getsizeof=lambda scored: scored.nbytes
        )

    def __len__(self) -> int:
        return len(self._lists)

    def put(self, list_id: str, scored: Scored) -> None:
        """Keeps a list, in the place of what was kept of it; one beyond the bound is not kept."""
        if self._lists.get(list_id) is scored or scored.nbytes > self._lists.maxsize:
            return
        # Scores are views of a whole batch's answer, which would stay in memory with them.
        outputs = {name: scores.copy() for name, scores in scored.outputs.items()}
        self._lists[list_id] = replace(scored, outputs=outputs)

    def get(self, list_id: str) -> Scored | None:
        """A list, if it is kept."""
        return self._lists.get(list_id)
