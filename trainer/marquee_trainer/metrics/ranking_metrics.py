"""How well full rankings find what users liked (no sampled negatives: Krichene and Rendle, 2020).

Every item that is not among a user's training ratings is a candidate, and the candidates are
ranked by score; of equal scores, the lower item index comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from marquee_core.arrays import Bool, Float32, Float64, Int32, Int64
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.data.interactions import Interactions

# k of NDCG and of recall, wherever models are compared.
TOP = 10
RECALL_TOP = 20

_BLOCK_CELLS = 2_000_000
_INDEX_BITS = 32
_SIGN = np.uint32(1 << 31)
_LAST = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True)
class RankingMetrics:
    """Means over the users with a relevant test item; 0 when there are none.

    R is the set of a user's relevant items.

    Attributes:
        ndcg: NDCG@k: Σ_{ranks ρ ≤ k of R} 1 / log2(ρ + 1), over the same sum of the ideal list,
            Σ_{ρ ≤ min(k, |R|)} 1 / log2(ρ + 1) (Järvelin and Kekäläinen, 2002, binary gain).
        recall: Recall@recall_k: the share of R in the top recall_k.
        mrr: Mean reciprocal rank: 1 / the best rank of R.
        map: Mean average precision over the whole list: Σ_{ranks ρ of R} (the number of R up to
            ρ) / ρ, over |R|.
        coverage: The share of all items that are in the top k of any of the users.
        users: How many users there are.
        left_out: How many users of the test have no relevant item, and are left out.
        ndcg_by_user: NDCG@k of each user (float64, users).
        recall_by_user: Recall@recall_k of each (float64, users).
        reciprocal_rank_by_user: 1 / the best rank of each (float64, users).
        average_precision_by_user: The average precision of each (float64, users).
        top_counts: In the top k of how many users each item is (int64, items).
        top_items: The top k of each user, best first (int64, users × k); -1 where there is none.
    """

    ndcg: float
    recall: float
    mrr: float
    map: float
    coverage: float
    users: int
    left_out: int
    ndcg_by_user: Float64
    recall_by_user: Float64
    reciprocal_rank_by_user: Float64
    average_precision_by_user: Float64
    top_counts: Int64
    top_items: Int64


@dataclass(frozen=True)
class RankingTask:
    """Users, what they may be shown, and what they liked.

    Attributes:
        train: The training ratings.
        users: The users with a relevant test item (int32, ascending).
        relevant_users: The place among `users` of each relevant pair (int64, ascending).
        relevant_items: Its item (int32).
        left_out: How many users of the test have no relevant item.
    """

    train: RatingsMatrix
    users: Int32
    relevant_users: Int64
    relevant_items: Int32
    left_out: int

    @classmethod
    def of(cls, train: RatingsMatrix, test: Interactions, relevant_stars: float) -> Self:
        """Makes a task.

        Args:
            train: The training ratings.
            test: The test ratings, none of them in training.
            relevant_stars: An item is relevant to a user who rated it at least so in the test.

        Raises:
            ValueError: A relevant pair is in training as well.
        """
        liked = test.ratings >= relevant_stars
        order = np.lexsort((test.items[liked], test.users[liked]))
        pair_users, pair_items = test.users[liked][order], test.items[liked][order]
        cells = pair_users.astype(np.int64) * train.item_count + pair_items
        known = train.users.astype(np.int64) * train.item_count + train.items
        if bool(np.isin(cells, known).any()):
            raise ValueError("a test rating is among the training ratings")
        users, places = np.unique(pair_users, return_inverse=True)
        return cls(train, users, places, pair_items, len(np.unique(test.users)) - len(users))

    def sample(self, most: int, seed: int) -> Self:
        """The same task of so many users at most, drawn at random."""
        if len(self.users) <= most:
            return self
        random = np.random.default_rng(seed)
        kept = np.sort(random.choice(len(self.users), most, replace=False))
        here = np.isin(self.relevant_users, kept)
        return replace(
            self,
            users=self.users[kept],
            relevant_users=np.searchsorted(kept, self.relevant_users[here]),
            relevant_items=self.relevant_items[here],
        )

    def blocks(self) -> Iterator[tuple[Int32, Bool, Bool]]:
        """Blocks of users, their candidates and their relevant items (bool, B × items)."""
        size = max(1, _BLOCK_CELLS // max(1, self.train.item_count))
        for first in range(0, len(self.users), size):
            places = np.arange(first, min(first + size, len(self.users)))
            yield self.users[places], *self.lists(places)

    def lists(self, places: Int64) -> tuple[Bool, Bool]:
        """Candidates and relevant items of some users (bool, B × items each).

        Args:
            places: Places among `users`, ascending (int64, B).
        """
        profiles = self.train.profiles(self.users[places])
        candidates = np.ones((len(places), self.train.item_count), dtype=np.bool_)
        candidates[profiles.rows, profiles.items] = False
        relevant = np.zeros_like(candidates)
        here = np.isin(self.relevant_users, places)
        rows = np.searchsorted(places, self.relevant_users[here])
        relevant[rows, self.relevant_items[here]] = True
        return candidates, relevant


def ranking_metrics(
    task: RankingTask,
    score: Callable[[Int32], Float32 | Float64],
    k: int,
    recall_k: int | None = None,
) -> RankingMetrics:
    """Ranks all candidates of each user.

    Args:
        task: The task.
        score: Scores all items for some users (B × items); compared in single precision, as they
            are served.
        k: The length of the list for NDCG and coverage.
        recall_k: That for recall; k if None.

    Raises:
        ValueError: A score is not a number.
    """
    recall_k = k if recall_k is None else recall_k
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    top_counts = np.zeros(task.train.item_count, dtype=np.int64)
    top_items = np.full((len(task.users), min(k, task.train.item_count)), -1, dtype=np.int64)
    # By user: NDCG, recall, reciprocal rank, average precision.
    values = np.zeros((4, len(task.users)))
    first = 0
    for users, candidates, relevant in task.blocks():
        ranked = rank_candidates(score(users), candidates)
        hits = np.take_along_axis(relevant, ranked, axis=1)
        count = relevant.sum(axis=1)
        rows, ranks = np.nonzero(hits)
        ranks += 1
        # The place of each hit among those of its user, counted from 1.
        nth = np.arange(1, len(rows) + 1) - np.searchsorted(rows, rows)
        precision = np.bincount(rows, nth / ranks, minlength=len(users))
        here = slice(first, first + len(users))
        values[:, here] = (
            hits[:, :k] @ discounts[: hits.shape[1]] / ideal[np.minimum(count, k)],
            hits[:, :recall_k].sum(axis=1) / count,
            1.0 / (hits.argmax(axis=1) + 1),
            precision / count,
        )
        shown = np.take_along_axis(candidates, ranked[:, :k], axis=1)
        top_counts += np.bincount(ranked[:, :k][shown], minlength=len(top_counts))
        top_items[here] = np.where(shown, ranked[:, :k], -1)
        first += len(users)
    ndcg, recall, reciprocal, average = values

    def mean(by_user: Float64) -> float:
        return float(by_user.mean()) if len(by_user) else 0.0

    return RankingMetrics(
        ndcg=mean(ndcg),
        recall=mean(recall),
        mrr=mean(reciprocal),
        map=mean(average),
        coverage=float((top_counts > 0).mean()),
        users=len(task.users),
        left_out=task.left_out,
        ndcg_by_user=ndcg,
        recall_by_user=recall,
        reciprocal_rank_by_user=reciprocal,
        average_precision_by_user=average,
        top_counts=top_counts,
        top_items=top_items,
    )


def rank_candidates(scores: Float32 | Float64, candidates: Bool) -> Int64:
    """Item indexes by falling score, ties by index; what is no candidate comes last.

    Score and index become one integer that sorts as wanted, so that a plain sort of integers,
    which NumPy vectorises, ranks whole rows.

    Args:
        scores: Scores, compared in single precision (B × items).
        candidates: Which items are candidates (bool, B × items).

    Returns:
        Item indexes (int64, B × items).

    Raises:
        ValueError: A candidate's score is not a number.
    """
    # Zero is added because −0 and 0 are equal, but for their bits.
    single = scores.astype(np.float32) + np.float32(0)
    if bool(np.isnan(single[candidates]).any()):
        raise ValueError("a score is not a number")
    bits = single.view(np.uint32)
    # IEEE 754: as unsigned integers, positive numbers rise and negative ones fall.
    falling = np.where(bits & _SIGN, bits, ~(bits | _SIGN))
    falling[~candidates] = _LAST
    keys = falling.astype(np.uint64) << np.uint64(_INDEX_BITS)
    keys |= np.arange(scores.shape[1], dtype=np.uint64)
    keys.sort(axis=1)
    return (keys & np.uint64(_LAST)).astype(np.int64)
