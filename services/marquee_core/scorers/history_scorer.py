"""Scores items from users' histories with a matrix of weights between items."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.ratings import Profiles
from marquee_core.scorers.item_weights import (
    ItemWeights,
    ItemWeightsConfig,
    history_values,
    prior_weights,
)
from marquee_core.scorers.scorer import RatedEvidence, ReleaseData


@dataclass(frozen=True, eq=False)
class HistoryScorer:
    """Scores (x + w x̄)·B, where x is a user's history and x̄ the mean history of training users.

    The prior w x̄ substitutes for likes in a history that consists mostly of dislikes. Without it,
    the items least related to the dislikes would score highest, and those are obscure items. See
    `prior_weights` for w.

    Attributes:
        weights: B, between m items.
        config: The hyperparameters by which ratings are converted to histories.
        dislike_limit: See `ReleaseData.dislike_limit`.
        prior: x̄, each core item's share of the positive values of all training users (float32,
            m).
    """

    weights: ItemWeights
    config: ItemWeightsConfig
    dislike_limit: float
    prior: Float32

    @classmethod
    def of(cls, weights: ItemWeights, config: ItemWeightsConfig, data: ReleaseData) -> Self:
        """Creates a scorer, and computes the mean history of the training users."""
        profiles = data.matrix.all_profiles()
        values = history_values(profiles, config, data.dislike_limit)
        liked = np.bincount(profiles.items, np.maximum(values, 0.0), minlength=weights.item_count)
        shares = liked[weights.items] / (liked.sum() or 1.0)
        return cls(weights, config, data.dislike_limit, shares.astype(np.float32))

    @cached_property
    def prior_scores(self) -> Float32:
        """x̄·B (float32, items)."""
        weights = self.weights
        scores = np.zeros(weights.item_count, dtype=np.float32)
        scores[weights.items] = self.prior @ weights.weights
        if weights.tail is not None and len(weights.tail):
            scores[weights.tail.items] = self.prior @ weights.tail.from_core
        return scores

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Scores items for each of B users (float32, B × C); see `Scorer.score`."""
        values = history_values(profiles, self.config, self.dislike_limit)
        scores = self.weights.apply(profiles, values, items)
        shares = prior_weights(profiles, values)
        if shares.any():
            prior = self.prior_scores if items is None else self.prior_scores[items]
            scores += shares[:, None] * prior
        return scores

    def evidence(
        self, profile: Profiles, item: int, similarities: Float32 | None, count: int
    ) -> RatedEvidence:
        """Returns the contributions x_j B_ji of a user's rated items j to the score of item i.

        Args:
            profile: The profile of the user.
            item: i, the index of the item.
            similarities: The similarity of i to each item (float32, items), or None.
            count: The maximum number of rated items to return.
        """
        values = history_values(profile, self.config, self.dislike_limit)
        weights = self.weights.from_items(profile.items, item)
        known = np.flatnonzero(weights)
        items = profile.items[known]
        share = float(prior_weights(profile, values)[0])
        return RatedEvidence.largest(
            items,
            None if similarities is None else similarities[items],
            values[known] * weights[known],
            share * float(self.prior_scores[item]),
            count,
        )
