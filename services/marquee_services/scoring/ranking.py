"""Ranks items with a blend of one backend's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32, Int64
from marquee_core.ratings import Profiles
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import top_indexes, top_rows
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import Approximates, Scorer, score_pairs
from marquee_services.errors import ModelNotFound
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.model_times import Timer
from marquee_services.scoring.plan import BestItems, Query, RankingPlan

# These of a model's approximate scores are replaced by exact ones: the best of the sum, this many
# times the requested number and so many more, and the model's own best, so many more than that.
_SUM_FACTOR, _MARGIN = 2, 24
# Plans whose scorers and sums are kept; there is about one for each page size in use.
_MAX_RANKERS = 64
_NO_BEST: Found = np.empty(0, np.int32), np.empty(0, np.float32)


@dataclass(frozen=True)
class UserRanking:
    """The ranking of one user's items.

    Attributes:
        scores: The weighted sum of the models' scores of each item (float32, C).
        best: Each model's own best items with their scores, best first, by the model's name.
        abstaining: The names of the models that cannot score the user; they are not in the sum.
        stars: The user's best items as scored by the plan's `stars_models`; None without any.
        top: The plan's `top_count` best items of the whole ranking, best first (int32, n).
        bias: The user's bias in the baseline, in stars; NaN if the plan has no `top_count`.
    """

    scores: Float32
    best: Mapping[str, Found]
    abstaining: tuple[str, ...]
    stars: BestItems | None = None
    top: Int32 = _NO_BEST[0]
    bias: float = np.nan


@dataclass(frozen=True)
class _Ranker:
    """The models of a plan, ready to rank.

    Attributes:
        plan: The plan.
        scorers: The scorers of the models that rank.
        stars_scorers: The scorers of the models that score the best items.
        shared: The sum of the gateway's own models (float32, items).
        weights: The weight of each model that ranks.
        approximating: Those of `scorers` that can approximate their scores.
        timer: Measures the models.
        baseline: The baseline of the release.
    """

    plan: RankingPlan
    scorers: Mapping[str, Scorer]
    stars_scorers: Mapping[str, Scorer]
    shared: Float32
    weights: Mapping[str, np.float32]
    approximating: Mapping[str, Approximates]
    timer: Timer
    baseline: Baseline

    def biases(self, profiles: Profiles) -> list[float]:
        """The bias of each user in the baseline, in stars; NaN if the plan does not need them."""
        if not self.plan.top_count:
            return [np.nan] * len(profiles)
        found: list[float] = self.baseline.user_bias(profiles).tolist()
        return found


def check_plan(engine: Engine, plan: RankingPlan) -> None:
    """Checks that a backend has the models of a plan.

    Raises:
        ModelNotFound: A model is missing.
    """
    _ranker(engine, plan)


def rank(engine: Engine, queries: Sequence[Query], plan: RankingPlan) -> list[UserRanking]:
    """Ranks each user's candidates.

    Args:
        engine: The models of a release.
        queries: The users; they must have passed `Engine.check`.
        plan: How to rank.

    Returns:
        The ranking of each user.

    Raises:
        ModelNotFound: This backend has no model of one of the names.
    """
    ranker = _ranker(engine, plan)
    profiles = engine.profiles(queries)
    rankings: list[UserRanking | None] = [None] * len(queries)
    whole = [place for place, query in enumerate(queries) if query.candidates is None]
    if whole:
        part = profiles if len(whole) == len(queries) else profiles.take(np.array(whole))
        eligible = _eligible_rows([queries[place] for place in whole], part, engine)
        for place, ranking in zip(whole, _rank_rows(part, ranker, eligible), strict=True):
            rankings[place] = ranking
    for place, query in enumerate(queries):
        if query.candidates is not None:
            profile = profiles.take(np.array([place]))
            rankings[place] = _rank_candidates(profile, query.candidates, ranker)
    return [ranking for ranking in rankings if ranking is not None]


def _ranker(engine: Engine, plan: RankingPlan) -> _Ranker:
    found = engine.rankers.get(plan)
    if found is None:
        if len(engine.rankers) >= _MAX_RANKERS:
            engine.rankers.clear()
        found = engine.rankers[plan] = _new_ranker(engine, plan)
    ranker: _Ranker = found
    return ranker


def _new_ranker(engine: Engine, plan: RankingPlan) -> _Ranker:
    shared = np.zeros(engine.data.matrix.item_count, dtype=np.float32)
    for name, weight in plan.gateway_weights:
        if name not in engine.gateway_scores:
            raise ModelNotFound(name)
        shared += np.float32(weight) * engine.gateway_scores[name]
    stars = engine.select(plan.stars_models) if plan.stars_models else {}
    scorers = engine.select([name for name, _ in plan.weights])
    return _Ranker(
        plan,
        scorers,
        stars,
        shared,
        {name: np.float32(weight) for name, weight in plan.weights},
        {name: scorer for name, scorer in scorers.items() if isinstance(scorer, Approximates)},
        engine.timer,
        engine.data.baseline,
    )


def _eligible_rows(queries: Sequence[Query], profiles: Profiles, engine: Engine) -> Bool | None:
    """The items that may be among the models' best (bool, B × items); None for all."""
    if all(query.eligible is None and not query.new_only for query in queries):
        return None
    rows = np.ones((len(queries), engine.data.matrix.item_count), dtype=np.bool_)
    for row, query in zip(rows, queries, strict=True):
        if query.eligible is not None:
            row[:] = query.eligible
    new_only = np.array([query.new_only for query in queries])
    if new_only.any():
        rows[new_only] &= engine.rated_items
        left_out = new_only[profiles.rows]
        rows[profiles.rows[left_out], profiles.items[left_out]] = False
    return rows


def _rank_rows(profiles: Profiles, ranker: _Ranker, eligible: Bool | None) -> list[UserRanking]:
    """Ranks the whole catalogue for each of B users.

    Models that can approximate their scores do so, and score exactly the items that then are among
    the best of the sum or of their own.
    """
    outputs: dict[str, Float32] = {}
    approximated: dict[str, Scorer] = {}
    timer = ranker.timer
    for name, scorer in ranker.scorers.items():
        rough = ranker.approximating.get(name)
        scores = None
        if rough is not None:
            scores = timer.run(name, "rank", rough.approximate, profiles)
        if scores is not None:
            approximated[name] = scorer
            outputs[name] = scores
        else:
            outputs[name] = timer.run(name, "rank", scorer.score, profiles)
    sums, abstaining = _weighted_sums(outputs, ranker.weights)
    best_count = ranker.plan.best_count
    if approximated:
        depth = _SUM_FACTOR * max(best_count, ranker.plan.stars_count) + _MARGIN
        near_top = top_rows(sums + ranker.shared, depth, eligible)
    for name, scorer in approximated.items():
        own_top = top_rows(outputs[name], best_count + _MARGIN, eligible)
        items = _padded([*map(np.union1d, near_top, own_top)])
        exact = timer.run(name, "rank", score_pairs, scorer, profiles, items)
        rows = np.arange(len(items))[:, None]
        sums[rows, items] += ranker.weights[name] * (exact - outputs[name][rows, items])
        outputs[name][rows, items] = exact
    best = _own_best(outputs, best_count, eligible)
    stars: Sequence[BestItems | None] = [None] * len(sums)
    stars_count, top_count = ranker.plan.stars_count, ranker.plan.top_count
    top: Sequence[Int64] = [_NO_BEST[0].astype(np.int64)] * len(sums)
    if ranker.stars_scorers or top_count:
        top = top_rows(sums + ranker.shared, max(stars_count, top_count), eligible)
    if ranker.stars_scorers:
        stars = _stars(profiles, [row[:stars_count] for row in top], ranker)
    biases = ranker.biases(profiles)
    return [
        UserRanking(row, found, tuple(names), pool, row_top[:top_count].astype(np.int32), bias)
        for row, found, names, pool, row_top, bias in zip(
            sums, best, abstaining, stars, top, biases, strict=True
        )
    ]


def _rank_candidates(profile: Profiles, items: Int32, ranker: _Ranker) -> UserRanking:
    """Ranks the candidates of one user; the best items are indexes in the catalogue."""
    if not len(items):
        nothing = np.empty(0, np.float32)
        stars = BestItems(items, dict.fromkeys(ranker.stars_scorers, nothing))
        best = dict.fromkeys(ranker.scorers, _NO_BEST)
        return UserRanking(nothing, best, (), stars if ranker.stars_scorers else None)
    outputs = {
        name: ranker.timer.run(name, "rank", scorer.score, profile, items)
        for name, scorer in ranker.scorers.items()
    }
    sums, (abstaining,) = _weighted_sums(outputs, ranker.weights)
    (found,) = _own_best(outputs, ranker.plan.best_count, None)
    best = {name: (items[places], scores) for name, (places, scores) in found.items()}
    if not ranker.stars_scorers:
        return UserRanking(sums[0], best, tuple(abstaining))
    top = top_indexes(sums[0] + ranker.shared[items], ranker.plan.stars_count)
    (stars,) = _stars(profile, [items[top]], ranker)
    return UserRanking(sums[0], best, tuple(abstaining), stars)


def _padded(rows: Sequence[Int32 | Int64]) -> Int32:
    """Rows of different lengths as one array, each padded with its first value or 0 (int32)."""
    padded = np.zeros((len(rows), max(1, *map(len, rows))), dtype=np.int32)
    for place, row in zip(padded, rows, strict=True):
        if len(row):
            place[:] = row[0]
            place[: len(row)] = row
    return padded


def _stars(profiles: Profiles, rows: Sequence[Int32 | Int64], ranker: _Ranker) -> list[BestItems]:
    """The scores of each user's best items.

    Args:
        profiles: The profiles of B users.
        rows: The best items of each user.
        ranker: Has the scorers.
    """
    items = _padded(rows)
    scores = {
        name: ranker.timer.run(name, "score", score_pairs, scorer, profiles, items)
        for name, scorer in ranker.stars_scorers.items()
    }
    return [
        BestItems(
            items[place, : len(row)],
            {name: values[place, : len(row)] for name, values in scores.items()},
        )
        for place, row in enumerate(rows)
    ]


def _weighted_sums(
    outputs: dict[str, Float32], weights: Mapping[str, np.float32]
) -> tuple[Float32, list[list[str]]]:
    """Sums the models' scores (float32, B × C).

    A model that cannot score a user is left out of the sum, and its scores are set to 0.

    Returns:
        The sums (float32, B × C), and the names of the models that abstain for each user.
    """
    sums = np.zeros_like(next(iter(outputs.values())))
    abstaining: list[list[str]] = [[] for _ in sums]
    for name, scores in outputs.items():
        unknown = np.isnan(scores[:, 0])
        if unknown.any():
            outputs[name] = np.where(unknown[:, None], np.float32(0), scores)
            for row in np.flatnonzero(unknown).tolist():
                abstaining[row].append(name)
        sums += weights[name] * outputs[name]
    return sums, abstaining


def _own_best(
    outputs: Mapping[str, Float32], best_count: int, eligible: Bool | None
) -> list[dict[str, Found]]:
    """Selects the best items of each model for each user (all arrays are B × C)."""
    best: list[dict[str, Found]] = [{} for _ in next(iter(outputs.values()))]
    for name, scores in outputs.items():
        found = top_rows(scores, best_count, eligible)
        for row, top in enumerate(found):
            allowed = None if eligible is None else eligible[row]
            best[row][name] = (
                _NO_BEST if _is_flat(scores[row], top, allowed) else _found(scores, row, top)
            )
    return best


def _found(scores: Float32, row: int, top: Int64) -> Found:
    return top.astype(np.int32), scores[row, top]


def _is_flat(scores: Float32, top: Int64, eligible: Bool | None) -> bool:
    """Whether all eligible scores are equal, so that none is better than another."""
    if not len(top):
        return True
    if scores[top[0]] != scores[top[-1]]:
        return False
    pool = scores if eligible is None else scores[eligible]
    return bool(pool.min() == pool.max())
