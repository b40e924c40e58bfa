"""Thresholds of the promotion gate; light to import, because the commands' help needs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GateConfig:
    """Thresholds of the gate.

    Attributes:
        min_users: Smallest number of users for a comparison on held-out ratings.
        confidence: Confidence of the intervals, 0 to 1.
        refused_loss: The loss from which on a significantly worse release is refused, as a share of
            production's metric, 0 to 1.
        asked_loss: The loss, significant or not, from which on the gate asks for approval, 0 to 1.
        metrics_loss: The loss of the manifest's metrics from which on a release is refused, if
            users cannot be compared.
        min_spread: Lowest standard deviation of predicted stars, as a share of the rating scale.
        max_clipped: Largest share of predictions at an end of the scale or beyond.
        max_bias: Largest difference between mean prediction and mean rating, as a share of the
            scale.
        kept_ndcg: The smallest NDCG of the served models, as a share of the evaluated NDCG.
        grown_rmse: The largest RMSE of the served models, as a multiple of the evaluated RMSE.
        min_items: Smallest number of distinct items in the lists of all users.
        min_catalogue: Smallest share of the catalogue in these lists.
        min_slots: Number of distinct items, as a share of the entries of these lists, that is
            always sufficient.
        coverage_loss: The largest loss of production's coverage that needs no approval, 0 to 1.
        min_overlap: Smallest expected overlap with production's lists, 0 to 1.
        max_drift: Largest population stability index of the ratings' distribution.
        asked_drop: The largest loss of ratings, users or items that needs no approval, 0 to 1.
        refused_drop: The loss of ratings, users or items from which on a release is refused, 0 to
            1.
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
