"""Fits SLIT: weights from rated items to later ones, in closed form."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.scorers.item_weights import ItemWeights
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.slit import SLITConfig, SLITScorer
from marquee_core.scorers.tail_weights import TailWeights
from marquee_trainer.models.linear.implicit_feedback import (
    DISLIKE_WEIGHTS,
    ImplicitFeedbackModel,
    most_liked,
    tail_items,
)
from marquee_trainer.models.linear.tail import TAIL_BLOCK, regress, tail_of
from marquee_trainer.models.linear.transitions import transitions, transitions_to
from marquee_trainer.threads import blas_threads, threads_for_system

# Number of products of the core with part of the tail in memory at a time: 256 MB.
_TAIL_CELLS = 1 << 26


class SLIT(ImplicitFeedbackModel[SLITConfig, SLITScorer]):
    """Solves a ridge regression of users' later likes on their earlier ratings.

    B = (SᵀS + λI)⁻¹ SᵀT. Each row of S and T belongs to a moment of a user: S holds the items rated
    by then and T the items liked afterwards, both weighted by distance from that moment (SLIT;
    Choi, Kim, Lee, Shim and Lee, 2021). Unlike in the paper, the weights follow power laws, and λ
    is relative to SᵀS.
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
        return self._solve(data, self._config.tail_sources)

    def learn_to_compare(self, data: ReleaseData) -> SLITScorer:
        """See `ImplicitFeedbackModel.learn_to_compare`: without the tail."""
        return self._solve(data, 0)

    def is_complete(self, data: ReleaseData) -> bool:
        """See `ImplicitFeedbackModel.is_complete`."""
        return not self._config.tail_sources or data.matrix.item_count <= self._config.max_items

    def _solve(self, data: ReleaseData, tail_sources: int) -> SLITScorer:
        config, matrix = self._config, data.matrix
        items = most_liked(matrix, config.minimum_stars, config.max_items)
        gram, next_liked = transitions(matrix, items, config, data.dislike_limit)
        # If no user has two moments, both matrices are 0; any positive penalty then gives 0.
        penalty = config.regularisation * float(gram.diagonal().mean()) or 1.0
        gram.flat[:: len(gram) + 1] += penalty
        # NumPy's solver releases the interpreter lock, unlike SciPy's, so Ctrl-C can end it.
        with blas_threads(threads_for_system(len(gram))):
            weights = np.linalg.solve(gram.astype(np.float64), next_liked.astype(np.float64))
        tail = None
        if tail_sources:
            tail = self._tail(data, items, gram)
        dense = weights.astype(np.float32, order="C")
        return SLITScorer(data, config, ItemWeights(items, dense, matrix.item_count, tail))

    def _tail(self, data: ReleaseData, core: Int32, system: Float32) -> TailWeights:
        """Regresses the likes of items of the tail on earlier ratings of items of the core.

        Args:
            data: The training ratings.
            core: The items of the core (int32, m).
            system: SᵀS + λI of the core (float32, m × m).
        """
        config, matrix = self._config, data.matrix
        likes = matrix.ratings >= config.minimum_stars
        likes &= matrix.ratings > data.dislike_limit
        items = tail_items(matrix, core, likes.astype(np.float32))
        size = max(1, _TAIL_CELLS // len(core) // TAIL_BLOCK) * TAIL_BLOCK
        held = slice(0, 0)
        targets = np.empty((0, len(core)), dtype=np.float32)

        def block_weights(part: slice) -> tuple[Int32, Float64, Float64]:
            nonlocal held, targets
            if part.start >= held.stop:
                held = slice(part.start, part.start + size)
                found = transitions_to(matrix, core, items[held], config, data.dislike_limit)
                targets = np.ascontiguousarray(found.T)
            own = targets[part.start - held.start : part.stop - held.start]
            sources, weights = regress(system, own, config.tail_sources)
            return sources, weights, np.zeros_like(weights)

        return tail_of(items, len(core), config.tail_sources, block_weights)
