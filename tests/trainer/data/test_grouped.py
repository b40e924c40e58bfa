"""Rows whose users follow one another are sorted as any other rows are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from marquee_trainer.data import grouped
from marquee_trainer.data.chunked import ChunkedArray, large_array
from marquee_trainer.data.grouped import sort_grouped
from marquee_trainer.data.ids import IdColumn


def chunked(values: NDArray[Any], cuts: list[int]) -> ChunkedArray[Any]:
    """An array in pieces, as places in a table that is in reverse order."""
    table, places = np.unique(values, return_inverse=True)
    ends = sorted(cut % (len(values) + 1) for cut in cuts)
    pieces = [piece for piece in np.split(len(table) - 1 - places, ends) if len(piece)]
    return ChunkedArray(pieces, table[::-1])


def column(values: NDArray[Any], cuts: list[int]) -> IdColumn:
    """A column of ids in pieces."""
    ids = IdColumn.of(values.astype(np.bytes_))
    return IdColumn(ids.names, chunked(ids.codes, cuts))


@given(
    counts=st.dictionaries(st.integers(0, 300), st.integers(1, 12), min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    other_cuts=st.lists(st.integers(0, 400), max_size=1),
    seed=st.integers(0, 5),
    least=st.sampled_from([1, 16, 1 << 16]),
    stretch=st.sampled_from([0, 128]),
)
def test_users_that_follow_one_another_are_sorted_as_numpy_does(
    counts: dict[int, int],
    cuts: list[int],
    other_cuts: list[int],
    seed: int,
    least: int,
    stretch: int,
) -> None:
    """Each value keeps its row, whatever the order of users and items, the pieces and blocks."""
    random = np.random.default_rng(seed)
    users = np.repeat(list(counts), list(counts.values()))
    items = np.concatenate([random.choice(40, count, replace=False) for count in counts.values()])
    stars = random.integers(1, 6, len(users)).astype(np.float32)
    times = random.integers(0, 10**10, len(users))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "_BLOCK_ROWS", least)
        patch.setattr(grouped, "_STRETCH_ROWS", stretch)
        found = sort_grouped(
            column(users, cuts),
            column(items, cuts),
            chunked(stars, cuts),
            chunked(times, other_cuts or cuts),
        )
    assert found is not None
    user_codes = IdColumn.of(users.astype(np.bytes_)).codes
    item_codes = IdColumn.of(items.astype(np.bytes_)).codes
    order = np.lexsort((item_codes, user_codes))
    expected = (user_codes[order], item_codes[order], stars[order], times[order], order)
    for values, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(values, right)
    kinds = [np.int32, np.int32, np.float32, np.int64, np.int32]
    assert [values.dtype for values in found] == kinds


@pytest.mark.parametrize(
    ("users", "items"), [("abca", "1234"), ("aabb", "1122"), ("aabbcaa", "1212134")]
)
def test_rows_of_a_user_that_are_apart_and_repeats_are_left_to_others(
    users: str, items: str
) -> None:
    """Only whole users without repeated items are sorted in this way."""
    stars: ChunkedArray[np.float32] = ChunkedArray([np.ones(len(users), np.float32)])
    assert sort_grouped(IdColumn.of(list(users)), IdColumn.of(list(items)), stars, None) is None


def test_arrays_in_pieces_are_as_whole_ones() -> None:
    """Large arrays are made, joined and picked from in parts, each part to its place."""
    random = np.random.default_rng(0)
    places = random.permutation(3_000_000).astype(np.int32)
    table = np.arange(3_000_000, dtype=np.int32) * 2
    pieces = ChunkedArray(np.split(places, [5, 400_000]), table)
    np.testing.assert_array_equal(pieces.array, 2 * places)
    np.testing.assert_array_equal(pieces.pick(places, np.int64), 2 * places[places])
    assert pieces.pick(places, np.int64).dtype == np.int64
    large = large_array(3_000_000, np.float32)
    large[:] = 1.0
    assert large.sum() == len(large)


def test_distinct_values_are_those_that_occur() -> None:
    """A table may hold values that no row has."""
    pieces = ChunkedArray([np.array([2, 2]), np.array([0])], np.array([0.5, 1.0, 4.5]))
    assert sorted(pieces.distinct()) == [0.5, 4.5]
    assert sorted(ChunkedArray([np.array([3.0, 1.0, 3.0])]).distinct()) == [1.0, 3.0]
