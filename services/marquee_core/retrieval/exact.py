"""Finds the items with the highest dot products, block by block, without storing all scores."""

from __future__ import annotations

import heapq
from typing import Protocol, runtime_checkable

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.ratings import Profiles
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.scorer import Scorer

# Size of the scores of a block, which should fit in a core's cache.
_BLOCK_BYTES = 1 << 20
_MIN_BLOCK_ITEMS = 4096
# A block has at least this many times `count` items, because of the fixed cost per block and user.
_MIN_BLOCK_RATIO = 32
# If a block is expected to contain at most this many of the best items, they are extracted one by
# one: an argmax takes a quarter of the time of comparing all scores with the bound.
_FEW = 3

Found = tuple[Int32, Float32]
"""Item indexes, the best first (int32, n), and their scores (float32, n)."""


@runtime_checkable
class ScoresByProduct(Protocol):
    """A scorer whose scores may be dot products of user vectors and item vectors."""

    def item_products(self) -> Float32 | None:
        """Returns the item vectors (float32, items × d); None if scores are not dot products."""

    def user_products(self, profiles: Profiles) -> Float32:
        """Returns the vectors of users (float32, B × d); each user must have ratings."""


class ItemIndex(Protocol):
    """Finds the items whose vectors have the highest dot products with a user's vector."""

    def search(self, vectors: Float32, count: int, eligible: Bool | None) -> list[Found]:
        """Finds the best items of each user.

        Args:
            vectors: User vectors (float32, B × d).
            count: Number of items for each user.
            eligible: True for items that may be returned (bool, items); None for all.

        Returns:
            The best items of each user.
        """

    def candidates(self, vectors: Float32, count: int, eligible: Bool | None) -> list[Int32]:
        """Finds the best items of each user like `search`, but without order and scores.

        This is faster, and an index may determine the items by approximate scores.

        Args:
            vectors: User vectors (float32, B × d).
            count: Number of items for each user.
            eligible: True for items that may be returned (bool, items); None for all.

        Returns:
            The items of each user (int32, at most `count`).
        """


def item_products(scorer: Scorer) -> Float32 | None:
    """Returns a scorer's item vectors; None if its scores are not dot products."""
    return scorer.item_products() if isinstance(scorer, ScoresByProduct) else None


class ExactIndex:
    """Scores all items, block by block."""

    def __init__(self, items: Float32) -> None:
        """Takes the item vectors (float32, items × d), and stores a transposed copy of them.

        Products with a contiguous d × items matrix are up to twice as fast.
        """
        self._transposed = np.ascontiguousarray(items.T)

    def search(self, vectors: Float32, count: int, eligible: Bool | None) -> list[Found]:
        """Implements `ItemIndex.search` exactly; ties are broken in favour of lower indexes."""
        users, items = len(vectors), self._transposed.shape[1]
        size = max(_MIN_BLOCK_ITEMS, _MIN_BLOCK_RATIO * count, _BLOCK_BYTES // (4 * max(1, users)))
        best = [_Best(count) for _ in range(users)]
        bounds = np.full(users, -np.inf, dtype=np.float32)
        scores = np.empty((users, min(size, items)), dtype=np.float32)
        all_users = np.arange(users)
        for start in range(0, items, size):
            block = self._transposed[:, start : start + size]
            part = scores[:, : block.shape[1]]
            np.matmul(vectors, block, out=part)
            mask = None if eligible is None else eligible[start : start + size]
            # After n blocks, about count / n of the best are expected in the next block.
            few_expected = eligible is None and start * _FEW >= count * size
            # In most blocks no score exceeds a user's bound, so only the highest is compared.
            highest = part.argmax(axis=1)
            hits = np.flatnonzero(part[all_users, highest] > bounds)
            for user, position in zip(hits.tolist(), highest[hits].tolist(), strict=True):
                row = part[user]
                if few_expected:
                    bounds[user] = best[user].add_few(row, position, start)
                    continue
                top = _above(row, bounds[user], count, mask)
                bounds[user] = best[user].add((top + start).astype(np.int32), row[top])
        return [found.result() for found in best]

    def candidates(self, vectors: Float32, count: int, eligible: Bool | None) -> list[Int32]:
        """Implements `ItemIndex.candidates` exactly."""
        return [items for items, _ in self.search(vectors, count, eligible)]


def _above(row: Float32, bound: float, count: int, eligible: Bool | None) -> Int32:
    """Positions of the best scores of a block that exceed the bound, at most `count` of them."""
    if bound == -np.inf:
        return top_indexes(row, count, eligible).astype(np.int32)
    above = np.flatnonzero(row > bound)
    if eligible is not None:
        above = above[eligible[above]]
    if len(above) > count:
        above = above[top_indexes(row[above], count)]
    return above.astype(np.int32)


class _Best:
    """Collects the best items of one user; blocks must be added in ascending order of items."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._items: list[Int32] = []
        self._scores: list[Float32] = []
        self._added = 0  # items added since the last pruning
        self._bound = -np.inf
        # A min-heap of (score, −index) of the best items; used after the first call of `add_few`.
        self._heap: list[tuple[float, int]] = []

    def add(self, items: Int32, scores: Float32) -> float:
        """Adds items; returns the score that later items must exceed."""
        self._items.append(items)
        self._scores.append(scores)
        self._added += len(items)
        # Most blocks add few items. Pruning each time would cost more than a bound that is
        # slightly too low.
        if self._added >= self._count:
            self._prune()
        return self._bound

    def add_few(self, row: Float32, highest: int, start: int) -> float:
        """Adds the best items of a block one by one; `add` must not be called afterwards.

        Args:
            row: The scores of a block (float32, n); the scores of added items are overwritten.
            highest: The position of the highest score.
            start: The first item of the block; at least `count` items come before it.

        Returns:
            The score that later items must exceed.
        """
        heap = self._heap
        if not heap:
            items, scores = self._sorted()
            heap += zip(scores[::-1].tolist(), (-items[::-1]).tolist(), strict=True)
        score = float(row[highest])
        while score > heap[0][0]:
            heapq.heapreplace(heap, (score, -(start + highest)))
            row[highest] = -np.inf
            highest = int(row.argmax())
            score = float(row[highest])
        return heap[0][0]

    def result(self) -> Found:
        """Returns the best items and their scores, best first."""
        if not self._heap:
            return self._sorted()
        best = sorted(self._heap, reverse=True)
        items = np.array([-item for _, item in best], dtype=np.int32)
        return items, np.array([score for score, _ in best], dtype=np.float32)

    def _prune(self) -> None:
        items, scores = np.concatenate(self._items), np.concatenate(self._scores)
        # A partition finds the count-th best score faster than a sort.
        position = len(scores) - self._count
        self._bound = float(np.partition(scores, position)[position])
        is_best = scores >= self._bound
        self._items, self._scores, self._added = [items[is_best]], [scores[is_best]], 0

    def _sorted(self) -> Found:
        items = np.concatenate([np.empty(0, np.int32), *self._items])
        scores = np.concatenate([np.empty(0, np.float32), *self._scores])
        order = np.lexsort((items, -scores))[: self._count]
        return items[order], scores[order]
