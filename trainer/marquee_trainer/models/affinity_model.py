"""Models of likes, whose configuration is chosen anew for each set of ratings.

Which ratings count as likes, and how much regularisation is best, depends on what is to be ranked:
what was liked last is not like what was liked at any time. These models are quick to fit, so they
are tried on the validation ratings, as others choose their epochs.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import ClassVar

from marquee_trainer.evaluation.ranking_metrics import TOP, RankingTask, ranking_metrics
from marquee_trainer.models.direct import ConfigT, DirectModel, ScorerT
from marquee_trainer.models.model import Fit, Pairs, Training, score_known

# As good as all to tell configurations apart.
_MOST_USERS = 4_000


class AffinityModel(DirectModel[ConfigT, ScorerT]):
    """A model of order that is learned in one pass.

    Attributes:
        stars: The ratings that are tried as the least that counts as liking.
        multiples: Of each other parameter that is varied, by what its value is multiplied in turn.
    """

    stars: ClassVar[tuple[float, ...]] = (0.5, 3.0, 4.0)
    multiples: ClassVar[tuple[tuple[str, tuple[float, ...]], ...]]

    @classmethod
    def chosen(cls) -> tuple[str, ...]:
        """The parameters that validation ratings choose."""
        return ("minimum_stars", *(name for name, _ in cls.multiples))

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`; validation ratings choose the configuration, by NDCG@10.

        One parameter after another is varied, each from the best values of those before. Without
        validation ratings, or relevant ones among them, the configuration stays as it is.
        """
        if training.validation is not None:
            self._choose(training, training.validation)
        self._scorer = self.learn(training.data)
        return Fit()

    def _choose(self, training: Training, validation: Pairs) -> None:
        """Takes the best configuration of those tried, the present one among them."""
        task = RankingTask.of(training.data.matrix, validation, training.relevant_stars)
        task = task.sample(_MOST_USERS, training.seed)
        if not len(task.users):
            return

        def ndcg(config: ConfigT) -> float:
            scorer = type(self)(config).learn(training.data)
            return ranking_metrics(task, score_known(scorer, training.data), TOP).ndcg

        best, reached = self._config, ndcg(self._config)
        for name, values in self._tried().items():
            start = best
            for value in values:
                config = replace(start, **{name: value})
                found = ndcg(config)
                if found > reached:
                    best, reached = config, found
        self._config = best

    def _tried(self) -> dict[str, list[float]]:
        """By parameter, the values that are tried beside the configured one."""
        present = asdict(self._config)
        return {
            "minimum_stars": [stars for stars in self.stars if stars != present["minimum_stars"]],
            **{
                name: [present[name] * multiple for multiple in multiples]
                for name, multiples in self.multiples
            },
        }
