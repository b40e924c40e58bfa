"""The best items by a product of vectors, without scoring the whole catalogue at once."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from marquee_services.arrays import Bool, Float32, Int32
from marquee_services.ratings import Profiles
from marquee_services.scoring.scorer import Scorer
from marquee_services.scoring.top import top_indexes

# Scores of so many bytes at a time: they stay in a core's cache until they have been looked at.
_BLOCK_BYTES = 1 << 21
_LEAST_BLOCK = 4096

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
        for start in range(0, items, size):
            block = self._across[:, start : start + size]
            part = scores[:, : block.shape[1]]
            np.matmul(vectors, block, out=part)
            mask = None if eligible is None else eligible[start : start + size]
            # Of most blocks nothing reaches a user's bound, and one comparison is all it takes.
            for user in np.flatnonzero(part.max(axis=1) > bounds).tolist():
                row = part[user]
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
    """The best that were seen so far of one user."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._items: list[Int32] = []
        self._scores: list[Float32] = []
        self._unsifted = 0
        self._bound = -np.inf

    def add(self, items: Int32, scores: Float32) -> float:
        """Adds items with higher indexes than those before; what must be beaten from now on."""
        self._items.append(items)
        self._scores.append(scores)
        self._unsifted += len(items)
        # Most blocks bring one or two: to sift costs more than a bound that is a little too low.
        if self._unsifted >= self._count:
            self._sift()
        return self._bound

    def _sift(self) -> None:
        items, scores = np.concatenate(self._items), np.concatenate(self._scores)
        # Ordering all would cost more than to find the least of the best.
        least = len(scores) - self._count
        self._bound = float(np.partition(scores, least)[least])
        kept = scores >= self._bound
        self._items, self._scores, self._unsifted = [items[kept]], [scores[kept]], 0

    def result(self) -> Found:
        items = np.concatenate([np.empty(0, np.int32), *self._items])
        scores = np.concatenate([np.empty(0, np.float32), *self._scores])
        order = np.lexsort((items, -scores))[: self._count]
        return items[order], scores[order]
