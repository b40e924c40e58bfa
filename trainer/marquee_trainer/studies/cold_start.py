"""How good answers are for users of whom training knows nothing, by how many ratings they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from marquee_core.arrays import Float32, Int64
from marquee_core.output import Output
from marquee_core.ratings import Profiles, RatingsMatrix, join_profiles
from marquee_core.scorers.scorer import Scorer
from marquee_trainer.data.dataset import RatingsDataset, RatingsError
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.ranking_metrics import TOP, RankingTask, ranking_metrics
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.train import Trained

_BLOCK_USERS = 64
_TIES_SEED = 0


@dataclass(frozen=True)
class ColdStartConfig:
    """How users are held out.

    Attributes:
        user_fraction: Share of the users who have enough ratings that is held out.
        given: So many of their ratings are given at request time.
        least_test: Ratings that a held-out user has beyond the most that are given, at least.
        retrained: At this many given ratings, folding in is compared with retraining.
    """

    user_fraction: float = 0.1
    given: tuple[int, ...] = (0, 1, 3, 5, 10, 20)
    least_test: int = 5
    retrained: int = 10


@dataclass(frozen=True)
class ColdStart:
    """What was measured of held-out users.

    Attributes:
        users: How many there are.
        given: How many ratings were given.
        mse: By model, the test MSE for each of `given`, in squared stars.
        ndcg: By model, NDCG@10 for each of `given`.
        retrained: At how many given ratings training was repeated.
        retrained_mse: By model, the test MSE when those ratings were trained on.
    """

    users: int
    given: tuple[int, ...]
    mse: Mapping[str, tuple[float, ...]]
    ndcg: Mapping[str, tuple[float, ...]]
    retrained: int
    retrained_mse: Mapping[str, float]


@dataclass(frozen=True)
class _HeldOut:
    """Held-out users: their rows in random order, and which are for the test."""

    users: Int64
    rows: Mapping[int, Int64]
    most: int

    def given(self, count: int) -> Int64:
        """The rows that are given (int64)."""
        return np.concatenate([self.rows[int(user)][:count] for user in self.users])

    def test(self) -> Int64:
        """The rows of the test, the same whatever is given (int64)."""
        return np.concatenate([self.rows[int(user)][self.most :] for user in self.users])


def cold_start(
    dataset: RatingsDataset,
    rows: Int64,
    train: Callable[[RatingsDataset, Split], Trained],
    config: ColdStartConfig,
    relevant_stars: float,
    seed: int,
) -> ColdStart:
    """Trains without some users, folds them in from some ratings, and tests on their others.

    Args:
        dataset: The ratings.
        rows: Those of its rows to use (int64).
        train: Trains models and ensemble.
        config: How users are held out.
        relevant_stars: An item is relevant to a user who rated it at least so.
        seed: Of the choice of users and of what is given.

    Raises:
        RatingsError: No user has enough ratings.
    """
    held = _hold_out(dataset, np.sort(rows), config, seed)
    known = rows[~np.isin(dataset.users[rows], held.users)]
    test = held.test()
    without = train(dataset, Split(np.sort(known), np.sort(test), "held-out users"))
    pairs = Interactions(dataset.users[test], dataset.items[test], dataset.ratings[test])
    mse: dict[str, list[float]] = {}
    ndcg: dict[str, list[float]] = {}
    # What any number of given ratings holds is no candidate, so that all lists are of one task.
    task = RankingTask.of(dataset.matrix(held.given(held.most)), pairs, relevant_stars)
    places = np.searchsorted(held.users, pairs.users)
    for count in config.given:
        matrix = dataset.matrix(held.given(count))
        scores = _scores(without, _visitors(without, matrix, held.users))
        for name, (output, rating, ranking) in scores.items():
            if output is Output.STARS:
                found = rating_metrics(rating[places, pairs.items], pairs.ratings, dataset.scale)
                mse.setdefault(name, []).append(found.mse)

            def of_users(users: np.ndarray, ranking: Float32 = ranking) -> Float32:
                return ranking[np.searchsorted(held.users, users)]

            ndcg.setdefault(name, []).append(ranking_metrics(task, of_users, TOP).ndcg)
    again = np.sort(np.concatenate([known, held.given(config.retrained)]))
    retrained = train(dataset, Split(again, np.sort(test), "held-out users, retrained"))
    return ColdStart(
        len(held.users),
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


def _hold_out(dataset: RatingsDataset, rows: Int64, config: ColdStartConfig, seed: int) -> _HeldOut:
    random = np.random.default_rng(seed)
    most = max((*config.given, config.retrained))
    counts = np.bincount(dataset.users[rows], minlength=len(dataset.user_ids))
    able = np.flatnonzero(counts >= most + config.least_test)
    if not len(able):
        raise RatingsError(f"no user has {most + config.least_test} ratings")
    count = max(1, round(config.user_fraction * len(able)))
    users = np.sort(random.permutation(able)[:count])
    shuffled = rows[random.permutation(len(rows))]
    order = shuffled[np.argsort(dataset.users[shuffled], kind="stable")]
    sorted_users = dataset.users[order]
    starts, ends = (np.searchsorted(sorted_users, users, side) for side in ("left", "right"))
    of_user = {
        int(user): order[start:end] for user, start, end in zip(users, starts, ends, strict=True)
    }
    return _HeldOut(users, of_user, most)


def _visitors(trained: Trained, given: RatingsMatrix, users: Int64) -> Profiles:
    """The users as visitors with what they give, in the order of time; of one moment, at random.

    A request gives ratings one after another.
    """
    profiles = given.profiles(users.astype(np.int32))
    ties = np.random.default_rng(_TIES_SEED).random(len(profiles.items))
    visitors = []
    for start, end in pairwise(profiles.indptr.tolist()):
        order = start + np.lexsort((ties[start:end], -profiles.later[start:end]))
        visitors.append(
            trained.data.matrix.profile(-1, profiles.items[order], profiles.ratings[order])
        )
    return join_profiles(visitors)


def _scores(trained: Trained, visitors: Profiles) -> dict[str, tuple[Output, Float32, Float32]]:
    """By model and for the ensemble: what scores are, stars, and scores for order (U × items)."""
    every: Sequence[tuple[str, Scorer]] = [
        (model.name, model.scorer) for model in (*fitted_baselines(trained.data), *trained.models)
    ]
    outputs: dict[str, Float32] = {}
    for name, scorer in every:
        blocks = [
            scorer.score(visitors.take(np.arange(first, min(first + _BLOCK_USERS, len(visitors)))))
            for first in range(0, len(visitors), _BLOCK_USERS)
        ]
        outputs[name] = np.concatenate(blocks)
    # Without ratings the gateway answers by itself.
    asked = trained.models if visitors.counts.any() else ()
    blends = trained.ensemble.blends(sorted({model.backend for model in asked}))
    found = {name: (scorer.output, outputs[name], outputs[name]) for name, scorer in every}
    found[ENSEMBLE] = (
        Output.STARS,
        blends.rating.apply(outputs).astype(np.float32),
        blends.ranking.apply(outputs).astype(np.float32),
    )
    return found
