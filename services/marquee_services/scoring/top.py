"""The best of many scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_services.arrays import Bool, Int64


def top_indexes(scores: NDArray[Any], count: int, eligible: Bool | None = None) -> Int64:
    """The indexes of the highest scores, best first; among equals the lower index first.

    Args:
        scores: Scores (floating, n); NaN never qualifies.
        count: How many are wanted.
        eligible: Which qualify (bool, n); None for all.

    Returns:
        Indexes (int64), fewer than `count` when fewer qualify.
    """
    usable = ~np.isnan(scores)
    if eligible is not None:
        usable &= eligible
    pool = np.flatnonzero(usable)
    values = scores[pool]
    if count <= 0:
        return pool[:0]
    if count < len(pool):
        bound = np.partition(values, len(pool) - count)[len(pool) - count]
        # All ties with the last place stay in, so that the sort below can settle them by index.
        near = values >= bound
        pool, values = pool[near], values[near]
    return pool[np.lexsort((pool, -values))][:count]
