"""Fits user-based collaborative filtering: finds the nearest neighbours of each user."""

from __future__ import annotations

from marquee_core.arrays import Float32, Int32
from marquee_core.scorers.neighbours import CommonSums
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.user_cf import UserCFConfig, UserCFScorer, UserResiduals
from marquee_trainer.models.cf_model import OnePassModel
from marquee_trainer.models.neighbours.neighbourhoods import all_neighbours


class UserCF(OnePassModel[UserCFConfig, UserCFScorer]):
    """Finds the neighbours of each user, with the same similarities as the fold-in of a visitor.

    For the cost, see `all_neighbours`.
    """

    name = "user_cf"
    config_type = UserCFConfig

    def learn(self, data: ReleaseData) -> UserCFScorer:
        """See `OnePassModel.learn`."""
        users = UserResiduals(data, self._config)
        counts = users.ratings.counts

        def similarities(owners: Int32, sums: CommonSums) -> Float32:
            return users.similarities(counts[owners], sums)

        count = self._config.neighbours
        return UserCFScorer(users, all_neighbours(users.ratings, similarities, count))
