"""The best items by a product of vectors, without scoring the whole catalogue at once."""

from __future__ import annotations

import heapq
from typing import Protocol, runtime_checkable

import numpy as np

from marquee_services.arrays import Bool, Float32, Int32
from marquee_services.ratings import Profiles
from marquee_services.scoring.scorer import Scorer
from marquee_services.scoring.top import top_indexes

# Scores of so many bytes at a time: they stay in a core's cache until they have been looked at.
_BLOCK_BYTES = 1 << 20
_LEAST_BLOCK = 4096
# So many of a block are looked for one by one.
_FEW = 6

Found = tuple[Int32, Float32]
"""Item indexes, best first, and their scores."""


@runtime_checkable
class ScoresByProduct(Protocol):
    """A scorer whose scores may be products: score = user vector · item vector."""

    def item_products(self) -> Float32 | None:
        """The item vectors (float32, items × d); None when scores are no products."""

    def user_products(self, profiles: Profiles) -> Float32:
        """The vectors of users who have ratings (float32, B × d)."""


class ItemIndex(Protocol):
    """Finds items whose product with a user's vector is high."""

    def search(self, vectors: Float32, count: int, eligible: Bool | None) -> list[Found]:
        """The best items of each user, best first.

        Args:
            vectors: User vectors (float32, B × d).
            count: How many items for each.
            eligible: Which items qualify (bool, items); None for all.
        """


def item_products(scorer: Scorer) -> Float32 | None:
    """The item vectors of a scorer whose scores are products; None of any other."""
    return scorer.item_products() if isinstance(scorer, ScoresByProduct) else None


class ExactIndex:
    """Looks at all items, block by block."""

    def __init__(self, items: Float32) -> None:
        """Takes the item vectors (float32, items × d); keeps a copy of them, the other way round.

        A product with d × items contiguous is up to twice as fast as with items × d.
        """
        self._across = np.ascontiguousarray(items.T)

    def search(self, vectors: Float32, count: int, eligible: Bool | None) -> list[Found]:
        """As `ItemIndex.search`; exact, among equals the lower index first."""
        users, items = len(vectors), self._across.shape[1]
        size = max(_LEAST_BLOCK, _BLOCK_BYTES // (4 * max(1, users)))
        best = [_Best(count) for _ in range(users)]
        bounds = np.full(users, -np.inf, dtype=np.float32)
        scores = np.empty((users, min(size, items)), dtype=np.float32)
        every = np.arange(users)
        for start in range(0, items, size):
            block = self._across[:, start : start + size]
            part = scores[:, : block.shape[1]]
            np.matmul(vectors, block, out=part)
            mask = None if eligible is None else eligible[start : start + size]
            # Of most blocks nothing reaches a user's bound, and its highest score is all it takes.
            highest = part.argmax(axis=1)
            hits = np.flatnonzero(part[every, highest] > bounds)
            for user, place in zip(hits.tolist(), highest[hits].tolist(), strict=True):
                bounds[user] = best[user].add(part[user], place, start, mask)
        return [found.result() for found in best]


class _Best:
    """The best that were seen so far of one user."""

    def __init__(self, count: int) -> None:
        self._count = count
        # A heap of score and −index, the worst first, which must be beaten when there are enough.
        self._heap: list[tuple[float, int]] = []

    def add(self, row: Float32, place: int, start: int, eligible: Bool | None) -> float:
        """Looks at the scores of the next items.

        Args:
            row: The scores (float32, n); those that were looked at are overwritten.
            place: Of the highest of them.
            start: The index of the first item, above all before.
            eligible: Which of them qualify (bool, n); None for all.

        Returns:
            What must be beaten from now on.
        """
        # Most often one or two are good enough, and to look for the highest takes a fifth of the
        # time that a comparison of all takes.
        heap = self._heap
        for _ in range(_FEW if len(heap) == self._count else 0):
            score = float(row[place])
            if not score > heap[0][0]:
                return heap[0][0]
            if eligible is None or eligible[place]:
                heapq.heapreplace(heap, (score, -(start + place)))
            row[place] = -np.inf
            place = int(row.argmax())
        top = top_indexes(row, self._count, eligible)
        found = zip(row[top].tolist(), (-(start + top)).tolist(), strict=True)
        heap[:] = heapq.nlargest(self._count, [*heap, *found])[::-1]
        return heap[0][0] if len(heap) == self._count else -np.inf

    def result(self) -> Found:
        """Indexes and scores, best first."""
        ordered = sorted(self._heap, reverse=True)
        items = np.array([-item for _, item in ordered], dtype=np.int32)
        return items, np.array([score for score, _ in ordered], dtype=np.float32)
