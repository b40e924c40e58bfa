"""Searches for the model weights that maximise NDCG, by coordinate ascent from a given start.

Coordinate ascent on a ranking metric follows Metzler and Croft (2007). NDCG has no useful gradient,
and a differentiable loss over whole lists is dominated by items far below the top. With a dozen
models the search is fast enough, because it evaluates only items that can reach the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Bool, Float32, Float64, Int64

SIGNIFICANT = 1.645
"""The 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class SearchConfig:
    """How weights are searched.

    Attributes:
        depth: k of the NDCG@k that is maximised. It exceeds the length of the lists shown to users,
            so that more relevant items count and the estimate is less noisy.
        steps: Step sizes by which weights are raised or lowered, in the order in which they are
            tried; the initial weights add up to 1.
        max_passes: Maximum number of passes over all models with one step size.
        min_gain: A step is taken only if it raises NDCG by more than this.
        max_pruning_loss: Models are pruned from the blend as long as NDCG falls by at most this
            share, and not significantly.
    """

    depth: int = 40
    steps: tuple[float, ...] = (0.4, 0.2, 0.1)
    max_passes: int = 3
    min_gain: float = 1e-4
    max_pruning_loss: float = 0.002


@dataclass(frozen=True)
class RankingPool:
    """For each user, the candidates that at least one model ranks among its best.

    M is the number of models, U that of users, and P the size of the largest pool; smaller pools
    are padded.

    Attributes:
        models: The models' names.
        scales: Standard deviation of each model's scores of candidates; 1 if the scores are
            constant (float64, M).
        scores: The models' scores divided by their scale (float32, M × U × P).
        present: False for padding (bool, U × P).
        relevant: True for relevant items (bool, U × P).
        relevant_counts: Number of relevant candidates of each user, inside or outside the pool,
            at least 1 (int64, U).
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
        scales: Sequence[float] | None = None,
    ) -> RankingPool:
        """Collects the `depth` best candidates of each model.

        Args:
            scores: By model, its scores of all items (float32, U × items).
            models: Names of the models to include.
            candidates: True for candidate items, at least one per user (bool, U × items).
            relevant: True for relevant candidates, at least one per user (bool, U × items).
            depth: Number of candidates to take from each model.
            scales: The scale of each model, if `scores` are a sample; None to compute them.
        """
        depth = min(depth, candidates.shape[1])
        in_pool = np.zeros_like(candidates)
        for name in models:
            negated = np.where(candidates, -scores[name], np.inf)
            best = np.argpartition(negated, depth - 1, axis=1)[:, :depth]
            np.put_along_axis(in_pool, best, True, axis=1)
        in_pool &= candidates
        width = int(in_pool.sum(axis=1).max())
        pool_items = np.argsort(~in_pool, axis=1, kind="stable")[:, :width]
        if scales is None:
            scales = [float(scores[name][candidates].std()) or 1.0 for name in models]
        return cls(
            tuple(models),
            np.array(scales),
            np.stack(
                [
                    np.take_along_axis(scores[name], pool_items, axis=1) / np.float32(scale)
                    for name, scale in zip(models, scales, strict=True)
                ]
            ),
            np.take_along_axis(in_pool, pool_items, axis=1),
            np.take_along_axis(relevant & in_pool, pool_items, axis=1),
            relevant.sum(axis=1),
        )

    def blended(self, weights: Float64) -> Float32:
        """The weighted sum of scaled scores, Σ w_m s_m (float32, U × P).

        Args:
            weights: A weight for each model (float64, M).
        """
        total: Float32 = np.tensordot(weights.astype(np.float32), self.scores, axes=1)
        return total

    def ndcg(self, blended: Float32, depth: int) -> float:
        """Mean NDCG@depth over users; see `user_ndcg`."""
        return float(self.user_ndcg(blended, depth).mean())

    def user_ndcg(self, blended: Float32, depth: int) -> Float64:
        """NDCG@depth of each user, defined as in `RankingMetrics.ndcg` (float64, U).

        Args:
            blended: Scores to rank by (float32, U × P).
            depth: The length of the ranked lists.
        """
        depth = min(depth, blended.shape[1])
        negated = np.where(self.present, -blended, np.inf)
        top = np.argpartition(negated, depth - 1, axis=1)[:, :depth]
        order = np.argsort(np.take_along_axis(negated, top, axis=1), axis=1, kind="stable")
        hits = np.take_along_axis(self.relevant, np.take_along_axis(top, order, axis=1), axis=1)
        discounts = 1.0 / np.log2(np.arange(2, depth + 2))
        ideal = np.cumsum(discounts)[np.minimum(self.relevant_counts, depth) - 1]
        gains: Float64 = hits @ discounts / ideal
        return gains


def search_weights(
    pool: RankingPool, start: Float64, config: SearchConfig
) -> tuple[Float64, float]:
    """Maximises NDCG by coordinate ascent: changes one weight at a time while NDCG increases.

    Args:
        pool: The candidates to rank.
        start: Initial weights of the scaled scores, non-negative and not all 0 (float64, M).
        config: Step sizes and stopping rules.

    Returns:
        Non-negative weights that add up to 1 (float64, M), and their NDCG, which is at least that
        of the initial weights.
    """
    weights = start / start.sum()
    blended = pool.blended(weights)
    best = pool.ndcg(blended, config.depth)
    for step in config.steps:
        for _ in range(config.max_passes):
            improved = False
            for model in range(len(weights)):
                for change in (step, -min(step, weights[model])):
                    if change == 0.0:
                        continue
                    trial = blended + np.float32(change) * pool.scores[model]
                    ndcg = pool.ndcg(trial, config.depth)
                    if ndcg > best + config.min_gain:
                        best, blended, improved = ndcg, trial, True
                        weights[model] += change
                        break
            if not improved:
                break
    return weights / weights.sum(), best


def prune_weights(pool: RankingPool, weights: Float64, config: SearchConfig) -> Float64:
    """Sets the weights of models that do not measurably improve the blend to 0.

    Every model in the ranking blend scores the whole catalogue for each answer, so a model that
    does not measurably improve rankings only costs time. Models are tried in the order of their
    weights, the smallest first. A model is left out if the mean NDCG is lower than that of the
    blend of all models by at most the share `max_pruning_loss`, and a one-sided paired test over
    the users finds no loss at the 5 % level.

    Args:
        pool: The candidates to rank.
        weights: Non-negative weights of the scaled scores that add up to 1 (float64, M).
        config: The depth, and the largest loss of NDCG.

    Returns:
        Weights that add up to 1; at least one is positive (float64, M).
    """
    whole = pool.user_ndcg(pool.blended(weights), config.depth)
    pruned = weights
    for model in np.argsort(weights, kind="stable").tolist():
        if not 0 < pruned[model] < 1:
            continue
        trial = pruned.copy()
        trial[model] = 0.0
        trial /= trial.sum()
        losses = whole - pool.user_ndcg(pool.blended(trial), config.depth)
        error = float(losses.std()) / np.sqrt(len(losses))
        limit = min(SIGNIFICANT * error, config.max_pruning_loss * float(whole.mean()))
        if losses.mean() <= limit:
            pruned = trial
    return pruned
