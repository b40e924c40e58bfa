"""The best items by a product of vectors, without scoring the whole catalogue at once."""

from __future__ import annotations

import heapq
from typing import Protocol, runtime_checkable

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.ratings import Profiles
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.scorer import Scorer

# Scores of so many bytes at a time: they stay in a core's cache until they have been looked at.
_BLOCK_BYTES = 1 << 20
_LEAST_BLOCK = 4096
# A block has so many times more items than are wanted: every block is a search for each user.
_LEAST_SHARE = 32
# Where no more of a block are expected among the best, they are looked for one by one: to find the
# highest takes a quarter of the time that a comparison of all takes.
_FEW = 3

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
        size = max(_LEAST_BLOCK, _LEAST_SHARE * count, _BLOCK_BYTES // (4 * max(1, users)))
        best = [_Best(count) for _ in range(users)]
        bounds = np.full(users, -np.inf, dtype=np.float32)
        scores = np.empty((users, min(size, items)), dtype=np.float32)
        every = np.arange(users)
        for start in range(0, items, size):
            block = self._across[:, start : start + size]
            part = scores[:, : block.shape[1]]
            np.matmul(vectors, block, out=part)
            mask = None if eligible is None else eligible[start : start + size]
            # After n blocks, the next is to have count / n of the best.
            rare = eligible is None and start * _FEW >= count * size
            # Of most blocks nothing reaches a user's bound, and its highest score is all it takes.
            highest = part.argmax(axis=1)
            hits = np.flatnonzero(part[every, highest] > bounds)
            for user, place in zip(hits.tolist(), highest[hits].tolist(), strict=True):
                row = part[user]
                if rare:
                    bounds[user] = best[user].add_few(row, place, start)
                    continue
                top = _above(row, bounds[user], count, mask)
                bounds[user] = best[user].add((top + start).astype(np.int32), row[top])
        return [found.result() for found in best]


def _above(row: Float32, bound: float, count: int, eligible: Bool | None) -> Int32:
    """Places of at least all of a block's best that are above the bound."""
    if bound == -np.inf:
        return top_indexes(row, count, eligible).astype(np.int32)
    above = np.flatnonzero(row > bound)
    if eligible is not None:
        above = above[eligible[above]]
    if len(above) > count:
        above = above[top_indexes(row[above], count)]
    return above.astype(np.int32)


class _Best:
    """The best that were seen so far of one user; items come in ascending order."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._items: list[Int32] = []
        self._scores: list[Float32] = []
        self._unsifted = 0
        self._bound = -np.inf
        # Score and −index of the best, the worst of them first; once few are added at a time.
        self._heap: list[tuple[float, int]] = []

    def add(self, items: Int32, scores: Float32) -> float:
        """Adds items; what must be beaten from now on."""
        self._items.append(items)
        self._scores.append(scores)
        self._unsifted += len(items)
        # Most blocks bring few: to sift costs more than a bound that is a little too low.
        if self._unsifted >= self._count:
            self._sift()
        return self._bound

    def add_few(self, row: Float32, highest: int, start: int) -> float:
        """Adds the best of a block one by one, after which `add` is not called any more.

        Args:
            row: The scores of a block (float32, n); what is added is overwritten.
            highest: The place of the highest of them.
            start: The first item of the block, after at least `count` items.

        Returns:
            What must be beaten from now on.
        """
        heap = self._heap
        if not heap:
            items, scores = self._ordered()
            heap += zip(scores[::-1].tolist(), (-items[::-1]).tolist(), strict=True)
        score = float(row[highest])
        while score > heap[0][0]:
            heapq.heapreplace(heap, (score, -(start + highest)))
            row[highest] = -np.inf
            highest = int(row.argmax())
            score = float(row[highest])
        return heap[0][0]

    def result(self) -> Found:
        """Indexes and scores, best first."""
        if not self._heap:
            return self._ordered()
        best = sorted(self._heap, reverse=True)
        items = np.array([-item for _, item in best], dtype=np.int32)
        return items, np.array([score for score, _ in best], dtype=np.float32)

    def _sift(self) -> None:
        items, scores = np.concatenate(self._items), np.concatenate(self._scores)
        # Ordering all would cost more than to find the least of the best.
        least = len(scores) - self._count
        self._bound = float(np.partition(scores, least)[least])
        kept = scores >= self._bound
        self._items, self._scores, self._unsifted = [items[kept]], [scores[kept]], 0

    def _ordered(self) -> Found:
        items = np.concatenate([np.empty(0, np.int32), *self._items])
        scores = np.concatenate([np.empty(0, np.float32), *self._scores])
        order = np.lexsort((items, -scores))[: self._count]
        return items[order], scores[order]
