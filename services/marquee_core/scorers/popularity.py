"""Popularity, over all ratings or weighted by recency. It ranks items alike for every user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Float32, Int32, Int64

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Recency:
    """Recency-weighted rating counts. The weight of a rating decays exponentially with its age.

    Attributes:
        half_life_days: The half-life, in days.
        counts: Σ 2^(−age / half-life) over the ratings of each item, where the age is the time
            from the rating to the latest rating in the data (float32, items).
    """

    half_life_days: float
    counts: Float32

    @classmethod
    def of(cls, items: Int32, timestamps: Int64, item_count: int, half_life_days: float) -> Self:
        """Computes the weighted counts.

        Args:
            items: The item of each rating (int32, n).
            timestamps: The time of each rating, in seconds (int64, n).
            item_count: The number of items.
            half_life_days: The half-life, in days.
        """
        ages = (timestamps.max(initial=0) - timestamps) / _DAY_S
        counts = np.bincount(items, 0.5 ** (ages / half_life_days), minlength=item_count)
        return cls(half_life_days, counts.astype(np.float32))


def popularity_scores(counts: NDArray[Any]) -> Float32:
    """Returns the popularity of each item, log(1 + n) for n ratings (float32, items).

    The logarithm gives popularity a similar scale to the other scores of a linear blend.

    Args:
        counts: The number of ratings of each item, possibly weighted by recency (items).
    """
    scores: Float32 = np.log1p(counts).astype(np.float32)
    return scores
