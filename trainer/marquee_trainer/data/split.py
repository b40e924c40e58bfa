"""Splits ratings into a training and a test part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_services.arrays import Int64
from marquee_trainer.data.dataset import RatingsDataset


@dataclass(frozen=True)
class Split:
    """Rows of a data set.

    Attributes:
        train: For training (int64, ascending).
        test: For the test (int64, ascending).
        description: How they were split.
    """

    train: Int64
    test: Int64
    description: str


def random_split(rows: Int64, test_fraction: float, seed: int) -> Split:
    """Splits at random: the head of a permutation of the rows, in their order, is for training.

    Args:
        rows: The rows (int64, n).
        test_fraction: Share of the test part.
        seed: Of the permutation, `numpy.random.default_rng(seed).permutation(n)`.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = round(len(rows) * (1.0 - test_fraction))
    share = round(100 * (1.0 - test_fraction))
    return Split(
        np.sort(rows[order[:cut]]),
        np.sort(rows[order[cut:]]),
        f"random {share}/{100 - share}, seed {seed}",
    )


def temporal_split(dataset: RatingsDataset, test_fraction: float) -> Split:
    """Splits by time: the latest ratings of all are the test part."""
    order = np.lexsort((np.arange(len(dataset)), dataset.timestamps))
    cut = round(len(dataset) * (1.0 - test_fraction))
    share = round(100 * (1.0 - test_fraction))
    return Split(np.sort(order[:cut]), np.sort(order[cut:]), f"by time {share}/{100 - share}")
