"""Item vectors for diversity: whose products are similarities of how items are rated."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from marquee_core.arrays import Float32
from marquee_core.scorers.scorer import ReleaseData

DIMENSIONS = 32


def item_vectors(data: ReleaseData, dimensions: int = DIMENSIONS, seed: int = 0) -> Float32:
    """Unit vectors of a truncated singular value decomposition of who rated what.

    Args:
        data: The training ratings.
        dimensions: d, lowered for tiny data.
        seed: Of the decomposition's start.

    Returns:
        Unit rows, zero for items without ratings (float32, items × d).
    """
    matrix = data.matrix
    counts = matrix.item_counts
    d = min(dimensions, matrix.user_count - 1, matrix.item_count - 1)
    if d < 1 or not matrix.rating_count:
        return np.zeros((matrix.item_count, 1), dtype=np.float32)
    # Scaled so that neither popular items nor busy users dominate.
    activity = np.maximum(np.diff(matrix.indptr), 1)
    weights = 1.0 / np.sqrt(counts[matrix.items] * np.repeat(activity, np.diff(matrix.indptr)))
    rated = csr_array(
        (weights, matrix.items, matrix.indptr), shape=(matrix.user_count, matrix.item_count)
    )
    _, values, right = svds(rated, k=d, rng=np.random.default_rng(seed))
    vectors = (values[:, None] * right).T
    # Where the rank is below d, the decomposition leaves something of its random start there.
    vectors[counts == 0] = 0.0
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32 = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return unit
