"""User-based collaborative filtering, fitted: the nearest neighbours of each user."""

from __future__ import annotations

from marquee_services.scoring.neighbours import Neighbours
from marquee_services.scoring.scorer import ReleaseData
from marquee_services.scoring.user_cf import UserCFConfig, UserCFScorer, UserResiduals
from marquee_trainer.models.direct import DirectModel


class UserCF(DirectModel[UserCFConfig, UserCFScorer]):
    """Finds each user's neighbours with the very function that folds in a visitor.

    That is one sparse product a user, Σ n_i² multiplications over the items' rating counts in
    all. What is held is a row of similarities, and the K best of each user.
    """

    name = "user_cf"
    config_type = UserCFConfig
    scorer_type = UserCFScorer

    def learn(self, data: ReleaseData) -> UserCFScorer:
        """As `DirectModel.learn`."""
        users = UserResiduals(data, self._config)
        every_user = range(data.matrix.user_count)
        neighbours = Neighbours.of(users.nearest(*users.ratings.row(user)) for user in every_user)
        return UserCFScorer(users, neighbours)
