"""Chooses for how long ratings count when popularity is that of late."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Int64
from marquee_core.scorers.popularity import Recency
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split


@dataclass(frozen=True)
class RecencyConfig:
    """Half-lives to choose from.

    Attributes:
        half_lives_days: In days.
        smoothing: Ratings that each item has beside its own, of all ages.
    """

    half_lives_days: tuple[float, ...] = (3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1000.0)
    smoothing: float = 0.1


def choose_half_life(
    dataset: RatingsDataset, inner: Split, relevant_stars: float, config: RecencyConfig
) -> float:
    """The half-life under which the items that were liked next are the most likely, in days.

    maximise mean_u mean_{i ∈ R_u} log p_i, where R_u are a user's relevant validation items and
    p_i ∝ n_i + α of the decayed counts n. A likelihood, because NDCG of few users jumps about.

    Args:
        dataset: The ratings.
        inner: Training and validation part.
        relevant_stars: An item is relevant to a user who rated it at least so.
        config: What there is to choose from.
    """
    liked = inner.test[dataset.ratings[inner.test] >= relevant_stars]
    users = dataset.users[liked]
    # Each user counts as one.
    shares = 1.0 / np.bincount(users)[users]
    best = (-np.inf, config.half_lives_days[-1])
    for half_life in config.half_lives_days:
        counts = recency_of(dataset, inner.train, half_life).counts + config.smoothing
        logs = np.log(counts / counts.sum())[dataset.items[liked]]
        best = max(best, (float(shares @ logs), half_life))
    return best[1]


def recency_of(dataset: RatingsDataset, rows: Int64, half_life_days: float) -> Recency:
    """What some rows of a data set tell of late."""
    return Recency.of(
        dataset.items[rows], dataset.timestamps[rows], len(dataset.catalogue), half_life_days
    )
