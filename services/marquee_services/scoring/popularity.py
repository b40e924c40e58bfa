"""The most-popular model: the same order for everybody, from how often items are rated."""

from __future__ import annotations

import numpy as np

from marquee_services.arrays import Float32, Int64


def popularity_scores(counts: Int64) -> Float32:
    """log(1 + n) of each item's number of ratings, an affinity (float32, items).

    The logarithm lets a linear blend weigh popularity beside scores of unit scale.

    Args:
        counts: Ratings of each item (int64, items).
    """
    return np.log1p(counts).astype(np.float32)
