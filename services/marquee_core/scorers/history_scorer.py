"""Scores items from users' histories with a matrix of weights between items."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.ratings import Profiles
from marquee_core.scorers.fold_in_cache import FoldInCache
from marquee_core.scorers.item_weights import (
    ItemWeights,
    ItemWeightsConfig,
    history_values,
    prior_weights,
)
from marquee_core.scorers.scorer import RatedEvidence, ReleaseData

# Number of users whose scores of the core are cached in a large catalogue: 20 KB for each user with
# 5,000 items in the core.
_MAX_FOLDED = 64


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
    _folded: FoldInCache = field(default_factory=lambda: FoldInCache(_MAX_FOLDED), init=False)

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

    @cached_property
    def _core_prior_scores(self) -> Float32:
        """x̄·B of the items with dense weights (float32, m)."""
        return self.prior_scores[self.weights.items]

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Scores items for each of B users (float32, B × C); see `Scorer.score`."""
        values = self._values(profiles)
        scores = self.weights.apply(profiles, values, items, self._core_scores(profiles))
        shares = prior_weights(profiles, values)
        if shares.any():
            prior = self.prior_scores if items is None else self.prior_scores[items]
            scores += shares[:, None] * prior
        return scores

    def score_core(self, profiles: Profiles) -> Float32:
        """Scores the items with dense weights for each of B users (float32, B × m)."""
        shares = prior_weights(profiles, self._values(profiles))
        scores = self._core_scores(profiles)
        if not shares.any():
            return scores
        return scores + shares[:, None] * self._core_prior_scores

    def _values(self, profiles: Profiles) -> Float32:
        """Returns the value of each rating in its user's history (float32, nnz)."""
        return profiles.cached(
            self, "values", lambda: history_values(profiles, self.config, self.dislike_limit)
        )

    def _core_scores(self, profiles: Profiles) -> Float32:
        """Returns the scores of the items with dense weights, without the prior (float32, B × m).

        In a large catalogue they are cached, because one call retrieves candidates and another
        ranks them.
        """

        def compute(folded: Profiles) -> Float32:
            return self.weights.core_scores(folded, self._values(folded))

        return compute(profiles) if self.weights.covers_all else self._folded.get(profiles, compute)

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
