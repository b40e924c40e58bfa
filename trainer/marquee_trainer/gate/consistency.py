"""Checks that the models and blends that a release serves match its evaluation.

The served models were fitted on the held-out ratings too, so they must not do worse on them than
the evaluated models, which were not. The checks find blends with wrong weights and models that were
saved incorrectly, including the blends that are used only while a service is unavailable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from marquee_core.arrays import Bool, Float32, Float64, Int32
from marquee_core.release.ensemble import POPULARITY
from marquee_core.release.verdict import Check, Decision
from marquee_trainer.gate.comparison import ndcg, training_profiles
from marquee_trainer.gate.config import GateConfig
from marquee_trainer.gate.served_release import ServedRelease
from marquee_trainer.publishing.held_out import HeldOutEvaluation, best_items

_MAX_USERS = 300
# The scores of all models are in memory at the same time, up to 24 MB for each.
_MAX_CELLS = 6_000_000
# Below this NDCG, a drop carries no information.
_MIN_NDCG = 0.01


def consistency_checks(release: ServedRelease, config: GateConfig) -> Iterator[Check]:
    """Compares what a release serves with its evaluation, for every set of backends.

    Users whom a model cannot score are left out.

    Args:
        release: The candidate.
        config: The thresholds.
    """
    held = release.held_out
    if held is None or not len(held.users):
        return
    sample = _Sample(release, held)
    evaluated = sample.ndcg(held.lists)
    popular = sample.ndcg(sample.best(release.scorers[POPULARITY].score(sample.profiles)))
    rankings, stars = [], []
    for backends in _subsets(release.backends):
        is_full = backends == release.backends
        figure = sample.ndcg(sample.best(release.ranking(sample.scores, backends)))
        least = config.kept_ndcg * (evaluated if is_full else min(popular, evaluated))
        rankings.append((backends, figure, least if evaluated > _MIN_NDCG else 0.0))
        if release.predicts_stars:
            most = sample.evaluated_rmse if is_full else sample.deviation
            stars.append((backends, sample.rmse(backends), config.grown_rmse * most))
    yield _check(
        "served ranking",
        f"NDCG@10 {rankings[0][1]:.4f} on ratings that it has seen, {evaluated:.4f} evaluated",
        [
            f"with {_named(backends)} it is {figure:.4f}, at least {least:.4f} is expected"
            for backends, figure, least in rankings
            if figure < least
        ],
        {_named(backends): figure for backends, figure, _ in rankings},
    )
    if stars:
        yield _check(
            "served stars",
            f"RMSE {stars[0][1]:.4f} on ratings that it has seen, "
            f"{sample.evaluated_rmse:.4f} evaluated",
            [
                f"with {_named(backends)} it is {figure:.4f}, at most {most:.4f} is expected"
                for backends, figure, most in stars
                if figure > most
            ],
            {_named(backends): figure for backends, figure, _ in stars},
        )


class _Sample:
    """Scores of the users of an evaluation, from their ratings in its training part.

    Attributes:
        profiles: Their profiles.
        scores: The scores of all models.
        evaluated_rmse: The RMSE of the predictions in the evaluation; 0 if there are none.
        deviation: The standard deviation of the held-out ratings.
    """

    def __init__(self, release: ServedRelease, held: HeldOutEvaluation) -> None:
        self._release = release
        self._held = held
        most = max(1, min(_MAX_USERS, _MAX_CELLS // len(release.catalogue)))
        positions = np.arange(min(len(held.users), most))
        self.profiles = training_profiles(release, positions.tolist())
        self.scores: Mapping[str, Float32] = release.scores(self.profiles)
        absent = [np.isnan(values).any(axis=1) for values in self.scores.values()]
        self._usable = ~np.any(absent, axis=0)
        self._candidates = np.ones((len(positions), len(release.catalogue)), np.bool_)
        self._candidates[self.profiles.rows, self.profiles.items] = False
        rows = np.repeat(np.arange(len(held.users)), np.diff(held.indptr))
        self._judged: Bool = rows < len(positions)
        self._judged[self._judged] &= self._usable[rows[self._judged]]
        self._rows, self._items = rows[self._judged], held.items[self._judged]
        self._ratings = held.ratings[self._judged].astype(np.float64)
        self.deviation = float(self._ratings.std()) if len(self._ratings) else 0.0
        self.evaluated_rmse = 0.0
        if len(held.predicted):
            self.evaluated_rmse = self._rmse(held.predicted[self._judged].astype(np.float64))

    def best(self, ranking: Float32 | Float64) -> Int32:
        """The best items of each user (int32, users × n); -1 for users who are left out."""
        best = np.full((len(ranking), 1), -1, np.int32)
        found = best_items(ranking[self._usable].astype(np.float32), self._candidates[self._usable])
        best = np.repeat(best, found.shape[1], axis=1)
        best[self._usable] = found
        return best

    def ndcg(self, lists: Int32) -> float:
        """The mean NDCG@10 of the users with a relevant rating."""
        held, figures = self._held, []
        for position in np.flatnonzero(self._usable).tolist():
            rows = slice(held.indptr[position], held.indptr[position + 1])
            is_relevant = held.ratings[rows] >= self._release.relevant_stars
            if is_relevant.any():
                figures.append(ndcg(lists[position], held.items[rows][is_relevant]))
        return float(np.mean(figures)) if figures else 0.0

    def rmse(self, backends: frozenset[str]) -> float:
        """The RMSE of the stars that the blend for some backends predicts."""
        stars = self._release.stars(self.scores, backends)
        return self._rmse(stars[self._rows, self._items])

    def _rmse(self, predicted: Float64) -> float:
        if not len(predicted):
            return 0.0
        errors = np.clip(predicted, *self._release.scale) - self._ratings
        return float(np.sqrt(np.mean(errors**2)))


def _subsets(backends: frozenset[str]) -> Iterator[frozenset[str]]:
    """All subsets, the largest first."""
    for size in range(len(backends), -1, -1):
        for names in combinations(sorted(backends), size):
            yield frozenset(names)


def _named(backends: frozenset[str]) -> str:
    return " and ".join(sorted(backends)) or "the gateway alone"


def _check(name: str, text: str, problems: list[str], figures: Mapping[str, float]) -> Check:
    decision = Decision.REFUSE if problems else Decision.PROMOTE
    return Check(name, decision, "; ".join([text, *problems]), figures)
