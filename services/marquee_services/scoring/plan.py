"""How a backend ranks: what the gateway asks for, and the best items that it gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from marquee_core.arrays import Float32, Int32

ModelWeights: TypeAlias = tuple[tuple[str, float], ...]
"""Models in a blend, with their weights."""


@dataclass(frozen=True)
class RankingPlan:
    """How users are ranked; users of equal plans are ranked in one batch.

    Attributes:
        weights: The models that rank, and their weights in the sum.
        best_count: The maximum number of own best items of each model.
        gateway_weights: The gateway's own models in the ranking, and their weights. They are not
            part of the sum, but help to decide which items are a user's best.
        stars_models: The models that score each user's best items as well.
        stars_count: How many of the best items they score.
    """

    weights: ModelWeights
    best_count: int
    gateway_weights: ModelWeights = ()
    stars_models: tuple[str, ...] = ()
    stars_count: int = 0


@dataclass(frozen=True)
class BestItems:
    """A user's best items with their scores by some models.

    Attributes:
        items: The item indexes, best first (int32, n).
        scores: The scores of each model, by its name (float32, n).
    """

    items: Int32
    scores: Mapping[str, Float32]
