"""Fits iALS by alternating least squares."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_core.scorers.ials import IALSConfig, IALSScorer, preference_values, solve_rows
from marquee_core.scorers.item_weights import history_matrix
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.linear.implicit_feedback import ImplicitFeedbackModel

# The seed of the initial factors. It is fixed because the solution hardly depends on it.
_SEED = 0
_INITIAL_DEVIATION = 0.1


class IALS(ImplicitFeedbackModel[IALSConfig, IALSScorer]):
    """Solves alternately for the users' factors given the items' and vice versa.

    minimise Σ_{liked} (1 − x·y)² + d Σ_{disliked} (−1 − x·y)² + α Σ_{u,i} (x·y)² +
    λ (Σ_u (n_u + α I) |x_u|² + Σ_i (n_i + α U) |y_i|²), where n counts a like as 1 and a dislike as
    d (Rendle, Krichene, Zhang and Koren, 2022, equation 2 with ν = 1, which has no dislikes).
    """

    name = "ials"
    config_type = IALSConfig
    alternatives = (
        ({"minimum_stars": 3.0}, {"minimum_stars": 4.0}),
        ({"dislike_weight": 0.1}, {"dislike_weight": 0.25}),
        ({"fitted_dislike_weight": 0.0}, {"fitted_dislike_weight": 0.1}),
    )
    multipliers = (("unobserved_weight", (0.4, 2.5)), ("regularisation", (0.5, 2.0)))

    def learn(self, data: ReleaseData) -> IALSScorer:
        """See `OnePassModel.learn`."""
        config, matrix = self._config, data.matrix
        values = preference_values(
            matrix.ratings, config, config.fitted_dislike_weight, data.dislike_limit
        )
        by_user = history_matrix(matrix.all_profiles(), values, matrix.item_count)
        by_item = by_user.T.tocsr()
        random = np.random.default_rng(_SEED)
        shape = (matrix.item_count, config.factors)
        deviation = _INITIAL_DEVIATION / np.sqrt(config.factors)
        items: Float32 = random.normal(0.0, deviation, shape).astype(np.float32)
        for _ in range(config.sweeps):
            users = solve_rows(by_user, items, _gram(items), config)
            items = solve_rows(by_item, users, _gram(users), config)
        return IALSScorer(data, config, items)


def _gram(factors: Float32) -> Float64:
    """Computes YᵀY of factors Y, in double precision (float64, k × k)."""
    wide = factors.astype(np.float64)
    product: Float64 = wide.T @ wide
    return product
