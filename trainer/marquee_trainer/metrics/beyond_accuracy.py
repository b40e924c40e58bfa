"""Beyond-accuracy metrics: novelty, equality of exposure, diversity, popularity-debiased NDCG."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64, Int64
from marquee_trainer.metrics.ranking_metrics import RankingMetrics, RankingTask

# An item's propensity to be rated is modelled as this power of its popularity (Steck, 2011).
_PROPENSITY_EXPONENT = 0.5


def beyond_accuracy(
    task: RankingTask, ranked: RankingMetrics, vectors: Float32, k: int
) -> dict[str, float]:
    """Computes the beyond-accuracy metrics of the users' top-k lists.

    - `novelty@k`: the mean over all recommendations of −log2 p_i, in bits, where p_i is the share
      of users who rated item i in training (self-information; Castells, Vargas and Wang, 2011).
    - `gini@k`: the Gini coefficient of how often each item is recommended, over all items; 0 if
      all items are recommended equally often.
    - `diversity@k`: the mean over users of the mean of 1 − cosine over all pairs of items in the
      list; one minus the intra-list similarity of Ziegler et al. (2005), as a mean.
    - `debiased_ndcg@k`: NDCG in which each relevant item's gain is divided by its propensity to be
      rated, n_i^0.5 for an item of n_i training ratings (Steck, 2011).

    Args:
        task: The users, candidates and relevant items.
        ranked: The metrics of the ranking, which hold the top-k lists.
        vectors: Unit item vectors (float32, items × factors).
        k: The length of the lists, used only in the metrics' names.

    Returns:
        The metrics by name; all 0 if the task has no users.
    """
    counts = task.train.item_counts
    names = ("novelty", "gini", "diversity", "debiased_ndcg")
    if not len(task.users):
        return {f"{name}@{k}": 0.0 for name in names}
    shares = np.maximum(counts, 1) / max(1, task.train.user_count)
    exposure = ranked.top_counts
    values = (
        float((exposure * -np.log2(shares)).sum() / max(1, exposure.sum())),
        gini(exposure),
        float(_diversity(ranked.top_items, vectors).mean()),
        float(_debiased_ndcg(task, ranked.top_items, counts).mean()),
    )
    return {f"{name}@{k}": value for name, value in zip(names, values, strict=True)}


def gini(amounts: Int64) -> float:
    """The Gini coefficient of non-negative amounts: 0 if all are equal, near 1 if one dominates.

    Σ_j (2j − n − 1) x_(j) / (n Σ_j x_j), where x_(j) is the j-th smallest of n amounts. This is
    half the mean absolute difference of all pairs, divided by the mean (Gini, 1912). Shani and
    Gunawardana (2011) use it for the exposure of items, with n − 1 in place of the n in the
    denominator.

    Args:
        amounts: Non-negative amounts (int64, n).

    Returns:
        The coefficient; 0 if all amounts are 0.
    """
    total = int(amounts.sum())
    if not total:
        return 0.0
    ascending = np.sort(amounts).astype(np.float64)
    ranks = np.arange(1, len(ascending) + 1)
    return float((2 * ranks - len(ascending) - 1) @ ascending / (len(ascending) * total))


def _diversity(top: Int64, vectors: Float32) -> Float64:
    """The mean of 1 − cosine over the pairs of each list (float64, users); 0 without a pair."""
    present = (top >= 0).astype(np.float64)
    sums = (vectors[np.maximum(top, 0)] * present[:, :, None]).sum(axis=1, dtype=np.float64)
    squares = (np.square(vectors[np.maximum(top, 0)]).sum(axis=2) * present).sum(axis=1)
    length = present.sum(axis=1)
    pairs = length * (length - 1)
    # |Σ v|² − Σ |v|² is the sum of the cosines of all ordered pairs.
    cosines = np.square(sums).sum(axis=1) - squares
    diversity: Float64 = np.where(pairs > 0, 1.0 - cosines / np.maximum(pairs, 1), 0.0)
    return diversity


def _debiased_ndcg(task: RankingTask, top: Int64, counts: Int64) -> Float64:
    """NDCG of each user, with a gain of 1 / propensity for relevant items (float64, users)."""
    gains = np.maximum(counts, 1) ** -_PROPENSITY_EXPONENT
    width = task.train.item_count
    relevant = task.relevant_users * width + task.relevant_items
    cells = np.arange(len(top))[:, None] * width + top
    hits = np.isin(cells, relevant) & (top >= 0)
    k = top.shape[1]
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    dcg = (hits * gains[np.maximum(top, 0)]) @ discounts
    # The ideal list holds the user's relevant items in descending order of gain.
    relevant_gains = gains[task.relevant_items]
    order = np.lexsort((-relevant_gains, task.relevant_users))
    users = task.relevant_users[order]
    ranks = np.arange(len(users)) - np.searchsorted(users, users)
    within = ranks < k
    ideal = np.bincount(
        users[within],
        relevant_gains[order][within] * discounts[ranks[within]],
        minlength=len(top),
    )
    ndcg: Float64 = dcg / ideal
    return ndcg
