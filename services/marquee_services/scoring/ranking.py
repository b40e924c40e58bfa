"""Ranks items with a blend of one backend's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.ratings import Profiles
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import TopRows, pad_rows, top_rows
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import Approximates, Scorer, implements, score_pairs
from marquee_services.errors import ModelNotFound
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.model_times import Timer
from marquee_services.scoring.plan import BestItems, Query, RankingPlan

# These of a model's approximate scores are replaced by exact ones: the best of the sum, this many
# times the requested number and so many more, and the model's own best, so many more than that.
_SUM_FACTOR, _MARGIN = 2, 24
# Up to this number of candidates every model scores exactly.
_MANY_CANDIDATES = 256
# Plans whose scorers and sums are kept; there is about one for each page size in use.
_MAX_RANKERS = 64
_NONE: Found = np.empty(0, np.int32), np.empty(0, np.float32)


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
    stars: BestItems | None
    top: Int32
    bias: float


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


class ScoresNotFinite(RuntimeError):
    """A model returned scores that are not finite; the release is withdrawn if that goes on."""


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
        hidden = _hidden_rows([queries[place] for place in whole], part, engine)
        for place, ranking in zip(whole, _rank_rows(part, None, ranker, hidden), strict=True):
            rankings[place] = ranking
    for place, query in enumerate(queries):
        if query.candidates is not None:
            profile = profiles.take(np.array([place]))
            (rankings[place],) = _rank_rows(profile, query.candidates, ranker, None)
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
        {
            name: cast("Approximates", scorer)
            for name, scorer in scorers.items()
            if implements(type(scorer), Approximates)
        },
        engine.timer,
        engine.data.baseline,
    )


def _hidden_rows(queries: Sequence[Query], profiles: Profiles, engine: Engine) -> Float32 | None:
    """−∞ for items that may not be among a user's best, else 0 (float32, B × items).

    None if all items may be for all users.
    """
    if all(query.eligible is None and not query.new_only for query in queries):
        return None
    hidden = np.zeros((len(queries), engine.data.matrix.item_count), dtype=np.float32)
    for row, query in zip(hidden, queries, strict=True):
        if query.eligible is not None:
            row[~query.eligible] = -np.inf
    new_only = np.array([query.new_only for query in queries])
    if new_only.any():
        hidden[np.ix_(new_only, engine.unrated_items)] = -np.inf
        rated = new_only[profiles.rows]
        hidden[profiles.rows[rated], profiles.items[rated]] = -np.inf
    return hidden


def _masked(scores: Float32, hidden: Float32 | None) -> Float32:
    return scores if hidden is None else scores + hidden


def _rank_rows(
    profiles: Profiles, items: Int32 | None, ranker: _Ranker, hidden: Float32 | None
) -> list[UserRanking]:
    """Ranks the same items for each of B users.

    Models that can approximate the scores of many items do so, and score exactly the items that
    then are among the best of the sum or of their own.

    Args:
        profiles: The profiles of the users.
        items: The items (int32, C); None for the whole catalogue.
        ranker: Has the scorers.
        hidden: −∞ for items that may not be among a user's best, else 0 (float32, B × C); None if
            all may be.
    """
    if items is not None and not len(items):
        return [_nothing(ranker) for _ in range(len(profiles))]
    outputs: dict[str, Float32] = {}
    approximated: dict[str, Scorer] = {}
    timer, shared = ranker.timer, ranker.shared if items is None else ranker.shared[items]
    for name, scorer in ranker.scorers.items():
        scores = None
        if name in ranker.approximating and (items is None or len(items) > _MANY_CANDIDATES):
            scores = timer.run(
                name, "rank", ranker.approximating[name].approximate, profiles, items
            )
        if scores is not None:
            approximated[name] = scorer
            outputs[name] = scores
        else:
            outputs[name] = timer.run(name, "rank", scorer.score, profiles, items)
    sums, abstaining = _weighted_sums(outputs, ranker.weights)
    best_count, stars_count = ranker.plan.best_count, ranker.plan.stars_count
    top_count = ranker.plan.top_count
    totals = _masked(sums + shared, hidden)
    if approximated:
        near_top = top_rows(totals, _SUM_FACTOR * max(best_count, stars_count) + _MARGIN)
    rows = np.arange(len(sums))[:, None]
    is_exact: dict[str, Bool] = {}
    for name, scorer in approximated.items():
        own_top = top_rows(_masked(outputs[name], hidden), best_count + _MARGIN)
        marks = is_exact[name] = np.zeros(sums.shape, dtype=np.bool_)
        for top in (near_top, own_top):
            marks[rows, top.indexes] = True
        marked = np.flatnonzero(marks)
        width = outputs[name].shape[1]
        places = pad_rows(marked // width, marked % width, len(marks)).indexes
        chosen = _items_at(items, places)
        exact = timer.run(name, "rank", score_pairs, scorer, profiles, chosen)
        change = ranker.weights[name] * (exact - outputs[name][rows, places])
        outputs[name][rows, places] = exact
        sums[rows, places] += change
        totals[rows, places] += change
    best = _own_best(outputs, items, best_count, hidden)
    stars: Sequence[BestItems | None] = [None] * len(sums)
    top = top_rows(totals, max(stars_count, top_count))
    if ranker.stars_scorers:
        places = top.indexes[:, :stars_count]
        # A model that ranked has scored these items already, unless it abstained.
        known = {
            name: scores[rows, places]
            for name, scores in outputs.items()
            if name in ranker.stars_scorers
            and not any(name in names for names in abstaining)
            and (name not in is_exact or is_exact[name][rows, places].all())
        }
        shown = TopRows(_items_at(items, places), np.minimum(top.counts, stars_count))
        stars = _stars(profiles, shown, ranker, known)
    tops = [_items_at(items, top[row][:top_count]) for row in range(len(sums))]
    return [
        UserRanking(row, own, tuple(names), pool, best_items, bias)
        for row, own, names, pool, best_items, bias in zip(
            sums, best, abstaining, stars, tops, ranker.biases(profiles), strict=True
        )
    ]


def _items_at(items: Int32 | None, places: Int32) -> Int32:
    """The items at some places among the ranked ones; None stands for the whole catalogue."""
    return places if items is None else items[places]


def _nothing(ranker: _Ranker) -> UserRanking:
    """The ranking of no items."""
    none = np.empty(0, np.float32)
    stars = BestItems(_NONE[0], dict.fromkeys(ranker.stars_scorers, none))
    best = dict.fromkeys(ranker.scorers, _NONE)
    return UserRanking(none, best, (), stars if ranker.stars_scorers else None, _NONE[0], np.nan)


def _stars(
    profiles: Profiles, top: TopRows, ranker: _Ranker, known: Mapping[str, Float32]
) -> list[BestItems]:
    """The scores of each user's best items.

    Args:
        profiles: The profiles of B users.
        top: The best items of each user.
        ranker: Has the scorers.
        known: The scores by some of the models (float32, B × C).
    """
    scores = {
        name: known[name]
        if name in known
        else ranker.timer.run(name, "score", score_pairs, scorer, profiles, top.indexes)
        for name, scorer in ranker.stars_scorers.items()
    }
    return [
        BestItems(top[place], {name: values[place, :count] for name, values in scores.items()})
        for place, count in enumerate(top.counts.tolist())
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
    _check_finite(sums, outputs)
    return sums, abstaining


def _check_finite(sums: Float32, outputs: Mapping[str, Float32]) -> None:
    """Lets no score that is not a number reach a caller.

    Raises:
        ScoresNotFinite: A score is NaN or infinite.
    """
    if not np.isfinite(sums).all():
        names = [name for name, scores in outputs.items() if not np.isfinite(scores).all()]
        raise ScoresNotFinite(f"scores of {', '.join(names) or 'the sum'} are not finite")


def _own_best(
    outputs: Mapping[str, Float32],
    items: Int32 | None,
    best_count: int,
    hidden: Float32 | None,
) -> list[dict[str, Found]]:
    """Selects the best items of each model for each user; see `_rank_rows` for the arguments.

    A model that scores all items of a user alike has no best items.
    """
    best: list[dict[str, Found]] = [{} for _ in next(iter(outputs.values()))]
    for name, scores in outputs.items():
        masked = _masked(scores, hidden)
        top = top_rows(masked, best_count)
        values = scores[np.arange(len(scores))[:, None], top.indexes]
        for row, count in enumerate(top.counts.tolist()):
            own = values[row, :count]
            if not count or (own[0] == own[-1] and _is_flat(masked[row])):
                best[row][name] = _NONE
            else:
                best[row][name] = _items_at(items, top[row]), own
    return best


def _is_flat(scores: Float32) -> bool:
    """Whether all scores above −∞ are equal."""
    finite = scores[scores > -np.inf]
    return bool(finite.min() == finite.max())
