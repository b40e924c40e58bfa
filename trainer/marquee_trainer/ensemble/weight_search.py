"""Searches weights of models directly for NDCG, from a given start.

NDCG has no gradient, and a loss over whole lists is ruled by what happens far below the top. With
a dozen models a coordinate search is quick enough, if only items are looked at that have a chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Bool, Float32, Float64, Int64


@dataclass(frozen=True)
class SearchConfig:
    """How weights are searched.

    Attributes:
        depth: k of the NDCG@k that is maximised. Deeper than the lists that are shown: more
            relevant items take part, so that there is less chance in it.
        steps: Steps of a weight, one pass after another, where the weights add up to 1.
        passes: At most so many rounds over all models with one step.
        least_gain: NDCG that a step must bring.
    """

    depth: int = 40
    steps: tuple[float, ...] = (0.4, 0.2, 0.1)
    passes: int = 3
    least_gain: float = 1e-4


@dataclass(frozen=True)
class RankingPool:
    """Of each user, the candidates that some model has among its best.

    Attributes:
        models: The models.
        scales: Deviation of each model's scores of candidates; 1 for a constant (float64, M).
        scores: Scores over their scale (float32, M × U × P).
        present: Where there is an item: users differ in how many they have (bool, U × P).
        relevant: Which are relevant (bool, U × P).
        relevant_counts: How many of the user's candidates are relevant, in the pool or not
            (int64, U), at least 1.
    """

    models: tuple[str, ...]
    scales: Float64
    scores: Float32
    present: Bool
    relevant: Bool
    relevant_counts: Int64

    @classmethod
    def of(
        cls,
        scores: Mapping[str, Float32],
        models: Sequence[str],
        candidates: Bool,
        relevant: Bool,
        depth: int,
    ) -> RankingPool:
        """Collects the best `depth` candidates of each model.

        Args:
            scores: Each model's scores (float32, U × items).
            models: The models.
            candidates: Which items qualify (bool, U × items), some for each user.
            relevant: Which of them are relevant (bool, U × items), some for each user.
            depth: How many of each model.
        """
        depth = min(depth, candidates.shape[1])
        kept = np.zeros_like(candidates)
        for name in models:
            ranked = np.where(candidates, -scores[name], np.inf)
            best = np.argpartition(ranked, depth - 1, axis=1)[:, :depth]
            np.put_along_axis(kept, best, True, axis=1)
        kept &= candidates
        width = int(kept.sum(axis=1).max())
        places = np.argsort(~kept, axis=1, kind="stable")[:, :width]
        scales = np.array([float(scores[name][candidates].std()) or 1.0 for name in models])
        return cls(
            tuple(models),
            scales,
            np.stack(
                [
                    np.take_along_axis(scores[name], places, axis=1) / np.float32(scale)
                    for name, scale in zip(models, scales, strict=True)
                ]
            ),
            np.take_along_axis(kept, places, axis=1),
            np.take_along_axis(relevant & kept, places, axis=1),
            relevant.sum(axis=1),
        )

    def blended(self, weights: Float64) -> Float32:
        """Σ w_m s_m (float32, U × P)."""
        total: Float32 = np.tensordot(weights.astype(np.float32), self.scores, axes=1)
        return total

    def ndcg(self, blended: Float32, depth: int) -> float:
        """Mean NDCG@depth with binary gain (Järvelin and Kekäläinen, 2002) of scores (U × P)."""
        depth = min(depth, blended.shape[1])
        falling = np.where(self.present, -blended, np.inf)
        top = np.argpartition(falling, depth - 1, axis=1)[:, :depth]
        order = np.argsort(np.take_along_axis(falling, top, axis=1), axis=1, kind="stable")
        hits = np.take_along_axis(self.relevant, np.take_along_axis(top, order, axis=1), axis=1)
        discounts = 1.0 / np.log2(np.arange(2, depth + 2))
        ideal = np.cumsum(discounts)[np.minimum(self.relevant_counts, depth) - 1]
        return float((hits @ discounts / ideal).mean())


def search_weights(
    pool: RankingPool, start: Float64, config: SearchConfig
) -> tuple[Float64, float]:
    """Coordinate ascent of NDCG, never below the start.

    Args:
        pool: What is ranked.
        start: Weights of the scaled scores, not negative and not all 0 (float64, M).
        config: How.

    Returns:
        Weights that add up to 1 (float64, M), and their NDCG.
    """
    weights = start / start.sum()
    blended = pool.blended(weights)
    best = pool.ndcg(blended, config.depth)
    for step in config.steps:
        for _ in range(config.passes):
            gained = False
            for model in range(len(weights)):
                for change in (step, -min(step, weights[model])):
                    if change == 0.0:
                        continue
                    trial = blended + np.float32(change) * pool.scores[model]
                    found = pool.ndcg(trial, config.depth)
                    if found > best + config.least_gain:
                        best, blended, gained = found, trial, True
                        weights[model] += change
                        break
            if not gained:
                break
    return weights / weights.sum(), best
