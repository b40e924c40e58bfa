"""What the gateway asks a backend for, and the best items that it gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from marquee_core.arrays import Bool, Float32, Int32

ModelWeights: TypeAlias = tuple[tuple[str, float], ...]
"""Models in a blend, with their weights."""

MAX_TOP_MODELS = 31
"""The most models that rank with a `top_count`: each has a bit of an int32, not its sign."""


@dataclass(frozen=True)
class Query:
    """One user of a request.

    Attributes:
        user: The user's index; -1 for a visitor.
        items: Items rated in the request, in order of time, the oldest first (int32).
        ratings: The ratings of these items in stars (float32).
        candidates: The items to score (int32); None for the whole catalogue.
        eligible: The items that may be among a model's own best in a ranking of the whole
            catalogue (bool, items); None for all.
        new_only: Whether items without training ratings, and those that the user has rated, are
            left out of `eligible`.
    """

    user: int
    items: Int32
    ratings: Float32
    candidates: Int32 | None
    eligible: Bool | None = None
    new_only: bool = False


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
        top_count: How many of each user's best items to return, in place of the sums of all items
            and of each model's own best; 0 to return the latter.
    """

    weights: ModelWeights
    best_count: int
    gateway_weights: ModelWeights = ()
    stars_models: tuple[str, ...] = ()
    stars_count: int = 0
    top_count: int = 0


@dataclass(frozen=True)
class BestItems:
    """A user's best items with their scores by some models.

    Attributes:
        items: The item indexes, best first (int32, n).
        scores: The scores of each model, by its name (float32, n).
    """

    items: Int32
    scores: Mapping[str, Float32]


@dataclass(frozen=True)
class TopItems:
    """A user's best items by the whole ranking.

    Attributes:
        items: The item indexes, best first (int32, n).
        scores: The weighted sum of the models' scores of each (float32, n).
        proposers: The models that have the item among their own best: bit m is set for the plan's
            model m (int32, n).
        bias: The user's bias in the baseline, in stars.
    """

    items: Int32
    scores: Float32
    proposers: Int32
    bias: float
