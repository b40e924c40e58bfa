"""Bootstrap intervals of metrics, and paired comparisons (Efron and Tibshirani, 1993).

Users are drawn with replacement, not ratings: the ratings of one user are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Float64, Int32

RESAMPLES = 2_000
# Resamples are drawn in blocks of about so many draws, to bound the memory.
_BLOCK_DRAWS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile interval.

    Attributes:
        mean: Σ weight · value / Σ weight.
        low: The lower bound.
        high: The upper bound.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A difference of two means over the same users.

    Attributes:
        difference: The first mean less the second, and its interval.
        p_value: Two-sided: twice the share of resamples in which the difference is not of the
            sign that it has, at least 2 / (resamples + 1) and at most 1.
    """

    difference: Interval
    p_value: float


def user_means(values: Float64, users: Int32) -> tuple[Float64, Float64]:
    """Means of values by user, and how many there are, which weight them back to the pooled mean.

    Args:
        values: For example squared errors, one for each rating (float64, n).
        users: The user of each (int32, n).

    Returns:
        By distinct user, ascending: the mean and the number of values (float64, users).
    """
    _, places = np.unique(users, return_inverse=True)
    counts = np.bincount(places).astype(np.float64)
    means: Float64 = np.bincount(places, values) / counts
    return means, counts


def bootstrap_interval(
    values: Float64,
    seed: int,
    weights: Float64 | None = None,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """The percentile bootstrap interval of a mean over users.

    Args:
        values: A value of each user (float64, n), at least one.
        seed: Of the draws.
        weights: Weight of each (float64, n); equal if None.
        resamples: How many resamples are drawn.
        confidence: The share of them within the interval.

    Raises:
        ValueError: There are no values.
    """
    return _interval(values, _means(values, seed, weights, resamples), weights, confidence)


def paired_bootstrap(
    first: Float64,
    second: Float64,
    seed: int,
    weights: Float64 | None = None,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Comparison:
    """Compares two means over the same users: each resample draws the same users for both.

    Args:
        first: A value of each user (float64, n), at least one.
        second: Another of each (float64, n).
        seed: Of the draws.
        weights: Weight of each user (float64, n); equal if None.
        resamples: How many resamples are drawn.
        confidence: The share of them within the interval.

    Raises:
        ValueError: There are no values, or not as many of one as of the other.
    """
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} values cannot be paired with {len(second)}")
    differences = first - second
    means = _means(differences, seed, weights, resamples)
    interval = _interval(differences, means, weights, confidence)
    against = np.count_nonzero(means <= 0 if interval.mean > 0 else means >= 0)
    # The data themselves count as a resample, so that p is never 0 (Davison and Hinkley, 1997).
    p_value = min(1.0, 2.0 * (against + 1) / (resamples + 1))
    return Comparison(interval, p_value)


def _means(values: Float64, seed: int, weights: Float64 | None, resamples: int) -> Float64:
    """The mean of each resample (float64, resamples)."""
    count = len(values)
    if not count:
        raise ValueError("there are no values to draw from")
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, _BLOCK_DRAWS // count)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        drawn: NDArray[np.int64] = random.integers(0, count, size=(stop - start, count))
        if weights is None:
            means[start:stop] = values[drawn].mean(axis=1)
        else:
            sums = (values * weights)[drawn].sum(axis=1)
            means[start:stop] = sums / weights[drawn].sum(axis=1)
    return means


def _interval(
    values: Float64, means: Float64, weights: Float64 | None, confidence: float
) -> Interval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail]).tolist()
    return Interval(float(np.average(values, weights=weights)), low, high)
