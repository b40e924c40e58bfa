"""The vectors of known users and of users who are folded in."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.arrays import Float32, Int32
from marquee_core.ratings import Profiles, join_profiles
from marquee_core.scorers.user_vectors import user_vectors
from toy.ratings import ratings_matrix

MATRIX = ratings_matrix(np.array([[1, 0, 2], [0, 3, 2]]))
TRAINED = np.array([[10, 11], [20, 21]], np.float32)


def visitor(stars: float) -> Profiles:
    """Return a visitor with one rating."""
    items: Int32 = np.array([1], np.int32)
    return MATRIX.profile(-1, items, np.array([stars], np.float32))


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        ([MATRIX.profiles([1, 0])], [[20, 21], [10, 11]]),
        ([visitor(4), visitor(5)], [[4, 4], [5, 5]]),
        ([visitor(4), MATRIX.profiles([0]), visitor(5)], [[4, 4], [10, 11], [5, 5]]),
        ([MATRIX.profile(0, np.array([1], np.int32), np.ones(1, np.float32))], [[4, 4]]),
    ],
    ids=["known", "visitors", "both", "known with a new rating"],
)
def test_only_users_with_new_ratings_are_folded_in(
    profiles: list[Profiles], expected: list[list[float]]
) -> None:
    """In a mixed batch, each user gets the vector at the right position."""

    def fold(folded: Profiles) -> Float32:
        assert folded.needs_fold_in.all()
        totals = np.bincount(folded.rows, folded.ratings, minlength=len(folded))
        return np.repeat(totals[:, None], 2, axis=1).astype(np.float32)

    assert user_vectors(TRAINED, join_profiles(profiles), fold).tolist() == expected
