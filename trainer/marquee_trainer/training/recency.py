"""Chooses the half-life of recent popularity: how fast a rating's weight decays with its age."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Int64
from marquee_core.scorers.popularity import Recency
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split


@dataclass(frozen=True)
class RecencyConfig:
    """How the half-life of recent popularity is chosen.

    Attributes:
        half_lives_days: The candidates, in days, shortest first.
        smoothing: α, added to each item's decayed number of ratings, so that no item has
            probability 0.
    """

    half_lives_days: tuple[float, ...] = (3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1000.0)
    smoothing: float = 0.1


def choose_half_life(
    dataset: RatingsDataset, inner: Split, relevant_stars: float, config: RecencyConfig
) -> float:
    """Chooses the half-life that maximises the likelihood of the relevant validation items.

    maximise mean_u mean_{i ∈ R_u} log p_i, where R_u are the relevant validation items of user u,
    p_i = (n_i + α) / Σ_j (n_j + α), and n_i = Σ 2^(−age / half-life) over the training ratings of
    item i: the exponential time decay of Ding and Li (2005). The likelihood is used instead of
    NDCG, whose variance over few users is too high.

    Args:
        dataset: The ratings.
        inner: Training and validation rows.
        relevant_stars: An item is relevant to a user who rated it with at least this many stars.
        config: The candidates and the smoothing.

    Returns:
        The half-life in days; the longest candidate if no validation item is relevant.
    """
    relevant = inner.test[dataset.ratings[inner.test] >= relevant_stars]
    users = dataset.users[relevant]
    # Every user has the same total weight.
    weights = 1.0 / np.bincount(users)[users]
    best = (-np.inf, config.half_lives_days[-1])
    for half_life in config.half_lives_days:
        counts = recency_of(dataset, inner.train, half_life).counts + config.smoothing
        log_probabilities = np.log(counts / counts.sum())[dataset.items[relevant]]
        best = max(best, (float(weights @ log_probabilities), half_life))
    return best[1]


def recency_of(dataset: RatingsDataset, rows: Int64, half_life_days: float) -> Recency:
    """Computes the recent popularity of items in the given rows of a data set.

    Args:
        dataset: The ratings.
        rows: Row indexes (int64, n).
        half_life_days: The age at which the weight of a rating is one half, in days.
    """
    return Recency.of(
        dataset.items[rows], dataset.timestamps[rows], len(dataset.catalogue), half_life_days
    )
