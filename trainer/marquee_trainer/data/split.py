"""Splits of ratings into a training part and a test part.

Only `random_split` of rows in file order depends on that order; all else depends on what the rows
say. A validation part is cut from the training part with the same functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Bool, Int64
from marquee_trainer.data.dataset import RatingsDataset


@dataclass(frozen=True)
class Split:
    """Rows of a data set.

    Attributes:
        train: For training (int64, ascending).
        test: For the test (int64, ascending).
        description: How they were split.
        kind: One of `settings.SPLITS`: a validation part is cut from the training part likewise,
            so that what is learned from it suits the test.
    """

    train: Int64
    test: Int64
    description: str
    kind: str = "random"


def split_by(
    kind: str, dataset: RatingsDataset, rows: Int64, test_fraction: float, seed: int
) -> Split:
    """Splits rows in one of the ways below.

    Args:
        kind: One of `settings.SPLITS`.
        dataset: The ratings.
        rows: Those of its rows to split (int64, n).
        test_fraction: Share of the test part.
        seed: Of what is random.

    Raises:
        KeyError: There is no such way.
    """
    splits = {
        "random": lambda: random_split(rows, test_fraction, seed),
        "temporal": lambda: temporal_split(dataset, rows, test_fraction),
        "user-random": lambda: random_split_per_user(dataset, rows, test_fraction, seed),
        "user-last": lambda: last_split_per_user(dataset, rows, test_fraction),
    }
    return splits[kind]()


def random_split(rows: Int64, test_fraction: float, seed: int) -> Split:
    """Splits at random: the head of a permutation of the rows, in their order, is for training.

    Args:
        rows: The rows (int64, n); `RatingsDataset.file_order` for all in the source's order.
        test_fraction: Share of the test part.
        seed: Of the permutation, `numpy.random.default_rng(seed).permutation(n)`.
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
        rows: Those of its rows to split (int64, n), in any order.
        test_fraction: Share of the test part of each user, rounded down.
        seed: Of the choice.
    """
    rows = np.sort(rows)
    held = _user_tails(dataset, rows, np.random.default_rng(seed).random(len(rows)), test_fraction)
    description = f"random {_shares(test_fraction)} of each user, seed {seed}"
    return Split(rows[~held], rows[held], description, "user-random")


def last_split_per_user(dataset: RatingsDataset, rows: Int64, test_fraction: float) -> Split:
    """Splits each user's ratings by time: the user's latest are the test part.

    Args:
        dataset: The ratings.
        rows: Those of its rows to split (int64, n), in any order.
        test_fraction: Share of the test part of each user, rounded down.
    """
    rows = np.sort(rows)
    held = _user_tails(dataset, rows, dataset.timestamps[rows], test_fraction)
    description = f"last of each user, {_shares(test_fraction)}"
    return Split(rows[~held], rows[held], description, "user-last")


def temporal_split(dataset: RatingsDataset, rows: Int64, test_fraction: float) -> Split:
    """Splits by time: the latest ratings of all are the test part.

    Args:
        dataset: The ratings.
        rows: Those of its rows to split (int64, n), in any order.
        test_fraction: Share of the test part. Ratings of the same second are split by user and
            item.
    """
    rows = np.sort(rows)
    order = rows[np.argsort(dataset.timestamps[rows], kind="stable")]
    cut = round(len(rows) * (1.0 - test_fraction))
    description = f"by time {_shares(test_fraction)}"
    return Split(np.sort(order[:cut]), np.sort(order[cut:]), description, "temporal")


def _user_tails(
    dataset: RatingsDataset, rows: Int64, keys: NDArray[np.generic], fraction: float
) -> Bool:
    """The rows with the greatest keys of each user, ties by row (bool, n)."""
    users = dataset.users[rows]
    order = np.lexsort((keys, users))
    counts = np.bincount(users)
    ends = np.cumsum(counts)
    # The margin keeps 0.2 of 5 from being less than 1.
    kept = ends - np.floor(counts * fraction + 1e-9).astype(np.int64)
    held = np.empty(len(rows), dtype=np.bool_)
    held[order] = np.arange(len(rows)) >= kept[users[order]]
    return held


def _shares(test_fraction: float) -> str:
    share = round(100 * test_fraction)
    return f"{100 - share}/{share}"
