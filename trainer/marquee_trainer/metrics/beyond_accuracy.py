"""What a list is worth beyond its hits: novelty, fairness of exposure, diversity, rare hits."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64, Int64
from marquee_trainer.metrics.ranking_metrics import RankingMetrics, RankingTask

# The propensity of an item to be rated grows with its popularity to about this power
# (Steck, 2011).
_PROPENSITY = 0.5


def beyond_accuracy(
    task: RankingTask, ranked: RankingMetrics, vectors: Float32, k: int
) -> dict[str, float]:
    """The metrics of a ranking's top k, by name; 0 when nobody was ranked for.

    `novelty@k` is the mean of −log2 of the share of users who rated an item in training, in bits
    (Castells, Vargas and Wang, 2011). `gini@k` is the Gini coefficient of how often items are
    shown, over all items: 0 when all are shown alike. `diversity@k` is the mean over users of
    1 − cosine over the pairs of items shown (Ziegler et al., 2005). `debiased_ndcg@k` is NDCG with
    each relevant item's gain divided by its propensity to be rated (Steck, 2011).

    Args:
        task: What was ranked.
        ranked: The ranking.
        vectors: Unit vectors of items (float32, items × d).
        k: The length of the list.
    """
    counts = task.train.item_counts
    names = ("novelty", "gini", "diversity", "debiased_ndcg")
    if not len(task.users):
        return {f"{name}@{k}": 0.0 for name in names}
    shares = np.maximum(counts, 1) / max(1, task.train.user_count)
    shown = ranked.top_counts
    values = (
        float((shown * -np.log2(shares)).sum() / max(1, shown.sum())),
        gini(shown),
        float(_diversity(ranked.top_items, vectors).mean()),
        float(_debiased_ndcg(task, ranked.top_items, counts).mean()),
    )
    return {f"{name}@{k}": value for name, value in zip(names, values, strict=True)}


def gini(amounts: Int64) -> float:
    """The Gini coefficient: half the mean absolute difference over the mean; 0 without any."""
    total = int(amounts.sum())
    if not total:
        return 0.0
    ordered = np.sort(amounts).astype(np.float64)
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * total))


def _diversity(top: Int64, vectors: Float32) -> Float64:
    """Of each list, the mean of 1 − cosine over its pairs (float64, users); 0 without a pair."""
    there = (top >= 0).astype(np.float64)
    sums = (vectors[np.maximum(top, 0)] * there[:, :, None]).sum(axis=1, dtype=np.float64)
    squares = (np.square(vectors[np.maximum(top, 0)]).sum(axis=2) * there).sum(axis=1)
    length = there.sum(axis=1)
    pairs = length * (length - 1)
    similar = np.square(sums).sum(axis=1) - squares
    diversity: Float64 = np.where(pairs > 0, 1.0 - similar / np.maximum(pairs, 1), 0.0)
    return diversity


def _debiased_ndcg(task: RankingTask, top: Int64, counts: Int64) -> Float64:
    """NDCG of each user with gains 1 / propensity (float64, users)."""
    gains = np.maximum(counts, 1) ** -_PROPENSITY
    width = task.train.item_count
    relevant = task.relevant_users * width + task.relevant_items
    cells = np.arange(len(top))[:, None] * width + top
    hits = np.isin(cells, relevant) & (top >= 0)
    k = top.shape[1]
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    found = (hits * gains[np.maximum(top, 0)]) @ discounts
    # The ideal list holds a user's relevant items by falling gain.
    own = gains[task.relevant_items]
    order = np.lexsort((-own, task.relevant_users))
    users = task.relevant_users[order]
    places = np.arange(len(users)) - np.searchsorted(users, users)
    within = places < k
    ideal = np.bincount(
        users[within], own[order][within] * discounts[places[within]], minlength=len(top)
    )
    ndcg: Float64 = found / ideal
    return ndcg
