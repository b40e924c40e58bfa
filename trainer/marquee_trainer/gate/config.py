"""Thresholds of the promotion gate; light to import, because the commands' help needs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GateConfig:
    """Thresholds of the gate.

    Attributes:
        min_users: Fewest users whose held-out ratings can be compared.
        confidence: Confidence of the intervals, 0 to 1.
        refused_loss: The share of production's figure by which a significantly worse release must
            be worse to be refused, 0 to 1.
        asked_loss: The share by which a release may look worse without significance, 0 to 1.
        metrics_loss: The share by which its metrics may be worse if users cannot be compared.
        min_spread: Lowest standard deviation of predicted stars, as a share of the rating scale.
        max_clipped: Largest share of predictions at an end of the scale or beyond.
        max_bias: Largest difference between mean prediction and mean rating, as a share of the
            scale.
        kept_ndcg: What must be left of the evaluated NDCG when the served models rank.
        grown_rmse: How many times the evaluated RMSE the served models' may be.
        min_items: Fewest items in the lists of all users together.
        min_catalogue: Smallest share of the catalogue in these lists.
        min_slots: Items in these lists, as a share of the places on them, that are always enough.
        coverage_loss: The share of production's coverage that may be lost without a question.
        min_overlap: Smallest share of production's lists that is expected to stay.
        max_drift: Largest population stability index of the ratings' distribution.
        asked_drop: The share of ratings, users or items that may be lost without a question.
        refused_drop: The share that must not be lost.
    """

    min_users: int = 30
    confidence: float = 0.95
    refused_loss: float = 0.01
    asked_loss: float = 0.05
    metrics_loss: float = 0.1
    min_spread: float = 0.02
    max_clipped: float = 0.5
    max_bias: float = 0.15
    kept_ndcg: float = 0.7
    grown_rmse: float = 1.15
    min_items: int = 15
    min_catalogue: float = 0.002
    min_slots: float = 0.05
    coverage_loss: float = 0.5
    min_overlap: float = 0.1
    max_drift: float = 0.25
    asked_drop: float = 0.2
    refused_drop: float = 0.5
