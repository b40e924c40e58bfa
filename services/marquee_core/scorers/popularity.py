"""Popularity, of all times or of late: the same order for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Float32, Int32, Int64

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Recency:
    """How often items were rated of late.

    Attributes:
        half_life_days: After so many days a rating counts half.
        counts: Σ 2^(−age / half-life) over each item's ratings, where the age is the time to the
            latest of all ratings (float32, items).
    """

    half_life_days: float
    counts: Float32

    @classmethod
    def of(cls, items: Int32, timestamps: Int64, item_count: int, half_life_days: float) -> Self:
        """Counts ratings.

        Args:
            items: The item of each rating (int32, n).
            timestamps: When each was given, in seconds (int64, n).
            item_count: How many items there are.
            half_life_days: The half-life.
        """
        ages = (timestamps.max(initial=0) - timestamps) / _DAY_S
        counts = np.bincount(items, 0.5 ** (ages / half_life_days), minlength=item_count)
        return cls(half_life_days, counts.astype(np.float32))


def popularity_scores(counts: NDArray[Any]) -> Float32:
    """log(1 + n) of each item's number of ratings, an affinity (float32, items).

    The logarithm lets a linear blend weigh popularity beside scores of unit scale.

    Args:
        counts: Ratings of each item, all or weighted by age (items).
    """
    scores: Float32 = np.log1p(counts).astype(np.float32)
    return scores
