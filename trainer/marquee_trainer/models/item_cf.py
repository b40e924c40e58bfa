"""Item-based collaborative filtering, fitted: the nearest neighbours of each item."""

from __future__ import annotations

from marquee_services.scoring.item_cf import (
    ItemCFConfig,
    ItemCFScorer,
    item_residuals,
    nearest_items,
)
from marquee_services.scoring.neighbours import Neighbours
from marquee_services.scoring.scorer import ReleaseData
from marquee_trainer.models.direct import DirectModel


class ItemCF(DirectModel[ItemCFConfig, ItemCFScorer]):
    """Finds each item's neighbours.

    That is one sparse product an item, Σ n_u² multiplications over the users' rating counts in
    all. What is held is a row of similarities, and the K best of each item.
    """

    name = "item_cf"
    config_type = ItemCFConfig
    scorer_type = ItemCFScorer

    def learn(self, data: ReleaseData) -> ItemCFScorer:
        """As `DirectModel.learn`."""
        ratings = item_residuals(data)
        every_item = range(data.matrix.item_count)
        neighbours = Neighbours.of(
            nearest_items(ratings, item, self._config) for item in every_item
        )
        return ItemCFScorer(data, neighbours, self._config)
