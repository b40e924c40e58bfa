"""EASE, fitted: the weights in closed form."""

from __future__ import annotations

import numpy as np
from scipy.linalg import inv

from marquee_services.arrays import Float32, Float64, Int32
from marquee_services.ratings import Profiles
from marquee_services.scoring.ease import EASEConfig, EASEScorer, liked_matrix, places_of
from marquee_services.scoring.neighbours import RowMatrix
from marquee_services.scoring.scorer import ReleaseData
from marquee_trainer.models.affinity_model import AffinityModel

# Rows of the Gram matrix that are held as a sparse product at once.
_GRAM_BLOCK = 512


def most_liked(profiles: Profiles, item_count: int, config: EASEConfig) -> Int32:
    """The items with the most likes, at most `config.max_items`, ascending (int32, m).

    Args:
        profiles: All users.
        item_count: The size of the catalogue.
        config: What counts as liking, and how many items are wanted.
    """
    liked = profiles.items[profiles.ratings >= config.minimum_stars]
    counts = np.bincount(liked, minlength=item_count)
    order = np.argsort(-counts, kind="stable")[: config.max_items]
    return np.sort(order).astype(np.int32)


def gram(liked: RowMatrix) -> Float64:
    """XᵀX, how many users like both items (float64, m × m).

    Args:
        liked: X, 1 where a user likes an item (float32, users × m).
    """
    by_item = liked.T.tocsr()
    product = np.empty((by_item.shape[0],) * 2)
    for start in range(0, len(product), _GRAM_BLOCK):
        block = slice(start, start + _GRAM_BLOCK)
        product[block] = (by_item[block] @ liked).toarray()
    return product


def solve(product: Float64, penalty: float) -> tuple[Float32, Float32]:
    """B (float32, m × m) and the diagonal of P (float32, m).

    Args:
        product: XᵀX (float64, m × m); overwritten.
        penalty: λ, above 0.
    """
    product.flat[:: len(product) + 1] += penalty
    # The transpose is the same matrix in column order, which LAPACK inverts in place.
    inverse: Float64 = inv(product.T, overwrite_a=True, check_finite=False, assume_a="pos")
    precisions = inverse.diagonal().copy()
    inverse /= -precisions
    np.fill_diagonal(inverse, 0.0)
    return inverse.astype(np.float32, order="C"), precisions.astype(np.float32)


class EASE(AffinityModel[EASEConfig, EASEScorer]):
    """Solves a ridge regression of every item on all others at once (Steck, 2019, equation 8).

    P = (XᵀX + λI)⁻¹, B_ij = −P_ij / P_jj off the diagonal and 0 on it, where X is 1 for likes.
    """

    name = "ease"
    config_type = EASEConfig
    scorer_type = EASEScorer
    multiples = (("regularisation", (0.3, 0.55, 1.8)),)

    def learn(self, data: ReleaseData) -> EASEScorer:
        """As `DirectModel.learn`."""
        config = self._config
        profiles = data.matrix.all_profiles()
        items = most_liked(profiles, data.matrix.item_count, config)
        places = places_of(items, data.matrix.item_count)
        liked = liked_matrix(profiles, places, len(items), config.minimum_stars)
        penalty = config.regularisation * np.sqrt(max(1.0, liked.nnz / len(items)))
        weights, precisions = solve(gram(liked), penalty)
        return EASEScorer(data, config, items, weights, precisions)
