"""Splits: which rows are used for training and which for testing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_core.arrays import Int64
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.split import (
    Split,
    last_split_per_user,
    random_split,
    random_split_per_user,
    temporal_split,
)

fractions = st.sampled_from([0.1, 0.2, 0.25, 0.5])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def data_sets(draw: st.DrawFn) -> RatingsDataset:
    """Draw random pairs in random order, with times that are often equal."""
    random = np.random.default_rng(draw(seeds))
    users, items = draw(st.integers(1, 8)), draw(st.integers(2, 12))
    cells = random.permutation(users * items)[: draw(st.integers(2, users * items))]
    return RatingsDataset.of(
        [f"u{cell // items}" for cell in cells],
        [f"i{cell % items}" for cell in cells],
        random.integers(1, 6, len(cells)).astype(np.float32),
        random.integers(0, 20, len(cells)),
        {},
        "test",
    )


Method = Callable[[RatingsDataset, Int64, float], Split]
METHODS: dict[str, Method] = {
    "random": lambda _, rows, share: random_split(rows, share, 7),
    "random per user": lambda data, rows, share: random_split_per_user(data, rows, share, 7),
    "last per user": last_split_per_user,
    "temporal": temporal_split,
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
@settings(deadline=None)
@given(dataset=data_sets(), share=fractions)
def test_a_split_is_disjoint_and_complete(
    method: Method, dataset: RatingsDataset, share: float
) -> None:
    """Each row is in exactly one part, and splitting the training part again stays within it."""
    outer = method(dataset, dataset.file_order, share)
    inner = method(dataset, outer.train, share)
    for rows, split in ((np.arange(len(dataset)), outer), (outer.train, inner)):
        np.testing.assert_array_equal(np.sort(np.concatenate([split.train, split.test])), rows)
        assert (np.diff(split.train) > 0).all()
        assert (np.diff(split.test) > 0).all()


@settings(deadline=None)
@given(data_sets(), fractions, seeds)
def test_a_random_split_is_a_numpy_permutation_of_the_file(
    dataset: RatingsDataset, share: float, seed: int
) -> None:
    """The split can be reproduced with NumPy from the lines of the file and the seed."""
    count = len(dataset)
    order = np.random.default_rng(seed).permutation(count)
    cut = round(count * (1.0 - share))
    split = random_split(dataset.file_order, share, seed)
    assert set(split.train.tolist()) == {int(dataset.file_order[line]) for line in order[:cut]}
    assert set(split.test.tolist()) == {int(dataset.file_order[line]) for line in order[cut:]}


def test_a_random_split_of_ten_rows_is_pinned() -> None:
    """The split of a seed does not change between releases."""
    split = random_split(np.arange(10), 0.2, 0)
    assert split.test.tolist() == [1, 8]
    assert split.description == "random 80/20, seed 0"


@settings(deadline=None)
@given(data_sets(), fractions, seeds)
def test_per_user_splits_hold_out_a_share_of_each_user(
    dataset: RatingsDataset, share: float, seed: int
) -> None:
    """The test part of each user is a share of the user's ratings, rounded down."""
    rows = dataset.file_order
    counts = np.bincount(dataset.users)
    for split in (
        random_split_per_user(dataset, rows, share, seed),
        last_split_per_user(dataset, rows, share),
    ):
        held = np.bincount(dataset.users[split.test], minlength=len(counts))
        expected = [int(count * round(100 * share)) // 100 for count in counts.tolist()]
        assert held.tolist() == expected


@settings(deadline=None)
@given(data_sets(), fractions)
def test_the_last_of_each_user_are_later_than_the_rest(
    dataset: RatingsDataset, share: float
) -> None:
    """No test rating of a user is older than a training rating of the same user."""
    split = last_split_per_user(dataset, dataset.file_order, share)
    for user in range(len(dataset.user_ids)):
        train = dataset.timestamps[split.train[dataset.users[split.train] == user]]
        test = dataset.timestamps[split.test[dataset.users[split.test] == user]]
        if len(test):
            assert train.max() <= test.min()


@settings(deadline=None)
@given(data_sets(), fractions)
def test_a_temporal_split_cuts_time_once(dataset: RatingsDataset, share: float) -> None:
    """No test rating is older than a training rating."""
    split = temporal_split(dataset, dataset.file_order, share)
    assert len(split.train) == round(len(dataset) * (1 - share))
    if len(split.test) and len(split.train):
        assert dataset.timestamps[split.train].max() <= dataset.timestamps[split.test].min()


@settings(deadline=None)
@given(data_sets(), fractions, seeds, st.randoms(use_true_random=False))
def test_only_the_plain_random_split_depends_on_the_order_of_the_rows(
    dataset: RatingsDataset, share: float, seed: int, random: object
) -> None:
    """Other splits depend only on the content of the rows."""
    shuffled = dataset.file_order.tolist()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for one, other in zip(
        *(
            (
                random_split_per_user(dataset, rows, share, seed),
                last_split_per_user(dataset, rows, share),
                temporal_split(dataset, rows, share),
            )
            for rows in (dataset.file_order, np.array(shuffled))
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(one.train, other.train)
        np.testing.assert_array_equal(one.test, other.test)


def test_seeds_give_different_splits() -> None:
    """The split depends on the seed."""
    rows = np.arange(1000)
    assert (random_split(rows, 0.2, 0).test != random_split(rows, 0.2, 1).test).any()


def test_splits_by_time_need_timestamps() -> None:
    """Without timestamps, a split by time is refused, while other splits work."""
    ratings = np.array([4, 3, 5, 2, 1], dtype=np.float32)
    dataset = RatingsDataset.of(["a"] * 5, list("12345"), ratings, None, {}, "own.csv")
    for split in (last_split_per_user, temporal_split):
        with pytest.raises(RatingsError, match=r"own.csv: the ratings have no timestamps.*random"):
            split(dataset, dataset.file_order, 0.2)
    assert len(random_split_per_user(dataset, dataset.file_order, 0.2, 0).test) == 1
