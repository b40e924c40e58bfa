"""Fits SLIT: weights from rated items to the next items, in closed form."""

from __future__ import annotations

import numpy as np

from marquee_core.scorers.item_weights import ItemWeights
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.slit import SLITConfig, SLITScorer
from marquee_trainer.models.linear.implicit_feedback import (
    DISLIKE_WEIGHTS,
    ImplicitFeedbackModel,
    most_liked,
)
from marquee_trainer.models.linear.transitions import transitions
from marquee_trainer.threads import blas_threads, threads_of_system


class SLIT(ImplicitFeedbackModel[SLITConfig, SLITScorer]):
    """Solves a ridge regression of what users like next on what they rated before.

    B = (SᵀS + λI)⁻¹ SᵀT. Each row of S and T belongs to a moment of a user: S holds what the user
    had rated by then and T what the user liked afterwards, both weighted by distance from that
    moment (SLIT; Choi, Kim, Lee, Shim and Lee, 2021). Unlike the paper, the weights follow power
    laws, and λ is relative to SᵀS.
    """

    name = "slit"
    config_type = SLITConfig
    alternatives = (
        ({"minimum_stars": 3.0}, {"minimum_stars": 4.0}),
        ({"fitted_dislike": 0.3}, {"fitted_dislike": 0.0}, {"fitted_dislike": -0.25}),
        DISLIKE_WEIGHTS,
        ({"target_decay": 0.0}, {"target_decay": 0.5}),
        ({"history_decay": 0.25}, {"history_decay": 0.5}, {"history_decay": 0.75}),
    )
    multipliers = (("regularisation", (0.25, 4.0)),)

    def learn(self, data: ReleaseData) -> SLITScorer:
        """See `OnePassModel.learn`."""
        config, matrix = self._config, data.matrix
        items = most_liked(matrix, config.minimum_stars, config.max_items)
        gram, next_liked = transitions(matrix, items, config, data.dislike_limit)
        # If no user has two moments, both matrices are 0; any positive penalty then gives 0.
        penalty = config.regularisation * float(gram.diagonal().mean()) or 1.0
        gram.flat[:: len(gram) + 1] += penalty
        # Unlike SciPy's, NumPy's solver releases the interpreter lock, so Ctrl-C can end it.
        with blas_threads(threads_of_system(len(gram))):
            weights = np.linalg.solve(gram.astype(np.float64), next_liked.astype(np.float64))
        return SLITScorer(
            data,
            config,
            ItemWeights(items, weights.astype(np.float32, order="C"), matrix.item_count),
        )
