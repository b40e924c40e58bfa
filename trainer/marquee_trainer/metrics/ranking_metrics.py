"""Ranking metrics: NDCG, recall, MRR, MAP and coverage, over full rankings.

Every item that is not among a user's training ratings is a candidate. All candidates are ranked,
without sampled negatives, because sampled metrics can order models differently (Krichene and
Rendle, 2020). Candidates with equal scores are ranked by item index, lowest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from marquee_core.arrays import Bool, Float32, Float64, Int32, Int64
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.data.interactions import Interactions

# The list lengths k of NDCG and of recall in all comparisons of models.
TOP = 10
RECALL_TOP = 20

_BLOCK_CELLS = 2_000_000
_INDEX_BITS = 32
_SIGN = np.uint32(1 << 31)
_LAST = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True)
class RankingMetrics:
    """Ranking metrics, averaged over the users with a relevant test item; 0 without such users.

    R is the set of a user's relevant items, and ρ the rank of an item, counted from 1.

    Attributes:
        ndcg: NDCG@k, normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002) with
            binary gain and the discount of Burges et al. (2005): Σ_{i ∈ R, ρ_i ≤ k}
            1 / log2(ρ_i + 1), divided by the value of the ideal list, Σ_{ρ ≤ min(k, |R|)}
            1 / log2(ρ + 1).
        recall: Recall@recall_k: the share of R ranked in the top recall_k.
        mrr: Mean reciprocal rank: the mean of 1 / min_{i ∈ R} ρ_i (Voorhees, 1999).
        map: Mean average precision over the whole ranking: the mean of Σ_{i ∈ R} (number of items
            of R ranked at ρ_i or above) / ρ_i, divided by |R| (Manning, Raghavan and Schütze, 2008,
            section 8.4).
        coverage: Catalogue coverage: the share of all items that are in the top k of at least one
            user (Ge, Delgado-Battenfeld and Jannach, 2010).
        users: Number of users averaged over.
        excluded_users: Number of test users excluded because they have no relevant item.
        ndcg_by_user: NDCG@k of each user (float64, users).
        recall_by_user: Recall@recall_k of each user (float64, users).
        reciprocal_rank_by_user: Reciprocal rank of each user (float64, users).
        average_precision_by_user: Average precision of each user (float64, users).
        top_counts: For each item, the number of users who have it in their top k (int64, items).
        top_items: The top k of each user, best first; -1 where a user has fewer candidates
            (int64, users × k).
    """

    ndcg: float
    recall: float
    mrr: float
    map: float
    coverage: float
    users: int
    excluded_users: int
    ndcg_by_user: Float64
    recall_by_user: Float64
    reciprocal_rank_by_user: Float64
    average_precision_by_user: Float64
    top_counts: Int64
    top_items: Int64


@dataclass(frozen=True)
class RankingTask:
    """The users to rank for, their candidates, and their relevant items.

    The relevant items are held as (user, item) pairs.

    Attributes:
        train: The training ratings; the items that a user rated in them are not candidates.
        users: Indexes of the users with a relevant test item, ascending (int32, users).
        relevant_users: For each relevant pair, the position of its user in `users`, ascending
            (int64, pairs).
        relevant_items: For each relevant pair, its item index (int32, pairs).
        excluded_users: Number of test users without a relevant item.
    """

    train: RatingsMatrix
    users: Int32
    relevant_users: Int64
    relevant_items: Int32
    excluded_users: int

    @classmethod
    def of(cls, train: RatingsMatrix, test: Interactions, relevant_stars: float) -> Self:
        """Builds a task from training and test ratings.

        Args:
            train: The training ratings.
            test: The test ratings; must not overlap with the training ratings.
            relevant_stars: An item is relevant to a user whose test rating of it is at least this
                many stars.

        Raises:
            ValueError: A relevant test rating is also among the training ratings.
        """
        is_relevant = test.ratings >= relevant_stars
        order = np.lexsort((test.items[is_relevant], test.users[is_relevant]))
        pair_users = test.users[is_relevant][order]
        pair_items = test.items[is_relevant][order]
        cells = pair_users.astype(np.int64) * train.item_count + pair_items
        known = train.users.astype(np.int64) * train.item_count + train.items
        if bool(np.isin(cells, known).any()):
            raise ValueError("a test rating is among the training ratings")
        users, positions = np.unique(pair_users, return_inverse=True)
        return cls(train, users, positions, pair_items, len(np.unique(test.users)) - len(users))

    def sample(self, max_users: int, seed: int) -> Self:
        """Restricts the task to a random sample of its users.

        Args:
            max_users: Size of the sample; if the task has no more users than this, it is returned
                as it is.
            seed: Seed for the sample.
        """
        if len(self.users) <= max_users:
            return self
        random = np.random.default_rng(seed)
        sampled = np.sort(random.choice(len(self.users), max_users, replace=False))
        in_sample = np.isin(self.relevant_users, sampled)
        return replace(
            self,
            users=self.users[sampled],
            relevant_users=np.searchsorted(sampled, self.relevant_users[in_sample]),
            relevant_items=self.relevant_items[in_sample],
        )

    def blocks(self) -> Iterator[tuple[Int32, Bool, Bool]]:
        """Iterates over blocks of users, small enough that dense arrays fit in memory.

        Yields:
            User indexes (int32, B), their candidates and their relevant items
            (bool, B × items each).
        """
        size = max(1, _BLOCK_CELLS // max(1, self.train.item_count))
        for first in range(0, len(self.users), size):
            positions = np.arange(first, min(first + size, len(self.users)))
            yield self.users[positions], *self.lists(positions)

    def lists(self, positions: Int64) -> tuple[Bool, Bool]:
        """Returns the candidates and the relevant items of some users (bool, B × items each).

        Args:
            positions: Positions of the users in `users`, ascending (int64, B).
        """
        profiles = self.train.profiles(self.users[positions])
        candidates = np.ones((len(positions), self.train.item_count), dtype=np.bool_)
        candidates[profiles.rows, profiles.items] = False
        relevant = np.zeros_like(candidates)
        in_block = np.isin(self.relevant_users, positions)
        rows = np.searchsorted(positions, self.relevant_users[in_block])
        relevant[rows, self.relevant_items[in_block]] = True
        return candidates, relevant


def ranking_metrics(
    task: RankingTask,
    score: Callable[[Int32], Float32 | Float64],
    k: int,
    recall_k: int | None = None,
) -> RankingMetrics:
    """Ranks all candidates of each user, and computes the ranking metrics.

    Args:
        task: The users, candidates and relevant items.
        score: Scores all items for users: user indexes (int32, B) to scores (B × items). Scores
            are compared in single precision, as in the services.
        k: The length of the list for NDCG and coverage.
        recall_k: The length of the list for recall; k if None.

    Raises:
        ValueError: A candidate's score is NaN.
    """
    accumulator = RankingAccumulator(task, k, recall_k)
    for users, candidates, relevant in task.blocks():
        accumulator.add(score(users), candidates, relevant)
    return accumulator.metrics()


def mean_ndcg(task: RankingTask, score: Callable[[Int32], Float32 | Float64], k: int) -> float:
    """The NDCG of `ranking_metrics`, which takes less time because only the best k are sorted.

    Args:
        task: The users, candidates and relevant items.
        score: Scores all items for users, as for `ranking_metrics`.
        k: The length of the list.

    Raises:
        ValueError: A candidate's score is NaN.
    """
    discounts, ideal = _gains(k)
    by_user = [np.zeros(0)]
    for users, candidates, relevant in task.blocks():
        hits = np.take_along_axis(relevant, rank_candidates(score(users), candidates, k), axis=1)
        best = ideal[np.minimum(relevant.sum(axis=1), k)]
        by_user.append(hits @ discounts[: hits.shape[1]] / best)
    values = np.concatenate(by_user)
    return float(values.mean()) if len(values) else 0.0


def _gains(k: int) -> tuple[Float64, Float64]:
    """The discounts of k ranks (k), and the best discounted gain of 0 to k items (k + 1)."""
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    return discounts, np.concatenate([[0.0], np.cumsum(discounts)])


class RankingAccumulator:
    """Accumulates ranking metrics from the scores of successive blocks of a task's users."""

    def __init__(self, task: RankingTask, k: int, recall_k: int | None = None) -> None:
        """Creates an empty accumulator; for the arguments, see `ranking_metrics`."""
        self._task, self._k = task, k
        self._recall_k = k if recall_k is None else recall_k
        self._discounts, self._ideal = _gains(k)
        items, users = task.train.item_count, len(task.users)
        self._top_counts = np.zeros(items, dtype=np.int64)
        self._top_items = np.full((users, min(k, items)), -1, dtype=np.int64)
        # The rows are NDCG, recall, reciprocal rank and average precision; the columns are users.
        self._values = np.zeros((4, users))
        self._users = 0

    def add(self, scores: Float32 | Float64, candidates: Bool, relevant: Bool) -> None:
        """Ranks the candidates of the next B users of the task.

        Args:
            scores: Scores of all items (B × items).
            candidates: The candidates of each user (bool, B × items).
            relevant: The relevant items of each user (bool, B × items).

        Raises:
            ValueError: A candidate's score is NaN.
        """
        k = self._k
        ranked = rank_candidates(scores, candidates)
        hits = np.take_along_axis(relevant, ranked, axis=1)
        count = relevant.sum(axis=1)
        rows, ranks = np.nonzero(hits)
        ranks += 1
        # The number of the user's hits at this rank or above.
        hits_so_far = np.arange(1, len(rows) + 1) - np.searchsorted(rows, rows)
        precision_sum = np.bincount(rows, hits_so_far / ranks, minlength=len(count))
        block = slice(self._users, self._users + len(count))
        self._values[:, block] = (
            hits[:, :k] @ self._discounts[: hits.shape[1]] / self._ideal[np.minimum(count, k)],
            hits[:, : self._recall_k].sum(axis=1) / count,
            1.0 / (hits.argmax(axis=1) + 1),
            precision_sum / count,
        )
        is_candidate = np.take_along_axis(candidates, ranked[:, :k], axis=1)
        top = ranked[:, :k][is_candidate]
        self._top_counts += np.bincount(top, minlength=len(self._top_counts))
        self._top_items[block] = np.where(is_candidate, ranked[:, :k], -1)
        self._users += len(count)

    def metrics(self) -> RankingMetrics:
        """The metrics of the users added so far, which must be all users of the task."""
        ndcg, recall, reciprocal_rank, average_precision = self._values

        def mean(by_user: Float64) -> float:
            return float(by_user.mean()) if len(by_user) else 0.0

        return RankingMetrics(
            ndcg=mean(ndcg),
            recall=mean(recall),
            mrr=mean(reciprocal_rank),
            map=mean(average_precision),
            coverage=float((self._top_counts > 0).mean()),
            users=self._users,
            excluded_users=self._task.excluded_users,
            ndcg_by_user=ndcg,
            recall_by_user=recall,
            reciprocal_rank_by_user=reciprocal_rank,
            average_precision_by_user=average_precision,
            top_counts=self._top_counts,
            top_items=self._top_items,
        )


def rank_candidates(scores: Float32 | Float64, candidates: Bool, k: int | None = None) -> Int64:
    """Sorts items by descending score and ties by ascending index, with non-candidates last.

    Each score and its item index are packed into one 64-bit integer whose order is the desired one,
    so that one integer sort, which NumPy vectorises, ranks whole rows.

    Args:
        scores: Scores, compared in single precision (B × items).
        candidates: True for candidate items (bool, B × items).
        k: How many items to rank, the best ones; None for all.

    Returns:
        Item indexes, best first (int64, B × items, or B × k if there are more than k).

    Raises:
        ValueError: A candidate's score is NaN.
    """
    # Adding 0 turns −0 into 0: they are equal, but their bits differ.
    single = scores.astype(np.float32) + np.float32(0)
    if bool(np.isnan(single[candidates]).any()):
        raise ValueError("a score is not a number")
    bits = single.view(np.uint32)
    # IEEE 754 bits, read as unsigned integers, increase with positive numbers and decrease with
    # negative ones. These keys increase as the score decreases.
    descending = np.where(bits & _SIGN, bits, ~(bits | _SIGN))
    descending[~candidates] = _LAST
    keys = descending.astype(np.uint64) << np.uint64(_INDEX_BITS)
    keys |= np.arange(scores.shape[1], dtype=np.uint64)
    if k is not None and k < keys.shape[1]:
        keys.partition(k - 1, axis=1)
        keys = keys[:, :k]
    keys.sort(axis=1)
    return (keys & np.uint64(_LAST)).astype(np.int64)
