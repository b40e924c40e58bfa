"""How well full rankings find what users liked (no sampled negatives: Krichene and Rendle, 2020).

Every item that is not among a user's training ratings is a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from marquee_services.arrays import Bool, Float32, Float64, Int32, Int64
from marquee_services.ratings import RatingsMatrix
from marquee_trainer.models.model import Pairs

_BLOCK_CELLS = 2_000_000


@dataclass(frozen=True)
class RankingMetrics:
    """Means over the users with a relevant test item.

    Attributes:
        ndcg: NDCG@k: Σ rel / log2(rank + 1) over the top k, by the same sum of an ideal list.
        recall: Recall@k: the share of the relevant items in the top k.
        coverage: The share of all items that are in anybody's top k.
        users: How many users there are.
        ndcg_by_user: NDCG@k of each (float64, users).
    """

    ndcg: float
    recall: float
    coverage: float
    users: int
    ndcg_by_user: Float64


@dataclass(frozen=True)
class RankingTask:
    """Users, what they may be shown, and what they liked.

    Attributes:
        train: The training ratings.
        users: The users with a relevant test item (int32, ascending).
        relevant_users: The place among `users` of each relevant pair (int64).
        relevant_items: Its item (int32).
    """

    train: RatingsMatrix
    users: Int32
    relevant_users: Int64
    relevant_items: Int32

    @classmethod
    def of(cls, train: RatingsMatrix, test: Pairs, relevant_stars: float) -> RankingTask:
        """Makes a task: an item is relevant to a user who rated it at least so in the test."""
        liked = test.ratings >= relevant_stars
        users = np.unique(test.users[liked])
        return cls(train, users, np.searchsorted(users, test.users[liked]), test.items[liked])

    def blocks(self) -> Iterator[tuple[Int32, Bool, Bool]]:
        """Blocks of users, their candidates and their relevant items (bool, B × items)."""
        size = max(1, _BLOCK_CELLS // max(1, self.train.item_count))
        for first in range(0, len(self.users), size):
            users = self.users[first : first + size]
            profiles = self.train.profiles(users)
            candidates = np.ones((len(users), self.train.item_count), dtype=np.bool_)
            candidates[profiles.rows, profiles.items] = False
            relevant = np.zeros_like(candidates)
            here = (self.relevant_users >= first) & (self.relevant_users < first + len(users))
            relevant[self.relevant_users[here] - first, self.relevant_items[here]] = True
            yield users, candidates, relevant & candidates


def ranking_metrics(
    task: RankingTask, score: Callable[[Int32], Float32 | Float64], k: int
) -> RankingMetrics:
    """Ranks all candidates of each user; of equal scores the lower item index comes first.

    Args:
        task: The task.
        score: Scores all items for some users (B × items).
        k: The length of the list.
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    shown = np.zeros(task.train.item_count, dtype=np.bool_)
    ndcg, recall = [np.empty(0)], [np.empty(0)]
    for users, candidates, relevant in task.blocks():
        scores = np.where(candidates, score(users), -np.inf)
        top = _top(scores, k)
        usable = np.take_along_axis(candidates, top, axis=1)
        hits = np.take_along_axis(relevant, top, axis=1) & usable
        shown[top[usable]] = True
        count = relevant.sum(axis=1)
        ndcg.append(hits @ discounts[: top.shape[1]] / ideal[np.minimum(count, k)])
        recall.append(hits.sum(axis=1) / count)
    by_user = np.concatenate(ndcg)
    if not len(by_user):
        return RankingMetrics(0.0, 0.0, 0.0, 0, by_user)
    return RankingMetrics(
        float(by_user.mean()),
        float(np.concatenate(recall).mean()),
        float(shown.mean()),
        len(by_user),
        by_user,
    )


def _top(scores: Float64, k: int) -> Int64:
    """The places of the k highest of each row, best first, ties by place (int64, B × k)."""
    k = min(k, scores.shape[1])
    bound = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    rows = np.empty((len(scores), k), dtype=np.int64)
    for row, (values, least) in enumerate(zip(scores, bound[:, 0], strict=True)):
        near = np.flatnonzero(values >= least)
        rows[row] = near[np.lexsort((near, -values[near]))][:k]
    return rows
