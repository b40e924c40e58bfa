"""Fits item-based collaborative filtering: finds the nearest neighbours of each item."""

from __future__ import annotations

from marquee_core.arrays import Float32, Int32
from marquee_core.scorers.item_cf import ItemCFConfig, ItemCFScorer, item_residuals
from marquee_core.scorers.neighbours import CommonSums, CoRatings, Neighbours
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.cf_model import OnePassModel
from marquee_trainer.models.neighbours.interaction_cut import InteractionCut, cut_columns
from marquee_trainer.models.neighbours.neighbourhoods import all_neighbours


def item_neighbours(data: ReleaseData, config: ItemCFConfig) -> Neighbours:
    """Finds the nearest neighbours of each item; an item is not a neighbour of itself.

    On large data, similarities are computed from a sample of each user's ratings; see
    `InteractionCut`.

    Args:
        data: The training ratings and their baseline.
        config: The configuration with K and the parameters of the similarity.
    """
    residuals = item_residuals(data)
    cut = InteractionCut.of(data.matrix)
    if cut is not None:
        residuals = cut_columns(residuals, cut.most_per_user)
    ratings = CoRatings.of_columns(residuals)

    def similarities(owners: Int32, sums: CommonSums) -> Float32:
        values = ratings.similarities(ratings.counts[owners], sums, config)
        values[sums.rows == owners] = 0.0
        return values

    return all_neighbours(ratings, similarities, config.neighbours, symmetric=True)


class ItemCF(OnePassModel[ItemCFConfig, ItemCFScorer]):
    """Finds the neighbours of each item; for the cost, see `all_neighbours`."""

    name = "item_cf"
    config_type = ItemCFConfig

    def learn(self, data: ReleaseData) -> ItemCFScorer:
        """See `OnePassModel.learn`."""
        return ItemCFScorer(data, item_neighbours(data, self._config), self._config)
