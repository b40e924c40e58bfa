"""Fits EASE: weights between items, in closed form."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32, positions_of
from marquee_core.scorers.ease import EASEConfig, EASEScorer
from marquee_core.scorers.item_weights import (
    ItemWeights,
    feedback_values,
    history_matrix,
)
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.sparse import RowMatrix
from marquee_core.scorers.tail_weights import TailWeights
from marquee_trainer.models.linear.implicit_feedback import (
    DISLIKE_WEIGHTS,
    ImplicitFeedbackModel,
    most_liked,
    tail_items,
)
from marquee_trainer.models.linear.tail import regress, tail_of
from marquee_trainer.threads import blas_threads, threads_for_system

# Number of rows of the Gram matrix that are computed at a time, as a sparse product.
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


def user_weights(rows: RowMatrix, damping: float) -> Float32:
    """The weight of each user, proportional to (1 + n)^−s for a user with n items (float32, users).

    The weights are scaled so that their mean over all entries of X is 1.

    Args:
        rows: X (float32, users × m).
        damping: s; with 0 all weights are 1.
    """
    counts = np.diff(rows.indptr)
    weights = (1.0 + counts) ** -damping
    if rows.nnz:
        weights *= rows.nnz / float(weights @ counts)
    return weights.astype(np.float32)


def weighted(rows: RowMatrix, weights: Float32) -> RowMatrix:
    """√W X for X and the weights of its rows (float32, users × m)."""
    scaled = rows.copy()
    scaled.data *= np.repeat(np.sqrt(weights), np.diff(rows.indptr))
    return scaled


def regularise(product: Float64, penalty: float, dropout: float) -> None:
    """Adds the expected effect of dropout and the penalty to XᵀWX, in place; see `EASE`.

    Args:
        product: XᵀWX (float64, m × m).
        penalty: λ, positive.
        dropout: p, at least 0 and below 1.
    """
    product.flat[:: len(product) + 1] /= 1.0 - dropout
    product.flat[:: len(product) + 1] += penalty


def solve(product: Float64) -> tuple[Float32, Float32]:
    """Computes B (float32, m × m) and the diagonal of P (float32, m); see `EASE`.

    Args:
        product: The regularised XᵀWX (float64, m × m).
    """
    # NumPy's inversion releases the interpreter lock, unlike SciPy's, so Ctrl-C can end it.
    with blas_threads(threads_for_system(len(product))):
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
        return self._solve(data, self._config.tail_sources)

    def learn_to_compare(self, data: ReleaseData) -> EASEScorer:
        """See `ImplicitFeedbackModel.learn_to_compare`: without the tail."""
        return self._solve(data, 0)

    def is_complete(self, data: ReleaseData) -> bool:
        """See `ImplicitFeedbackModel.is_complete`."""
        return not self._config.tail_sources or data.matrix.item_count <= self._config.max_items

    def _solve(self, data: ReleaseData, tail_sources: int) -> EASEScorer:
        config, count = self._config, data.matrix.item_count
        profiles = data.matrix.all_profiles()
        items = most_liked(data.matrix, config.minimum_stars, config.max_items)
        positions = positions_of(items, count)
        # Without recency weights, which apply only to the history of the user being scored: weights
        # between items do not depend on when the items were rated.
        values = feedback_values(
            profiles.ratings,
            config.minimum_stars,
            config.indifference,
            config.fitted_dislike,
            data.dislike_limit,
        )
        # User weights depend only on the core, so that the core's weights are the same with and
        # without a tail.
        rows = history_matrix(profiles, values, len(items), positions)
        likes = (values == 1.0) & (positions[profiles.items] >= 0)
        mean_likes = np.count_nonzero(likes) / len(items)
        penalty = config.regularisation * np.sqrt(max(1.0, mean_likes))
        users = user_weights(rows, config.activity_damping)
        rows = weighted(rows, users)
        product = gram(rows)
        regularise(product, penalty, config.dropout)
        weights, precisions = solve(product)
        others = tail_items(data.matrix, items, values) if tail_sources else items[:0]
        if not len(others):
            return EASEScorer(data, config, ItemWeights(items, weights, count), precisions)
        tail_rows = history_matrix(profiles, values, len(others), positions_of(others, count))
        tail, tail_precisions = self._tail(
            others, product, penalty, precisions, rows, weighted(tail_rows, users)
        )
        return EASEScorer(
            data, config, ItemWeights(items, weights, count, tail), precisions, tail_precisions
        )

    def _tail(
        self,
        items: Int32,
        product: Float64,
        penalty: float,
        precisions: Float32,
        rows: RowMatrix,
        tail_rows: RowMatrix,
    ) -> tuple[TailWeights, Float32]:
        """Regresses the items of the tail on those of the core.

        For an item j of the tail with the weights b from its sources S, P_jj = 1 / (A_jj − g·b) and
        P_Sj = −P_jj b, where A is the matrix that P inverts and g its column of j. The weights to
        the sources follow from the symmetry of P: B_js = −P_js / P_ss = b_s P_jj / P_ss.

        Args:
            items: The items of the tail, ascending (int32, t).
            product: A of the core (float64, m × m).
            penalty: λ.
            precisions: The diagonal of P of the core (float32, m).
            rows: √W X of the core (float32, users × m).
            tail_rows: √W X of the tail (float32, users × t).

        Returns:
            The weights, and the diagonal of P of the tail (float32, t).
        """
        config = self._config
        by_item = tail_rows.T.tocsr()
        squares = np.asarray(by_item.multiply(by_item).sum(axis=1), dtype=np.float64)
        diagonal = squares / (1.0 - config.dropout) + penalty
        found = np.empty(len(items), dtype=np.float32)

        def block_weights(part: slice) -> tuple[Int32, Float64, Float64]:
            targets = (by_item[part] @ rows).toarray()
            sources, weights = regress(product, targets, config.tail_sources)
            explained = (np.take_along_axis(targets, sources, axis=1) * weights).sum(axis=1)
            precision = 1.0 / (diagonal[part] - explained)
            found[part] = precision
            return sources, weights, weights * precision[:, None] / precisions[sources]

        return tail_of(items, len(product), config.tail_sources, block_weights), found
