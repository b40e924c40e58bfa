"""User-based collaborative filtering, fitted: the nearest neighbours of each user."""

from __future__ import annotations

from marquee_services.arrays import Float32, Int32
from marquee_services.scoring.neighbours import CommonSums
from marquee_services.scoring.scorer import ReleaseData
from marquee_services.scoring.user_cf import UserCFConfig, UserCFScorer, UserResiduals
from marquee_trainer.models.direct import DirectModel
from marquee_trainer.models.neighbourhoods import every_neighbourhood


class UserCF(DirectModel[UserCFConfig, UserCFScorer]):
    """Finds each user's neighbours with the very function that folds in a visitor.

    See `every_neighbourhood` for what it costs.
    """

    name = "user_cf"
    config_type = UserCFConfig
    scorer_type = UserCFScorer

    def learn(self, data: ReleaseData) -> UserCFScorer:
        """As `DirectModel.learn`."""
        users = UserResiduals(data, self._config)
        counts = users.ratings.counts

        def similarities(owners: Int32, sums: CommonSums) -> Float32:
            return users.similarities(counts[owners], sums)

        count = self._config.neighbours
        return UserCFScorer(users, every_neighbourhood(users.ratings, similarities, count))
