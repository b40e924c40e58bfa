"""Item vectors for measuring diversity: items with similar audiences have similar vectors."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from marquee_core.arrays import Float32
from marquee_core.scorers.scorer import ReleaseData

FACTORS = 32


def item_vectors(data: ReleaseData, factors: int = FACTORS, seed: int = 0) -> Float32:
    """Computes unit item vectors by a truncated singular value decomposition of the rated cells.

    R is 1 where a user rated an item and 0 elsewhere. It is scaled to D_u^(−1/2) R D_i^(−1/2),
    where D_u and D_i hold the numbers of ratings of users and items (Dhillon, 2001), so that
    neither popular items nor active users dominate. If U S Vᵀ is its truncated decomposition,
    an item's vector is its row of V S, normalised, so the product of two vectors is their cosine.

    Args:
        data: The training ratings.
        factors: Number of singular values to keep; fewer if there are fewer users or items.
        seed: Seed for the start vector of the decomposition.

    Returns:
        Unit rows; zero rows for items without ratings (float32, items × factors).
    """
    matrix = data.matrix
    counts = matrix.item_counts
    factors = min(factors, matrix.user_count - 1, matrix.item_count - 1)
    if factors < 1 or not matrix.rating_count:
        return np.zeros((matrix.item_count, 1), dtype=np.float32)
    activity = np.maximum(np.diff(matrix.indptr), 1)
    weights = 1.0 / np.sqrt(counts[matrix.items] * np.repeat(activity, np.diff(matrix.indptr)))
    rated = csr_array(
        (weights, matrix.items, matrix.indptr), shape=(matrix.user_count, matrix.item_count)
    )
    _, values, right = svds(rated, k=factors, rng=np.random.default_rng(seed))
    vectors = (values[:, None] * right).T
    # If the rank is below `factors`, traces of the random start remain in rows of unrated items.
    vectors[counts == 0] = 0.0
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32 = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return unit
