"""New users: the quality of recommendations for new users, by the number of ratings they give.

New users are simulated by holding users out of training. Some of their ratings are folded in at
request time, as for a visitor, and the models are tested on the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.output import Output
from marquee_core.ratings import Profiles, RatingsMatrix, join_profiles
from marquee_core.scorers.scorer import Scorer
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.ranking_metrics import TOP, RankingTask, mean_ndcg
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.preparation import interactions_of
from marquee_trainer.training.results import TrainingResult

_BLOCK_USERS = 64
_TIES_SEED = 0


@dataclass(frozen=True)
class NewUsersConfig:
    """How users are held out and how many of their ratings are folded in.

    Attributes:
        user_fraction: Share of the users with enough ratings who are held out, 0 to 1.
        given: The numbers of ratings to fold in; each is evaluated.
        min_test_ratings: Minimum number of ratings per held-out user that are left for the test
            when the largest number is folded in.
        retrained: The number of given ratings for which folding in is compared with retraining.
    """

    user_fraction: float = 0.1
    given: tuple[int, ...] = (0, 1, 3, 5, 10, 20)
    min_test_ratings: int = 5
    retrained: int = 10


@dataclass(frozen=True)
class NewUsersResult:
    """Metrics of held-out users, by the number of ratings they gave.

    Attributes:
        users: Number of held-out users.
        given: The numbers of ratings that were folded in.
        mse: By rating predictor, the test MSE for each number in `given`, in squared stars.
        ndcg: By model, NDCG@10 for each number in `given`.
        retrained: The number of given ratings with which the models were retrained.
        retrained_mse: By rating predictor, the test MSE after training on those ratings instead of
            folding them in, in squared stars.
    """

    users: int
    given: tuple[int, ...]
    mse: Mapping[str, tuple[float, ...]]
    ndcg: Mapping[str, tuple[float, ...]]
    retrained: int
    retrained_mse: Mapping[str, float]


@dataclass(frozen=True)
class _HeldOutUsers:
    """Held-out users and their ratings.

    Attributes:
        users: User indexes, ascending (int64, users).
        rows: By user, the rows of the user's ratings in random order (int64).
        max_given: The largest number of rows of each user that are given; the others are for the
            test.
    """

    users: Int64
    rows: Mapping[int, Int64]
    max_given: int

    def given(self, count: int) -> Int64:
        """The rows of the first `count` ratings of each user (int64)."""
        return np.concatenate([self.rows[int(user)][:count] for user in self.users])

    def test(self) -> Int64:
        """The rows of the test ratings, the same for any number of given ratings (int64)."""
        return np.concatenate([self.rows[int(user)][self.max_given :] for user in self.users])


def study_new_users(
    dataset: RatingsDataset,
    rows: Int64,
    train: Callable[[RatingsDataset, Split], TrainingResult],
    config: NewUsersConfig,
    relevant_stars: float,
    seed: int,
) -> NewUsersResult:
    """Trains without some users, folds in some of their ratings, and tests on the rest.

    Training runs twice: without the held-out users, and with `config.retrained` ratings of each.

    Args:
        dataset: The ratings.
        rows: The rows of the data set to use (int64).
        train: Trains the models and the ensemble on a split of the data set.
        config: How users are held out and how many of their ratings are folded in.
        relevant_stars: An item is relevant to a user who rated it with at least this many stars.
        seed: Seed for the choice of users and of the ratings that they give.

    Raises:
        RatingsError: No user has enough ratings.
    """
    held_out = _hold_out(dataset, np.sort(rows), config, seed)
    other_rows = rows[~np.isin(dataset.users[rows], held_out.users)]
    test_rows = held_out.test()
    trained = train(dataset, Split(np.sort(other_rows), np.sort(test_rows), "held-out users"))
    test = interactions_of(dataset, test_rows)
    mse: dict[str, list[float]] = {}
    ndcg: dict[str, list[float]] = {}
    # Ratings that are given at any point are never candidates, so the ranking task is always the
    # same.
    task = RankingTask.of(dataset.matrix(held_out.given(held_out.max_given)), test, relevant_stars)
    positions = np.searchsorted(held_out.users, test.users)
    for count in config.given:
        given = dataset.matrix(held_out.given(count))
        scores = _scores(trained, _visitors(trained, given, held_out.users))
        for name, (output, rating, ranking) in scores.items():
            if output is Output.STARS:
                errors = rating_metrics(rating[positions, test.items], test.ratings, dataset.scale)
                mse.setdefault(name, []).append(errors.mse)

            def score_users(users: Int32, ranking: Float32 = ranking) -> Float32:
                return ranking[np.searchsorted(held_out.users, users)]

            ndcg.setdefault(name, []).append(mean_ndcg(task, score_users, TOP))
    retrain_rows = np.sort(np.concatenate([other_rows, held_out.given(config.retrained)]))
    retrained = train(dataset, Split(retrain_rows, np.sort(test_rows), "held-out users, retrained"))
    return NewUsersResult(
        len(held_out.users),
        config.given,
        {name: tuple(values) for name, values in mse.items()},
        {name: tuple(values) for name, values in ndcg.items()},
        config.retrained,
        {
            name: metrics["test_mse"]
            for name, metrics in retrained.evaluation.metrics.items()
            if "test_mse" in metrics
        },
    )


def _hold_out(
    dataset: RatingsDataset, rows: Int64, config: NewUsersConfig, seed: int
) -> _HeldOutUsers:
    """Chooses the held-out users at random, and shuffles their ratings."""
    random = np.random.default_rng(seed)
    max_given = max((*config.given, config.retrained))
    needed = max_given + config.min_test_ratings
    counts = np.bincount(dataset.users[rows], minlength=len(dataset.user_ids))
    eligible = np.flatnonzero(counts >= needed)
    if not len(eligible):
        raise RatingsError(f"no user has the {needed} ratings that a study of new users needs")
    count = max(1, round(config.user_fraction * len(eligible)))
    users = np.sort(random.permutation(eligible)[:count])
    shuffled = rows[random.permutation(len(rows))]
    order = shuffled[np.argsort(dataset.users[shuffled], kind="stable")]
    sorted_users = dataset.users[order]
    starts, ends = (np.searchsorted(sorted_users, users, side) for side in ("left", "right"))
    rows_by_user = {
        int(user): order[start:end] for user, start, end in zip(users, starts, ends, strict=True)
    }
    return _HeldOutUsers(users, rows_by_user, max_given)


def _visitors(trained: TrainingResult, given: RatingsMatrix, users: Int64) -> Profiles:
    """Builds visitor profiles of the given ratings, as a request would.

    A request lists ratings by time, oldest first. Simultaneous ratings are shuffled, so that their
    order carries no information.
    """
    profiles = given.profiles(users.astype(np.int32))
    ties = np.random.default_rng(_TIES_SEED).random(len(profiles.items))
    visitors = []
    for start, end in pairwise(profiles.indptr.tolist()):
        order = start + np.lexsort((ties[start:end], -profiles.later_counts[start:end]))
        visitors.append(
            trained.data.matrix.profile(-1, profiles.items[order], profiles.ratings[order])
        )
    return join_profiles(visitors)


def _scores(
    trained: TrainingResult, visitors: Profiles
) -> dict[str, tuple[Output, Float32, Float32]]:
    """Scores all items for the visitors.

    Returns:
        For each model and the ensemble: the kind of its scores, the scores as predicted stars, and
        the scores to rank by (float32, U × items each).
    """
    scorers: Sequence[tuple[str, Scorer]] = [
        (model.name, model.scorer) for model in (*fitted_baselines(trained.data), *trained.models)
    ]
    outputs: dict[str, Float32] = {}
    for name, scorer in scorers:
        blocks = [
            scorer.score(visitors.take(np.arange(first, min(first + _BLOCK_USERS, len(visitors)))))
            for first in range(0, len(visitors), _BLOCK_USERS)
        ]
        outputs[name] = np.concatenate(blocks)
    # For visitors without ratings, the gateway uses its own baselines and calls no backend.
    models = trained.models if visitors.counts.any() else ()
    blends = trained.ensemble.blends(sorted({model.backend for model in models}))
    scores = {name: (scorer.output, outputs[name], outputs[name]) for name, scorer in scorers}
    scores[ENSEMBLE] = (
        Output.STARS,
        blends.rating.apply(outputs).astype(np.float32),
        blends.ranking.apply(outputs).astype(np.float32),
    )
    return scores
