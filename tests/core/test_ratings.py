"""The ratings matrix, and in which order users gave their ratings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.arrays import ArrayError, save_array
from marquee_core.ratings import RatingsMatrix, join_profiles

USERS, ITEMS = 4, 8


@dataclass(frozen=True)
class Row:
    """A rating."""

    user: int
    item: int
    stars: float
    time: int


rows_of_ratings = st.lists(
    st.builds(
        Row,
        st.integers(0, USERS - 1),
        st.integers(0, ITEMS - 1),
        st.sampled_from([0.5, 3.0, 5.0]),
        st.integers(-2, 5),
    ),
    max_size=30,
    unique_by=lambda row: (row.user, row.item),
)


def matrix_of(rows: list[Row]) -> RatingsMatrix:
    """The matrix of rows."""
    return RatingsMatrix.of(
        np.array([row.user for row in rows], np.int32),
        np.array([row.item for row in rows], np.int32),
        np.array([row.stars for row in rows], np.float32),
        USERS,
        ITEMS,
        np.array([row.time for row in rows], np.int64),
    )


@given(rows_of_ratings)
def test_later_counts_the_ratings_of_later_moments(rows: list[Row]) -> None:
    """Of the same user alone, and not those of the same moment."""
    profiles = matrix_of(rows).all_profiles()
    found = list(zip(profiles.rows, profiles.items, profiles.later, strict=True))
    wanted = [
        (row.user, row.item, sum(o.user == row.user and o.time > row.time for o in rows))
        for row in sorted(rows, key=lambda row: (row.user, row.item))
    ]
    assert found == wanted


@given(rows_of_ratings, st.permutations(range(ITEMS)), st.integers(0, ITEMS), st.data())
def test_fresh_ratings_are_later_than_all_others_and_the_last_is_the_latest(
    rows: list[Row], order: list[int], count: int, data: st.DataObject
) -> None:
    """A profile is what a matrix would hold, had the fresh ratings been given at the end."""
    user = data.draw(st.integers(0, USERS - 1))
    fresh = [Row(user, item, 4.0, 10 + place) for place, item in enumerate(order[:count])]
    profile = matrix_of(rows).profile(
        user,
        np.array([row.item for row in fresh], np.int32),
        np.array([row.stars for row in fresh], np.float32),
    )
    replaced = {row.item for row in fresh}
    kept = [row for row in rows if row.user != user or row.item not in replaced]
    wanted = matrix_of([*kept, *fresh]).profiles([user])
    assert profile.items.tolist() == wanted.items.tolist()
    assert profile.ratings.tolist() == wanted.ratings.tolist()
    assert profile.later.tolist() == wanted.later.tolist()
    assert profile.later.dtype == np.int32


@given(rows_of_ratings)
def test_a_visitor_who_gives_ratings_one_by_one_has_the_history_of_a_known_user(
    rows: list[Row],
) -> None:
    """Given in the order of time, the same ratings are the same profile."""
    own = sorted(
        {row.time: row for row in rows if row.user == 0}.values(), key=lambda row: row.time
    )
    matrix = matrix_of(own)
    visitor = matrix.profile(
        -1,
        np.array([row.item for row in own], np.int32),
        np.array([row.stars for row in own], np.float32),
    )
    assert visitor.later.tolist() == matrix.profiles([0]).later.tolist()


def test_ratings_without_times_are_of_one_moment() -> None:
    """None is later than another."""
    users, items = np.zeros(3, np.int32), np.arange(3, dtype=np.int32)
    matrix = RatingsMatrix.of(users, items, np.ones(3, np.float32), 1, 3)
    assert matrix.later.tolist() == [0, 0, 0]


@given(rows_of_ratings, st.lists(st.integers(0, USERS - 1), max_size=6))
def test_taken_and_joined_profiles_are_those_of_the_users(
    rows: list[Row], users: list[int]
) -> None:
    """In the order asked for, once for each time."""
    matrix = matrix_of(rows)
    wanted = matrix.profiles(users)
    taken = matrix.all_profiles().take(np.array(users, np.int64))
    joined = join_profiles([matrix.profiles([user]) for user in users] or [matrix.profiles([])])
    for found in (taken, joined):
        for name in ("user_index", "indptr", "items", "ratings", "later", "folded"):
            assert getattr(found, name).tolist() == getattr(wanted, name).tolist(), name


def saved(folder: Path) -> RatingsMatrix:
    """A matrix in a folder: three ratings of one user, two of another."""
    rows = [Row(0, 1, 3.0, 5), Row(0, 2, 5.0, 4), Row(0, 3, 3.0, 6)]
    matrix = matrix_of([*rows, Row(2, 0, 5.0, 1), Row(2, 1, 0.5, 1)])
    matrix.save(folder)
    return matrix


def test_a_saved_matrix_is_read_as_it_was(tmp_path: Path) -> None:
    """The order of the ratings among the rest."""
    matrix = saved(tmp_path)
    again = RatingsMatrix.load(tmp_path, USERS, ITEMS)
    for name in ("indptr", "items", "ratings", "later"):
        np.testing.assert_array_equal(getattr(again, name), getattr(matrix, name))
    assert again.later.tolist() == [1, 2, 0, 0, 0]


@pytest.mark.parametrize("later", [[1, -1, 0, 0, 0], [1, 3, 0, 0, 0], [1, 2, 0, 0]])
def test_an_order_that_cannot_be_is_refused(tmp_path: Path, later: list[int]) -> None:
    """A negative number would score as infinity or as no answer at all."""
    saved(tmp_path)
    save_array(tmp_path / "later.npy", np.array(later, np.int32))
    with pytest.raises(ArrayError, match=r"later\.npy"):
        RatingsMatrix.load(tmp_path, USERS, ITEMS)
