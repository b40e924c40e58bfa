"""Collects the candidate lists from which the ranking blend is learned, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from marquee_core.arrays import Bool, Float32, Float64, Int64
from marquee_core.scorers.scorer import Scorer
from marquee_trainer.ensemble.blends import BlendConfig, RankingLists
from marquee_trainer.metrics.ranking_metrics import RankingTask

# Scores of a block of users: 8 MB of memory for each model.
_BLOCK_CELLS = 2_000_000


def collect_lists(
    task: RankingTask, scorers: Mapping[str, Scorer], config: BlendConfig, seed: int
) -> RankingLists:
    """Scores the candidates of a task's users with every model.

    The lists hold all items of a catalogue of at most `config.max_list_items`. For a larger one,
    each list holds that many: the relevant items, the best items of each model, and a random sample
    of the others. Memory is bounded by the lists and the scores of a block of users.

    Args:
        task: The users, their candidates and their relevant items.
        scorers: The scorer of each model.
        config: The length of the lists, and the number of best items of each model.
        seed: Seed of the sample.
    """
    users, items = len(task.users), task.train.item_count
    width = min(items, config.max_list_items)
    scores = {name: np.empty((users, width), dtype=np.float32) for name in scorers}
    candidates = np.zeros((users, width), dtype=np.bool_)
    relevant = np.zeros_like(candidates)
    weights = np.zeros((users, width), dtype=np.float32) if width < items else None
    spreads = {name: _Spread() for name in scorers}
    random = np.random.default_rng(seed)
    size = max(1, _BLOCK_CELLS // max(1, items))
    for first in range(0, users, size):
        positions = np.arange(first, min(first + size, users))
        profiles = task.train.profiles(task.users[positions])
        block = {name: scorer.score(profiles) for name, scorer in scorers.items()}
        may, should = task.lists(positions)
        if weights is None:
            candidates[positions], relevant[positions] = may, should
            for name, scored in block.items():
                scores[name][positions] = scored
            continue
        top = _best_of_each(block, may, config.search.depth)
        chosen, weights[positions] = _sample(may, should, top, width, random)
        candidates[positions] = weights[positions] > 0
        relevant[positions] = np.take_along_axis(should, chosen, axis=1) & candidates[positions]
        for name, scored in block.items():
            scores[name][positions] = np.take_along_axis(scored, chosen, axis=1)
            spreads[name].add(scored[may])
    scales = {name: spread.deviation for name, spread in spreads.items()}
    return RankingLists(scores, candidates, relevant, weights, None if weights is None else scales)


def _best_of_each(scores: Mapping[str, Float32], candidates: Bool, depth: int) -> Bool:
    """True for candidates that a model ranks among its `depth` best (bool, B × items)."""
    best = np.zeros_like(candidates)
    depth = min(depth, candidates.shape[1])
    for scored in scores.values():
        negated = np.where(candidates, -scored, np.inf)
        top = np.argpartition(negated, depth - 1, axis=1)[:, :depth]
        np.put_along_axis(best, top, True, axis=1)
    return best & candidates


def _sample(
    candidates: Bool, relevant: Bool, top: Bool, width: int, random: np.random.Generator
) -> tuple[Int64, Float32]:
    """Chooses the items of each list.

    Args:
        candidates: The candidates (bool, B × items).
        relevant: The relevant ones, which are chosen first (bool, B × items).
        top: The ones chosen next (bool, B × items); the rest of a list is drawn at random.
        width: The length of a list, below the number of items.
        random: Draws the sample.

    Returns:
        The items of each list, ascending (int64, B × width), and the number of candidates that each
        represents, 0 for items that are not candidates (float32, B × width).
    """
    keys = random.random(candidates.shape, dtype=np.float32)
    keys[~candidates] = 2.0
    keys[top] = -1.0
    keys[relevant] = -2.0
    chosen = np.argpartition(keys, width - 1, axis=1)[:, :width]
    chosen.sort(axis=1)
    keys = np.take_along_axis(keys, chosen, axis=1)
    is_drawn = (keys >= 0) & (keys < 2)
    left = (candidates & ~top & ~relevant).sum(axis=1)
    share = left / np.maximum(is_drawn.sum(axis=1), 1)
    weights = np.where(is_drawn, share[:, None], keys < 2)
    return chosen, weights.astype(np.float32)


class _Spread:
    """Computes the standard deviation of values incrementally."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, values: Float32 | Float64) -> None:
        """Adds values; see Chan, Golub and LeVeque (1983), equations 2.1."""
        count = len(values)
        if not count:
            return
        mean = float(values.mean(dtype=np.float64))
        squares = float(values.var(dtype=np.float64)) * count
        total = self._count + count
        change = mean - self._mean
        self._squares += squares + change**2 * self._count * count / total
        self._mean += change * count / total
        self._count = total

    @property
    def deviation(self) -> float:
        """The standard deviation of all values; 0 if there are none."""
        return float((self._squares / self._count) ** 0.5) if self._count else 0.0
