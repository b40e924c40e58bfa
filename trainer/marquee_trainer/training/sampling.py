"""Samples users where scoring all items for all users would cost too much.

That cost is users × items, which grows faster than the number of ratings. On a large data set, only
a random sample of users is scored. The sample is large enough that its means differ from those over
all users by far less than models differ from each other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from marquee_core.arrays import Int32, Int64
from marquee_trainer.data.interactions import Interactions

# All users are scored up to this many (user, item) pairs in total. Beyond that, the sample has this
# many pairs per rating. MovieLens 1M has 22 million pairs, or 22 per rating.
_ALL_PAIRS = 100_000_000
_PAIRS_PER_RATING = 25


def scored_users(users: Int32, item_count: int, rating_count: int, seed: int) -> Int32:
    """Chooses the users to score: all of them, or a random sample (int32, ascending).

    Args:
        users: Indexes of the users to choose from, ascending (int32, n).
        item_count: The number of items that each is scored for.
        rating_count: The number of ratings of the data set.
        seed: Seed of the sample.
    """
    pairs = max(_ALL_PAIRS, _PAIRS_PER_RATING * rating_count)
    most = max(1, pairs // max(1, item_count))
    if len(users) <= most:
        return users
    chosen = np.random.default_rng(seed).choice(len(users), most, replace=False)
    return users[np.sort(chosen)]


def rows_of_users(interactions: Interactions, users: Int32) -> Int64:
    """The positions of the ratings of some users, ascending (int64, n).

    Args:
        interactions: The ratings.
        users: Indexes of the users, ascending (int32).
    """
    if not len(interactions):
        return np.empty(0, dtype=np.int64)
    chosen = np.zeros(int(max(interactions.users.max(), users.max(initial=0))) + 1, dtype=np.bool_)
    chosen[users] = True
    return np.flatnonzero(chosen[interactions.users])


def take(interactions: Interactions, rows: Int64) -> Interactions:
    """The ratings at some positions (int64, n)."""
    return replace(
        interactions,
        users=interactions.users[rows],
        items=interactions.items[rows],
        ratings=interactions.ratings[rows],
    )
