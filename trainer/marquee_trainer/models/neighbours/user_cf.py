"""User-based collaborative filtering, fitted: the nearest neighbours of each user."""

from __future__ import annotations

from marquee_core.arrays import Float32, Int32
from marquee_core.scorers.neighbours import CommonSums
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.user_cf import UserCFConfig, UserCFScorer, UserResiduals
from marquee_trainer.models.closed_form import ClosedFormModel
from marquee_trainer.models.neighbours.neighbourhoods import every_neighbourhood


class UserCF(ClosedFormModel[UserCFConfig, UserCFScorer]):
    """Finds each user's neighbours with the very function that folds in a visitor.

    See `every_neighbourhood` for what it costs.
    """

    name = "user_cf"
    config_type = UserCFConfig
    scorer_type = UserCFScorer

    def learn(self, data: ReleaseData) -> UserCFScorer:
        """As `ClosedFormModel.learn`."""
        users = UserResiduals(data, self._config)
        counts = users.ratings.counts

        def similarities(owners: Int32, sums: CommonSums) -> Float32:
            return users.similarities(counts[owners], sums)

        count = self._config.neighbours
        return UserCFScorer(users, every_neighbourhood(users.ratings, similarities, count))
