"""Re-ranks for diversity: maximal marginal relevance (Carbonell and Goldstein, 1998)."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64, Int64


def diversify(scores: Float64, vectors: Float32, diversity: float, count: int) -> Int64:
    """Picks items one by one: argmax (1 − d) · relevance − d · max similarity to those picked.

    Relevance is the score scaled to 0..1 over the pool; similarity is the product of unit vectors.
    A longer pick begins with the shorter one, so pages fit together.

    Args:
        scores: Scores of the pool, best first (float64, n).
        vectors: Unit vectors of the pool (float32, n × k).
        diversity: d, 0 to 1.
        count: How many to pick.

    Returns:
        Places in the pool (int64, at most `count`).
    """
    size = len(scores)
    count = min(count, size)
    if not count:
        return np.empty(0, dtype=np.int64)
    spread = float(scores[0] - scores[-1])
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.ones(size)
    nearest = np.zeros(size)
    picked = np.empty(count, dtype=np.int64)
    left = np.ones(size, dtype=np.bool_)
    for step in range(count):
        value = (1.0 - diversity) * relevance - diversity * nearest
        value[~left] = -np.inf
        best = int(np.argmax(value))
        picked[step] = best
        left[best] = False
        similarity = vectors @ vectors[best]
        nearest = similarity.astype(np.float64) if step == 0 else np.maximum(nearest, similarity)
    return picked
