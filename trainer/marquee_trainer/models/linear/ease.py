"""EASE, fitted: the weights in closed form."""

from __future__ import annotations

import numpy as np
from scipy.linalg import inv

from marquee_core.arrays import Float32, Float64
from marquee_core.scorers.ease import EASEConfig, EASEScorer
from marquee_core.scorers.item_weights import ItemWeights, history, liking, places_of
from marquee_core.scorers.neighbours import RowMatrix
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.linear.implicit_feedback import ImplicitFeedbackModel, most_liked

# Rows of the Gram matrix that are held as a sparse product at once.
_GRAM_BLOCK = 512


def gram(rows: RowMatrix) -> Float64:
    """XᵀX (float64, m × m).

    Args:
        rows: X (float32, users × m).
    """
    by_item = rows.T.tocsr()
    product = np.empty((by_item.shape[0],) * 2)
    for start in range(0, len(product), _GRAM_BLOCK):
        block = slice(start, start + _GRAM_BLOCK)
        product[block] = (by_item[block] @ rows).toarray()
    return product


def weigh_users(rows: RowMatrix, damping: float) -> RowMatrix:
    """√W X: users weigh (1 + n)^−s, n being how many items they have, 1 for the mean item.

    Args:
        rows: X (float32, users × m).
        damping: s.
    """
    counts = np.diff(rows.indptr)
    weights = (1.0 + counts) ** -damping
    if rows.nnz:
        weights *= rows.nnz / float(weights @ counts)
    scaled = rows.copy()
    scaled.data *= np.repeat(np.sqrt(weights), counts).astype(np.float32)
    return scaled


def solve(product: Float64, penalty: float, dropout: float) -> tuple[Float32, Float32]:
    """B (float32, m × m) and the diagonal of P (float32, m).

    Args:
        product: XᵀX (float64, m × m); overwritten.
        penalty: λ, above 0.
        dropout: p, 0 or above and below 1.
    """
    product.flat[:: len(product) + 1] /= 1.0 - dropout
    product.flat[:: len(product) + 1] += penalty
    # The transpose is the same matrix in column order, which LAPACK inverts in place.
    inverse: Float64 = inv(product.T, overwrite_a=True, check_finite=False, assume_a="pos")
    precisions = inverse.diagonal().copy()
    inverse /= -precisions
    np.fill_diagonal(inverse, 0.0)
    return inverse.astype(np.float32, order="C"), precisions.astype(np.float32)


class EASE(ImplicitFeedbackModel[EASEConfig, EASEScorer]):
    """Solves a ridge regression of every item on all others at once (Steck, 2019, equation 8).

    P = (XᵀWX + λI + p/(1 − p) diag(XᵀWX))⁻¹, B_ij = −P_ij / P_jj off the diagonal and 0 on it,
    where X is how much ratings count and W weighs users; the last term is what dropping each input
    with probability p comes to (EDLAE; Steck, 2020).
    """

    name = "ease"
    config_type = EASEConfig
    scorer_type = EASEScorer
    values = (
        ({"history_decay": 0.0}, {"history_decay": 0.5}, {"history_decay": 1.0}),
        (
            {"minimum_stars": 0.5, "indifference": 0.0},
            {"minimum_stars": 3.0, "indifference": 0.0},
            {"minimum_stars": 4.0, "indifference": 0.0},
            {"minimum_stars": 4.0, "indifference": 0.4},
        ),
        ({"activity_damping": 0.0}, {"activity_damping": 0.5}),
        ({"dropout": 0.0}, {"dropout": 0.4}),
    )
    multiples = (("regularisation", (0.3, 0.55, 1.8)),)

    def learn(self, data: ReleaseData) -> EASEScorer:
        """As `ClosedFormModel.learn`."""
        config, count = self._config, data.matrix.item_count
        profiles = data.matrix.all_profiles()
        items = most_liked(data.matrix, config.minimum_stars, config.max_items)
        places = places_of(items, count)
        # What goes together does so at any time: only the history of who asks fades.
        values = liking(profiles.ratings, config.minimum_stars, config.indifference)
        rows = history(profiles, values, len(items), places)
        likes = (profiles.ratings >= config.minimum_stars) & (places[profiles.items] >= 0)
        mean_likes = np.count_nonzero(likes) / len(items)
        penalty = config.regularisation * np.sqrt(max(1.0, mean_likes))
        product = gram(weigh_users(rows, config.activity_damping))
        weights, precisions = solve(product, penalty, config.dropout)
        return EASEScorer(config, ItemWeights(items, weights, count), precisions)
