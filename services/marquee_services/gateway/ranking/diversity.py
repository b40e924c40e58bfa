"""Re-ranking for diversity: maximal marginal relevance (Carbonell and Goldstein, 1998)."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64, Int64


def diversify(scores: Float64, vectors: Float32, diversity: float, count: int) -> Int64:
    """Selects items one by one, trading relevance against similarity to the items selected so far.

    Each step selects argmax (1 − d) · relevance − d · max similarity to the selected items.
    Relevance is the score, scaled to 0..1 over the pool; similarity is the product of unit
    vectors. Selecting more items only extends the selection, so successive pages are consistent.

    Args:
        scores: Scores of the pool, the best first (float64, n).
        vectors: Unit vectors of the pool (float32, n × k).
        diversity: The weight d of diversity, 0 to 1.
        count: The number of items to select.

    Returns:
        Positions in the pool, in the order of selection (int64, at most `count`).
    """
    size = len(scores)
    count = min(count, size)
    if not count:
        return np.empty(0, dtype=np.int64)
    spread = float(scores[0] - scores[-1])
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.ones(size)
    max_similarity = np.zeros(size)
    selected = np.empty(count, dtype=np.int64)
    remaining = np.ones(size, dtype=np.bool_)
    for step in range(count):
        value = (1.0 - diversity) * relevance - diversity * max_similarity
        value[~remaining] = -np.inf
        best = int(np.argmax(value))
        selected[step] = best
        remaining[best] = False
        similarity = vectors @ vectors[best]
        max_similarity = (
            similarity.astype(np.float64) if step == 0 else np.maximum(max_similarity, similarity)
        )
    return selected
