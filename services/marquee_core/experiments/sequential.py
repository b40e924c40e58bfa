"""Compares the means of two groups by a sequential test, which may be checked at any time.

The interval for the difference of means is the normal-mixture confidence sequence: the boundary of
Robbins' mixture method (Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric,
nonasymptotic confidence sequences", Annals of Statistics 49, eq. 14) with estimated variances
(Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit theory and
asymptotic confidence sequences", Annals of Statistics 52, theorem 2.2). It is the confidence
sequence of the mixture sequential probability ratio test of Johari, Koomen, Pekelis and Walsh
(2017, "Peeking at A/B tests", KDD; 2022, "Always valid inference", Operations Research 70): with
V the variance of the difference and τ² that of the mixture,

    |difference − truth| < √( V (V + τ²) / τ² · log( (V + τ²) / (V α²) ) )

holds simultaneously at all times with probability 1 − α. Checking the result at any time, and
stopping because of it, therefore does not raise the probability of a wrong verdict above α. With
estimated variances this holds for large groups, so groups smaller than `MIN_GROUP` get no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_GROUP = 50
"""The minimum size of a group for which an interval is computed."""

TIGHTEST_AT = 500
"""The size of each of two equal groups for which the interval is optimised. It must not depend on
the data."""


@dataclass(frozen=True)
class Sample:
    """Summary statistics of a group's values.

    Attributes:
        count: The number of members.
        mean: The mean of their values; NaN if there are none.
        variance: The sample variance of their values (denominator n − 1); NaN if there are fewer
            than two.
    """

    count: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Computes the statistics of a group's values."""
        count = len(values)
        mean = math.fsum(values) / count if count else math.nan
        squares = math.fsum((value - mean) ** 2 for value in values)
        return cls(count, mean, squares / (count - 1) if count > 1 else math.nan)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence sequence.

    Attributes:
        estimate: The estimate; NaN if there is none.
        low: The lower limit; −∞ if a group is too small.
        high: The upper limit; ∞ if a group is too small.
    """

    estimate: float
    low: float
    high: float


def mean_interval(sample: Sample, alpha: float) -> Interval:
    """Computes the confidence sequence of a group's mean.

    Args:
        sample: The group.
        alpha: The probability that the sequence ever excludes the true mean.
    """
    if sample.count < MIN_GROUP:
        return Interval(sample.mean, -math.inf, math.inf)
    half = _half_width(sample.variance / sample.count, sample.count, TIGHTEST_AT, alpha)
    return Interval(sample.mean, sample.mean - half, sample.mean + half)


def difference_interval(group: Sample, control: Sample, alpha: float) -> Interval:
    """Computes the confidence sequence of a difference of means: the group's minus the control's.

    Args:
        group: A group.
        control: The group that it is compared with.
        alpha: The probability that the sequence ever excludes the true difference.
    """
    estimate = group.mean - control.mean
    if min(group.count, control.count) < MIN_GROUP:
        return Interval(estimate, -math.inf, math.inf)
    # The variance of the smaller of two unequal groups may be underestimated if most of its values
    # are equal, as for rare clicks. The pooled variance is therefore a lower bound.
    freedom = group.count + control.count - 2
    squares = group.variance * (group.count - 1) + control.variance * (control.count - 1)
    variance = max(
        group.variance / group.count + control.variance / control.count,
        squares / freedom * (1.0 / group.count + 1.0 / control.count),
    )
    # The size of a single group whose mean has the same variance, given equal variances of values.
    effective = group.count * control.count / (group.count + control.count)
    half = _half_width(variance, effective, TIGHTEST_AT / 2, alpha)
    return Interval(estimate, estimate - half, estimate + half)


def _half_width(variance: float, size: float, tightest_at: float, alpha: float) -> float:
    """Computes half the width of the confidence sequence of a mean.

    Args:
        variance: The variance of the mean.
        size: The number of values.
        tightest_at: The number of values for which the interval is optimised.
        alpha: The probability that the sequence ever excludes the true mean.
    """
    if variance <= 0.0:
        # All values are equal so far, so their variance cannot be estimated.
        return math.inf
    # The mixture's variance relative to that of a value (Waudby-Smith et al. 2024, eq. 24).
    log = -2.0 * math.log(alpha)
    ratio = (log + math.log(log) + 1.0) / tightest_at
    mixture = ratio * variance * size
    total = variance + mixture
    return math.sqrt(variance * total / mixture * math.log(total / (variance * alpha**2)))
