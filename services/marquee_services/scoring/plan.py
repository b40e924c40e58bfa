"""Queries and plans that the gateway sends to a backend, and the best items in its response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from marquee_core.arrays import Bool, Float32, Int32

ModelWeights: TypeAlias = tuple[tuple[str, float], ...]
"""Models in a blend, with their weights."""

MAX_TOP_MODELS = 31
"""The most models that rank with a `top_count`: each has a bit of an int32 without its sign."""


@dataclass(frozen=True)
class Query:
    """One user of a request.

    Attributes:
        user: The user's index; -1 for a visitor.
        items: Items rated in the request, ordered by time, oldest first (int32).
        ratings: The ratings of these items in stars (float32).
        candidates: The items to score (int32); None for the whole catalogue.
        eligible: Whether each item may be among a model's own best items in a ranking of the whole
            catalogue (bool, items); None to allow all.
        new_only: Whether to exclude items without training ratings, and those that the user has
            rated.
    """

    user: int
    items: Int32
    ratings: Float32
    candidates: Int32 | None
    eligible: Bool | None = None
    new_only: bool = False


@dataclass(frozen=True)
class RankingPlan:
    """A plan for ranking users; users with equal plans are ranked in one batch.

    Attributes:
        weights: The models that rank, and their weights in the sum.
        best_count: The maximum number of each model's own best items.
        gateway_weights: The gateway's own models in the ranking, and their weights. They determine
            a user's best items too, but are not included in the returned sums.
        stars_models: The models that also score each user's best items.
        stars_count: The number of best items that these models score.
        top_count: The number of each user's best items to return, instead of the sums of all items
            and each model's own best items; 0 to return the latter.
        retrieve_count: The number of items that each model retrieves from a large catalogue, of
            which only these candidates are ranked; 0 to rank every item. Requires a `top_count`.
    """

    weights: ModelWeights
    best_count: int
    gateway_weights: ModelWeights = ()
    stars_models: tuple[str, ...] = ()
    stars_count: int = 0
    top_count: int = 0
    retrieve_count: int = 0


@dataclass(frozen=True)
class BestItems:
    """A user's best items with their scores by some models.

    Attributes:
        items: The item indexes, the best first (int32, n).
        scores: The scores of each model, by the model's name (float32, n).
    """

    items: Int32
    scores: Mapping[str, Float32]


@dataclass(frozen=True)
class TopItems:
    """A user's best items by the whole ranking.

    Attributes:
        items: The item indexes, the best first (int32, n).
        scores: The weighted sum of the models' scores of each item (float32, n).
        proposers: The models that have the item among their own best items: bit m is set for model
            m of the plan (int32, n).
        bias: The user's bias in the baseline, in stars.
    """

    items: Int32
    scores: Float32
    proposers: Int32
    bias: float
