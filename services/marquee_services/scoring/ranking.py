"""Ranks items with a blend of one backend's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32, Int64
from marquee_core.ratings import Profiles
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import top_rows
from marquee_core.scorers.scorer import Approximates, Scorer, score_pairs
from marquee_services.scoring.engine import Engine, Query

# These of a model's approximate scores are replaced by exact ones: the best of the sum, this many
# times the requested number and so many more, and the model's own best, so many more than that.
_SUM_FACTOR, _MARGIN = 2, 24
_NONE: Found = np.empty(0, np.int32), np.empty(0, np.float32)


@dataclass(frozen=True)
class UserRanking:
    """The ranking of one user's items.

    Attributes:
        scores: The weighted sum of the models' scores of each item (float32, C).
        best: Each model's own best items with their scores, best first, by the model's name.
        abstaining: The names of the models that cannot score the user; they are not in the sum.
    """

    scores: Float32
    best: Mapping[str, Found]
    abstaining: tuple[str, ...]


def rank(
    engine: Engine, queries: Sequence[Query], weights: Mapping[str, float], best_count: int
) -> list[UserRanking]:
    """Ranks each user's candidates.

    Args:
        engine: The models of a release.
        queries: The users; they must have passed `Engine.check`.
        weights: The weight of each model in the sum, by the model's name.
        best_count: The maximum number of own best items of each model.

    Returns:
        The ranking of each user.

    Raises:
        ModelNotFound: This backend has no model of one of the names.
    """
    scorers = engine.select(list(weights))
    profiles = engine.profiles(queries)
    rankings: list[UserRanking | None] = [None] * len(queries)
    whole = [place for place, query in enumerate(queries) if query.candidates is None]
    if whole:
        part = profiles if len(whole) == len(queries) else profiles.take(np.array(whole))
        eligible = _eligible_rows([queries[place] for place in whole], engine)
        for place, ranking in zip(
            whole, _rank_rows(part, scorers, weights, best_count, eligible), strict=True
        ):
            rankings[place] = ranking
    for place, query in enumerate(queries):
        if query.candidates is not None:
            profile = profiles.take(np.array([place]))
            rankings[place] = _rank_candidates(profile, query, scorers, weights, best_count)
    return [ranking for ranking in rankings if ranking is not None]


def _eligible_rows(queries: Sequence[Query], engine: Engine) -> Bool | None:
    """The items that may be among the models' best (bool, B × items); None for all."""
    if all(query.eligible is None for query in queries):
        return None
    rows = np.ones((len(queries), engine.data.matrix.item_count), dtype=np.bool_)
    for row, query in zip(rows, queries, strict=True):
        if query.eligible is not None:
            row[:] = query.eligible
    return rows


def _rank_rows(
    profiles: Profiles,
    scorers: Mapping[str, Scorer],
    weights: Mapping[str, float],
    best_count: int,
    eligible: Bool | None,
) -> list[UserRanking]:
    """Ranks the whole catalogue for each of B users.

    Models that can approximate their scores do so, and score exactly the items that then are among
    the best of the sum or of their own.
    """
    outputs, approximated = {}, {}
    for name, scorer in scorers.items():
        scores = scorer.approximate(profiles) if isinstance(scorer, Approximates) else None
        if scores is not None:
            approximated[name] = scorer
        outputs[name] = scorer.score(profiles) if scores is None else scores
    sums, abstaining = _weighted_sums(outputs, weights)
    if approximated:
        near_top = top_rows(sums, _SUM_FACTOR * best_count + _MARGIN, eligible)
    for name, scorer in approximated.items():
        own_top = top_rows(outputs[name], best_count + _MARGIN, eligible)
        items = _padded([*map(np.union1d, near_top, own_top)])
        exact = score_pairs(scorer, profiles, items)
        rows = np.arange(len(items))[:, None]
        sums[rows, items] += np.float32(weights[name]) * (exact - outputs[name][rows, items])
        outputs[name][rows, items] = exact
    return _rankings(sums, outputs, abstaining, best_count, eligible)


def _padded(rows: Sequence[Int64]) -> Int32:
    """Rows of different lengths as one array, each padded with its first value or 0 (int32)."""
    padded = np.zeros((len(rows), max(1, *map(len, rows))), dtype=np.int32)
    for place, row in zip(padded, rows, strict=True):
        if len(row):
            place[:] = row[0]
            place[: len(row)] = row
    return padded


def _rank_candidates(
    profile: Profiles,
    query: Query,
    scorers: Mapping[str, Scorer],
    weights: Mapping[str, float],
    best_count: int,
) -> UserRanking:
    """Ranks the candidates of one user; the best items are indexes in the catalogue."""
    items = query.candidates
    assert items is not None  # noqa: S101 - the caller has checked
    if not len(items):
        return UserRanking(np.empty(0, np.float32), dict.fromkeys(scorers, _NONE), ())
    outputs = {name: scorer.score(profile, items) for name, scorer in scorers.items()}
    sums, abstaining = _weighted_sums(outputs, weights)
    (ranking,) = _rankings(sums, outputs, abstaining, best_count, None)
    best = {name: (items[found], scores) for name, (found, scores) in ranking.best.items()}
    return UserRanking(ranking.scores, best, ranking.abstaining)


def _weighted_sums(
    outputs: dict[str, Float32], weights: Mapping[str, float]
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
        sums += np.float32(weights[name]) * outputs[name]
    return sums, abstaining


def _rankings(
    sums: Float32,
    outputs: Mapping[str, Float32],
    abstaining: Sequence[Sequence[str]],
    best_count: int,
    eligible: Bool | None,
) -> list[UserRanking]:
    """Selects the best items of each model (all arrays are B × C)."""
    best: list[dict[str, Found]] = [{} for _ in sums]
    for name, scores in outputs.items():
        found = top_rows(scores, best_count, eligible)
        for row, top in enumerate(found):
            allowed = None if eligible is None else eligible[row]
            best[row][name] = (
                _NONE if _is_flat(scores[row], top, allowed) else _found(scores, row, top)
            )
    return [
        UserRanking(row, found_row, tuple(names))
        for row, found_row, names in zip(sums, best, abstaining, strict=True)
    ]


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
