"""The cache of folded-in user vectors."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles
from marquee_core.scorers.fold_in_cache import FoldInCache
from toy.ratings import ratings_matrix


def test_a_vector_is_computed_once_while_it_is_cached() -> None:
    """Recently folded-in users are cached, and different ratings give different vectors."""
    matrix = ratings_matrix(np.array([[1, 0, 2], [0, 3, 2], [5, 0, 2]]))
    folded: list[int] = []

    def fold(profiles: Profiles) -> Float32:
        folded.extend(profiles.user_index.tolist())
        totals = np.bincount(profiles.rows, profiles.ratings, minlength=len(profiles))
        return np.repeat(totals[:, None], 2, axis=1).astype(np.float32)

    cache = FoldInCache(2)
    for users, totals in (([0], [3]), ([0, 1], [3, 5]), ([0], [3]), ([2, 1], [7, 5]), ([0], [3])):
        vectors = cache.get(matrix.profiles(users), fold)
        assert vectors.tolist() == [[total, total] for total in totals]
    assert len(cache) == 2
    assert folded == [0, 1, 2, 0]


def test_the_order_of_the_ratings_distinguishes_users() -> None:
    """The same ratings in another order are another history, with other scores in some models."""
    matrix = ratings_matrix(np.array([[1, 0, 2]]))
    items, stars = np.array([0, 1], np.int32), np.array([5.0, 3.0], np.float32)

    def fold(profiles: Profiles) -> Float32:
        return profiles.later_counts[None].astype(np.float32)

    cache = FoldInCache(2)
    for order, expected in (([0, 1], [1, 0]), ([1, 0], [0, 1]), ([0, 1], [1, 0])):
        vectors = cache.get(matrix.profile(-1, items[order], stars[order]), fold)
        assert vectors.tolist() == [expected]
    assert len(cache) == 2


def test_a_batch_larger_than_the_cache_does_not_displace_its_users() -> None:
    """Scoring very many users at once costs no keys and no copies, and evicts nobody."""
    matrix = ratings_matrix(np.array([[1, 0, 2], [0, 3, 2], [5, 0, 2]]))
    folded: list[int] = []

    def fold(profiles: Profiles) -> Float32:
        folded.extend(profiles.user_index.tolist())
        return profiles.counts[:, None].astype(np.float32)

    cache = FoldInCache(2)
    cache.get(matrix.profiles([0]), fold)
    assert cache.get(matrix.profiles([0, 1, 2]), fold).tolist() == [[2], [2], [2]]
    assert len(cache) == 1
    cache.get(matrix.profiles([0]), fold)
    assert folded == [0, 0, 1, 2]
