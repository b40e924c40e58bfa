"""The cache of folded-in users."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles
from marquee_core.scorers.fold_in_cache import FoldInCache
from toy.ratings import ratings_matrix


def test_a_vector_is_computed_once_while_its_user_is_recent() -> None:
    """The users folded in last are kept; users with other ratings have other vectors."""
    matrix = ratings_matrix(np.array([[1, 0, 2], [0, 3, 2], [5, 0, 2]]))
    folded: list[int] = []

    def fold(profile: Profiles) -> Float32:
        folded.append(int(profile.user_index[0]))
        return np.full((1, 2), profile.ratings.sum(), dtype=np.float32)

    cache = FoldInCache(2)
    for user, total in ((0, 3), (1, 5), (0, 3), (2, 7), (1, 5), (0, 3)):
        assert cache.get(matrix.profiles([user]), fold).tolist() == [total, total]
    assert len(cache) == 2
    assert folded == [0, 1, 2, 0]
