"""Item-based collaborative filtering, fitted: the nearest neighbours of each item."""

from __future__ import annotations

from marquee_core.arrays import Float32, Int32
from marquee_core.scorers.item_cf import ItemCFConfig, ItemCFScorer, item_residuals
from marquee_core.scorers.neighbours import CommonSums, Neighbours
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.closed_form import ClosedFormModel
from marquee_trainer.models.neighbours.neighbourhoods import every_neighbourhood


def item_neighbours(data: ReleaseData, config: ItemCFConfig) -> Neighbours:
    """The nearest items to each item, but itself.

    Args:
        data: The training ratings.
        config: How many, and how similarity is measured.
    """
    ratings = item_residuals(data)

    def similarities(owners: Int32, sums: CommonSums) -> Float32:
        found = ratings.similarities(ratings.counts[owners], sums, config)
        found[sums.rows == owners] = 0.0
        return found

    return every_neighbourhood(ratings, similarities, config.neighbours)


class ItemCF(ClosedFormModel[ItemCFConfig, ItemCFScorer]):
    """Finds each item's neighbours; see `every_neighbourhood` for what it costs."""

    name = "item_cf"
    config_type = ItemCFConfig
    scorer_type = ItemCFScorer

    def learn(self, data: ReleaseData) -> ItemCFScorer:
        """As `ClosedFormModel.learn`."""
        return ItemCFScorer(data, item_neighbours(data, self._config), self._config)
