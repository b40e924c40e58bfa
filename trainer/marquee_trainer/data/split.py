"""Splits ratings into a training part and a test part.

A random split depends on the order of the given rows; all other splits depend only on their
content. The same functions split a validation part off the training part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Bool, Int64
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError

# Makes 0.2 · 5 round down to 1 in spite of rounding errors.
_MARGIN = 1e-9


@dataclass(frozen=True)
class Split:
    """The rows of a data set for training and for testing.

    Attributes:
        train: Rows for training (int64, ascending).
        test: Rows for testing (int64, ascending).
        description: A description of the split, for display.
        kind: The kind of split; see `split_by`. The validation part is split off the training part
            in the same way, so that choices on it carry over to the test part.
    """

    train: Int64
    test: Int64
    description: str
    kind: str = "random"


def split_by(
    kind: str, dataset: RatingsDataset, rows: Int64, test_fraction: float, seed: int
) -> Split:
    """Splits rows in one of several ways.

    Args:
        kind: The kind of split: `random`, `temporal`, `user-random` or `user-last`.
        dataset: The ratings.
        rows: The rows of the data set to split (int64, n).
        test_fraction: Share of the rows that are for testing.
        seed: Seed for random choices.

    Raises:
        KeyError: `kind` is unknown.
        RatingsError: `kind` splits by time, but the ratings have no timestamps.
    """
    splits = {
        "random": lambda: random_split(rows, test_fraction, seed),
        "temporal": lambda: temporal_split(dataset, rows, test_fraction),
        "user-random": lambda: random_split_per_user(dataset, rows, test_fraction, seed),
        "user-last": lambda: last_split_per_user(dataset, rows, test_fraction),
    }
    return splits[kind]()


def automatic_split(dataset: RatingsDataset, rows: Int64, test_fraction: float) -> str:
    """Chooses the kind of split that is closest to production: `user-last`, or else `random`.

    A model in production predicts what a user does next. Ratings are split at random if they have
    no timestamps, if the ratings of each user all have the same timestamp, or if so many users have
    few ratings that the last ones of each user would be less than half of the requested share.

    Args:
        dataset: The ratings.
        rows: The rows of the data set to split (int64, n).
        test_fraction: Share of the rows that are for testing.
    """
    if not dataset.has_timestamps or not len(rows):
        return "random"
    rows = np.sort(rows)
    users, times = dataset.users[rows], dataset.timestamps[rows]
    same_user = users[1:] == users[:-1]
    has_order = bool((same_user & (times[1:] != times[:-1])).any())
    held_out = np.floor(np.bincount(users) * test_fraction + _MARGIN).sum()
    return "user-last" if has_order and held_out >= len(rows) * test_fraction / 2 else "random"


def random_split(rows: Int64, test_fraction: float, seed: int) -> Split:
    """Splits at random: the first part of a permutation of the rows is for training.

    Args:
        rows: The rows, in the order to which the permutation applies (int64, n);
            `RatingsDataset.file_order` gives all rows in the order of the source.
        test_fraction: Share of the rows that are for testing.
        seed: Seed of the permutation, `numpy.random.default_rng(seed).permutation(n)`.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = round(len(rows) * (1.0 - test_fraction))
    return Split(
        np.sort(rows[order[:cut]]),
        np.sort(rows[order[cut:]]),
        f"random {_shares(test_fraction)}, seed {seed}",
    )


def random_split_per_user(
    dataset: RatingsDataset, rows: Int64, test_fraction: float, seed: int
) -> Split:
    """Splits each user's ratings at random.

    Args:
        dataset: The ratings.
        rows: The rows of the data set to split (int64, n), in any order.
        test_fraction: Share of each user's rows that are for testing, rounded down.
        seed: Seed for the choice.
    """
    rows = np.sort(rows)
    held = _user_tails(dataset, rows, np.random.default_rng(seed).random(len(rows)), test_fraction)
    description = f"random {_shares(test_fraction)} of each user, seed {seed}"
    return Split(rows[~held], rows[held], description, "user-random")


def last_split_per_user(dataset: RatingsDataset, rows: Int64, test_fraction: float) -> Split:
    """Splits each user's ratings by time: the user's latest ratings are for testing.

    Args:
        dataset: The ratings.
        rows: The rows of the data set to split (int64, n), in any order.
        test_fraction: Share of each user's rows that are for testing, rounded down.

    Raises:
        RatingsError: The ratings have no timestamps.
    """
    _require_timestamps(dataset)
    rows = np.sort(rows)
    held = _user_tails(dataset, rows, dataset.timestamps[rows], test_fraction)
    description = f"last of each user, {_shares(test_fraction)}"
    return Split(rows[~held], rows[held], description, "user-last")


def temporal_split(dataset: RatingsDataset, rows: Int64, test_fraction: float) -> Split:
    """Splits by time: the latest ratings of all users are for testing.

    Args:
        dataset: The ratings.
        rows: The rows of the data set to split (int64, n), in any order.
        test_fraction: Share of the rows that are for testing. Ratings of the same second are
            ordered by user and item.

    Raises:
        RatingsError: The ratings have no timestamps.
    """
    _require_timestamps(dataset)
    rows = np.sort(rows)
    order = rows[np.argsort(dataset.timestamps[rows], kind="stable")]
    cut = round(len(rows) * (1.0 - test_fraction))
    description = f"by time {_shares(test_fraction)}"
    return Split(np.sort(order[:cut]), np.sort(order[cut:]), description, "temporal")


def _user_tails(
    dataset: RatingsDataset, rows: Int64, keys: NDArray[np.generic], fraction: float
) -> Bool:
    """Marks the rows with the largest keys of each user, with ties broken by row (bool, n).

    Args:
        dataset: The ratings.
        rows: The rows, ascending (int64, n).
        keys: The key of each row (n).
        fraction: Share of each user's rows to mark, rounded down.
    """
    users = dataset.users[rows]
    order = np.lexsort((keys, users))
    counts = np.bincount(users)
    ends = np.cumsum(counts)
    kept = ends - np.floor(counts * fraction + _MARGIN).astype(np.int64)
    held = np.empty(len(rows), dtype=np.bool_)
    held[order] = np.arange(len(rows)) >= kept[users[order]]
    return held


def _require_timestamps(dataset: RatingsDataset) -> None:
    if not dataset.has_timestamps:
        raise RatingsError(
            f"{dataset.source}: the ratings have no timestamps, so they cannot be split by time; "
            f"use --split random or --split user-random"
        )


def _shares(test_fraction: float) -> str:
    share = round(100 * test_fraction)
    return f"{100 - share}/{share}"
