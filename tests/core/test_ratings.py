"""The ratings matrix, and the order in which users gave their ratings."""

from __future__ import annotations

from collections.abc import Callable
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
    """A rating as a row."""

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
    """Return a matrix with these ratings."""
    return RatingsMatrix.of(
        np.array([row.user for row in rows], np.int32),
        np.array([row.item for row in rows], np.int32),
        np.array([row.stars for row in rows], np.float32),
        USERS,
        ITEMS,
        np.array([row.time for row in rows], np.int64),
    )


@given(rows_of_ratings)
def test_later_counts_are_numbers_of_later_ratings(rows: list[Row]) -> None:
    """Only later ratings of the same user count, and not those with the same time."""
    profiles = matrix_of(rows).all_profiles()
    found = list(zip(profiles.rows, profiles.items, profiles.later_counts, strict=True))
    expected = [
        (row.user, row.item, sum(o.user == row.user and o.time > row.time for o in rows))
        for row in sorted(rows, key=lambda row: (row.user, row.item))
    ]
    assert found == expected


@given(rows_of_ratings, st.permutations(range(ITEMS)), st.integers(0, ITEMS), st.data())
def test_new_ratings_count_as_the_most_recent(
    rows: list[Row], order: list[int], count: int, data: st.DataObject
) -> None:
    """The profile equals that of a matrix in which the new ratings come last."""
    user = data.draw(st.integers(0, USERS - 1))
    new = [Row(user, item, 4.0, 10 + place) for place, item in enumerate(order[:count])]
    profile = matrix_of(rows).profile(
        user,
        np.array([row.item for row in new], np.int32),
        np.array([row.stars for row in new], np.float32),
    )
    replaced = {row.item for row in new}
    remaining = [row for row in rows if row.user != user or row.item not in replaced]
    expected = matrix_of([*remaining, *new]).profiles([user])
    assert profile.items.tolist() == expected.items.tolist()
    assert profile.ratings.tolist() == expected.ratings.tolist()
    assert profile.later_counts.tolist() == expected.later_counts.tolist()
    assert profile.later_counts.dtype == np.int32


@given(rows_of_ratings)
def test_a_visitor_has_the_same_profile_as_a_known_user_with_the_same_ratings(
    rows: list[Row],
) -> None:
    """The ratings of the visitor are given in order of time."""
    own = sorted(
        {row.time: row for row in rows if row.user == 0}.values(), key=lambda row: row.time
    )
    matrix = matrix_of(own)
    visitor = matrix.profile(
        -1,
        np.array([row.item for row in own], np.int32),
        np.array([row.stars for row in own], np.float32),
    )
    assert visitor.later_counts.tolist() == matrix.profiles([0]).later_counts.tolist()


def test_ratings_without_times_have_no_later_ratings() -> None:
    """Without times, all ratings count as given at the same time."""
    users, items = np.zeros(3, np.int32), np.arange(3, dtype=np.int32)
    matrix = RatingsMatrix.of(users, items, np.ones(3, np.float32), 1, 3)
    assert matrix.later_counts.tolist() == [0, 0, 0]


@given(rows_of_ratings, st.lists(st.integers(0, USERS - 1), max_size=6))
def test_taken_and_joined_profiles_are_those_of_the_users(
    rows: list[Row], users: list[int]
) -> None:
    """Profiles are in the requested order, with repetitions."""
    matrix = matrix_of(rows)
    expected = matrix.profiles(users)
    taken = matrix.all_profiles().take(np.array(users, np.int64))
    joined = join_profiles([matrix.profiles([user]) for user in users] or [matrix.profiles([])])
    for found in (taken, joined):
        for name in ("user_index", "indptr", "items", "ratings", "later_counts", "needs_fold_in"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name


def test_shared_values_are_computed_once_per_owner() -> None:
    """Other owners, other parts and other profiles of the same users have separate values."""
    matrix = matrix_of([Row(0, 1, 3.0, 5), Row(1, 2, 5.0, 4)])
    profiles, calls = matrix.profiles([0, 1]), list[str]()
    owners = [object(), object()]

    def compute(name: str) -> Callable[[], str]:
        def computed() -> str:
            calls.append(name)
            return name

        return computed

    for _ in range(2):
        for place, owner in enumerate(owners):
            for what in ("a", "b"):
                name = f"{place}{what}"
                assert profiles.cached(owner, what, compute(name)) == name
    assert calls == ["0a", "0b", "1a", "1b"]
    taken = profiles.take(np.array([1]))
    assert taken.cached(owners[0], "a", compute("taken")) == "taken"
    assert profiles.single(1).items.tolist() == taken.items.tolist()
    assert taken.single(0).cached(owners[0], "a", compute("again")) == "taken"


def saved(folder: Path) -> RatingsMatrix:
    """Save a matrix with three ratings of one user and two of another."""
    rows = [Row(0, 1, 3.0, 5), Row(0, 2, 5.0, 4), Row(0, 3, 3.0, 6)]
    matrix = matrix_of([*rows, Row(2, 0, 5.0, 1), Row(2, 1, 0.5, 1)])
    matrix.save(folder)
    return matrix


def test_a_saved_matrix_is_loaded_unchanged(tmp_path: Path) -> None:
    """All arrays are equal, including the counts of later ratings."""
    matrix = saved(tmp_path)
    again = RatingsMatrix.load(tmp_path, USERS, ITEMS)
    for name in ("indptr", "items", "ratings", "later_counts"):
        np.testing.assert_array_equal(getattr(again, name), getattr(matrix, name))
    assert again.later_counts.tolist() == [1, 2, 0, 0, 0]


@pytest.mark.parametrize("later", [[1, -1, 0, 0, 0], [1, 3, 0, 0, 0], [1, 2, 0, 0]])
def test_impossible_counts_of_later_ratings_are_refused(tmp_path: Path, later: list[int]) -> None:
    """A negative count would lead to infinite or NaN scores."""
    saved(tmp_path)
    save_array(tmp_path / "later_counts.npy", np.array(later, np.int32))
    with pytest.raises(ArrayError, match=r"later_counts\.npy"):
        RatingsMatrix.load(tmp_path, USERS, ITEMS)
