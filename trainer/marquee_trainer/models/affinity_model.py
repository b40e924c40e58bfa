"""Models of likes, whose configuration is chosen anew for each set of ratings.

Which ratings count as likes, and how much regularisation is best, depends on what is to be ranked:
what was liked last is not like what was liked at any time. These models are quick to fit, so they
are tried on the validation ratings, as others choose their epochs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from marquee_trainer.evaluation.ranking_metrics import RankingTask, ranking_metrics
from marquee_trainer.models.direct import ConfigT, DirectModel, ScorerT
from marquee_trainer.models.model import Fit, Training

_TOP = 10


class AffinityModel(DirectModel[ConfigT, ScorerT]):
    """A model of order that is learned in one pass.

    Attributes:
        stars: The ratings that are tried as the least that counts as liking.
        factors: Of each other parameter that is varied, by what its value is multiplied in turn.
    """

    stars: ClassVar[tuple[float, ...]] = (0.5, 3.0, 4.0)
    factors: ClassVar[tuple[tuple[str, tuple[float, ...]], ...]]

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`; validation ratings choose the configuration, by NDCG@10.

        One parameter after another is varied, each from the best values of those before. Without
        validation ratings, or relevant ones among them, the configuration stays as it is.
        """
        best = self.learn(training.data)
        if training.validation is not None:
            task = RankingTask.of(
                training.data.matrix, training.validation, training.relevant_stars
            )
            if len(task.users):
                best = self._choose(training, task, best)
        self._config, self._scorer = best.config, best
        return Fit()

    def _choose(self, training: Training, task: RankingTask, first: ScorerT) -> ScorerT:
        """The best scorer of those tried, the first among them."""
        matrix = training.data.matrix

        def ndcg(scorer: ScorerT) -> float:
            return ranking_metrics(
                task, lambda rows: scorer.score(matrix.profiles(rows)), _TOP
            ).ndcg

        best, reached = first, ndcg(first)
        tried = {
            "minimum_stars": [stars for stars in self.stars if stars != first.config.minimum_stars],
            **{
                name: [getattr(first.config, name) * factor for factor in factors]
                for name, factors in self.factors
            },
        }
        for name, values in tried.items():
            start = best.config
            for value in values:
                scorer = type(self)(replace(start, **{name: value})).learn(training.data)
                found = ndcg(scorer)
                if found > reached:
                    best, reached = scorer, found
        return best
