"""Fits EASE: weights between items, in closed form."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_core.scorers.ease import EASEConfig, EASEScorer
from marquee_core.scorers.item_weights import (
    ItemWeights,
    feedback_values,
    history_rows,
    positions_of,
)
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.sparse import (
    RowMatrix,
)
from marquee_trainer.models.linear.implicit_feedback import (
    DISLIKE_WEIGHTS,
    ImplicitFeedbackModel,
    most_liked,
)
from marquee_trainer.threads import blas_threads, threads_of_system

# Rows of the Gram matrix computed at once, as a sparse product.
_GRAM_BLOCK = 512


def gram(rows: RowMatrix) -> Float64:
    """Computes XᵀX (float64, m × m).

    Args:
        rows: X (float32, users × m).
    """
    by_item = rows.T.tocsr()
    product = np.empty((by_item.shape[0],) * 2)
    for start in range(0, len(product), _GRAM_BLOCK):
        block = slice(start, start + _GRAM_BLOCK)
        product[block] = (by_item[block] @ rows).toarray()
    return product


def weight_users(rows: RowMatrix, damping: float) -> RowMatrix:
    """Computes √W X, where the weight of a user with n items is proportional to (1 + n)^−s.

    The weights are scaled so that their mean over all entries of X is 1.

    Args:
        rows: X (float32, users × m).
        damping: s; with 0 all weights are 1.
    """
    counts = np.diff(rows.indptr)
    weights = (1.0 + counts) ** -damping
    if rows.nnz:
        weights *= rows.nnz / float(weights @ counts)
    scaled = rows.copy()
    scaled.data *= np.repeat(np.sqrt(weights), counts).astype(np.float32)
    return scaled


def solve(product: Float64, penalty: float, dropout: float) -> tuple[Float32, Float32]:
    """Computes B (float32, m × m) and the diagonal of P (float32, m); see `EASE`.

    Args:
        product: XᵀWX (float64, m × m); it is overwritten.
        penalty: λ, positive.
        dropout: p, at least 0 and below 1.
    """
    product.flat[:: len(product) + 1] /= 1.0 - dropout
    product.flat[:: len(product) + 1] += penalty
    # Unlike SciPy's, NumPy's inversion releases the interpreter lock, so Ctrl-C can end it.
    with blas_threads(threads_of_system(len(product))):
        inverse: Float64 = np.linalg.inv(product).astype(np.float64, copy=False)
    precisions = inverse.diagonal().copy()
    inverse /= -precisions
    np.fill_diagonal(inverse, 0.0)
    return inverse.astype(np.float32, order="C"), precisions.astype(np.float32)


class EASE(ImplicitFeedbackModel[EASEConfig, EASEScorer]):
    """Solves a ridge regression of every item on all others at once (Steck, 2019, equation 8).

    P = (XᵀWX + λI + p/(1 − p) diag(XᵀWX))⁻¹, B_ij = −P_ij / P_jj off the diagonal and 0 on it,
    where X holds the weights of the ratings and W those of the users. The last term of P is the
    expected effect of dropping each input with probability p (EDLAE; Steck, 2020).
    """

    name = "ease"
    config_type = EASEConfig
    alternatives = (
        ({"history_decay": 0.0}, {"history_decay": 0.5}, {"history_decay": 1.0}),
        (
            {"minimum_stars": 3.0, "indifference": 0.0, "fitted_dislike": 1.0},
            {"minimum_stars": 3.0, "indifference": 0.0, "fitted_dislike": 0.0},
            {"minimum_stars": 4.0, "indifference": 0.0, "fitted_dislike": 0.0},
            {"minimum_stars": 4.0, "indifference": 0.4, "fitted_dislike": 0.4},
            {"minimum_stars": 4.0, "indifference": 0.4, "fitted_dislike": 0.0},
            {"minimum_stars": 4.0, "indifference": 0.4, "fitted_dislike": -0.25},
        ),
        ({"activity_damping": 0.0}, {"activity_damping": 0.5}),
        ({"dropout": 0.0}, {"dropout": 0.4}),
        DISLIKE_WEIGHTS,
    )
    multipliers = (("regularisation", (0.3, 0.55, 1.8)),)

    def learn(self, data: ReleaseData) -> EASEScorer:
        """See `OnePassModel.learn`."""
        config, count = self._config, data.matrix.item_count
        profiles = data.matrix.all_profiles()
        items = most_liked(data.matrix, config.minimum_stars, config.max_items)
        positions = positions_of(items, count)
        # Without recency weights, which apply only to the history of the user being scored:
        # which items go together does not depend on when they were rated.
        values = feedback_values(
            profiles.ratings,
            config.minimum_stars,
            config.indifference,
            config.fitted_dislike,
            data.dislike_limit,
        )
        rows = history_rows(profiles, values, len(items), positions)
        likes = (values == 1.0) & (positions[profiles.items] >= 0)
        mean_likes = np.count_nonzero(likes) / len(items)
        penalty = config.regularisation * np.sqrt(max(1.0, mean_likes))
        product = gram(weight_users(rows, config.activity_damping))
        weights, precisions = solve(product, penalty, config.dropout)
        return EASEScorer(data, config, ItemWeights(items, weights, count), precisions)
