"""Ranks items with a blend of a backend's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import TopRows, top_rows
from marquee_core.scorers.scorer import Scorer, score_pairs
from marquee_services.scoring.candidates import candidates_of
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.plan import BestItems, Query, RankingPlan, TopItems
from marquee_services.scoring.ranker import Ranker, ranker_for
from marquee_services.scoring.top_items import own_best, proposers_of, top_items

# Approximate scores are replaced by exact ones for the best items of the sum, this multiple of the
# requested number (and at least a shortlist) plus the margin, and for the model's own best items,
# also with the margin.
_SUM_FACTOR, _MARGIN = 2, 12
# With up to this many candidates, every model scores exactly.
_MANY_CANDIDATES = 256
_NO_SCORES: Float32 = np.empty(0, np.float32)
_NONE: Found = np.empty(0, np.int32), _NO_SCORES


@dataclass(frozen=True)
class UserRanking:
    """The ranking of a user's items.

    Attributes:
        scores: The weighted sum of the models' scores of each item (float32, C); empty if the plan
            has a `top_count`.
        best: Each model's own best items with their scores, the best first, by the model's name;
            empty if the plan has a `top_count`.
        abstaining: The names of the models that cannot score the user and are not in the sum.
        stars: The user's best items as scored by the plan's `stars_models`; None if there are none.
        top: The plan's `top_count` best items of the whole ranking. Without items for a user whom a
            rating predictor cannot score, because the sum is incomplete, or whom no model can
            score. None if the plan has no `top_count`.
    """

    scores: Float32
    best: Mapping[str, Found]
    abstaining: tuple[str, ...]
    stars: BestItems | None
    top: TopItems | None


class ScoresNotFinite(RuntimeError):
    """A model returned scores that are not finite; the release is withdrawn if this continues."""


def rank(engine: Engine, queries: Sequence[Query], plan: RankingPlan) -> list[UserRanking]:
    """Ranks each user's candidates.

    Args:
        engine: The models of a release.
        queries: The users; they must have passed `Engine.check`.
        plan: How to rank.

    Returns:
        The ranking of each user.

    Raises:
        ModelNotFound: This backend lacks one of the models.
        ScoresNotFinite: A model returned scores that are not finite.
    """
    ranker = ranker_for(engine, plan)
    profiles = engine.profiles(queries)
    rankings: list[UserRanking | None] = [None] * len(queries)
    if plan.retrieve_count:
        for position, items in enumerate(candidates_of(engine, queries, profiles, ranker)):
            profile = profiles.single(position)
            (rankings[position],) = _rank_rows(profile, items, ranker, None)
        return [ranking for ranking in rankings if ranking is not None]
    whole = [position for position, query in enumerate(queries) if query.candidates is None]
    if whole:
        part = profiles if len(whole) == len(queries) else profiles.take(np.array(whole))
        hidden = _hidden_rows([queries[position] for position in whole], part, engine)
        for position, ranking in zip(whole, _rank_rows(part, None, ranker, hidden), strict=True):
            rankings[position] = ranking
    for position, query in enumerate(queries):
        if query.candidates is not None:
            profile = profiles.single(position)
            (rankings[position],) = _rank_rows(profile, query.candidates, ranker, None)
    return [ranking for ranking in rankings if ranking is not None]


def _hidden_rows(queries: Sequence[Query], profiles: Profiles, engine: Engine) -> Float32 | None:
    """Returns −∞ for items that must not be among a user's best, else 0 (float32, B × items).

    None if all items are eligible for all users.
    """
    if all(query.eligible is None and not query.new_only for query in queries):
        return None
    hidden = np.zeros((len(queries), engine.data.matrix.item_count), dtype=np.float32)
    for row, query in zip(hidden, queries, strict=True):
        if query.eligible is not None:
            row[~query.eligible] = -np.inf
    new_only = np.array([query.new_only for query in queries])
    if new_only.all():
        hidden[:, engine.unrated_items] = -np.inf
        hidden[profiles.rows, profiles.items] = -np.inf
    elif new_only.any():
        hidden[np.ix_(new_only, engine.unrated_items)] = -np.inf
        rated = new_only[profiles.rows]
        hidden[profiles.rows[rated], profiles.items[rated]] = -np.inf
    return hidden


def _rank_rows(
    profiles: Profiles, items: Int32 | None, ranker: Ranker, hidden: Float32 | None
) -> list[UserRanking]:
    """Ranks the same items for each of B users.

    Models that can approximate their scores do so for many items. They then score exactly the items
    that are among the best of the sum or of their own scores.

    Args:
        profiles: The profiles of the users.
        items: The items (int32, C); None for the whole catalogue.
        ranker: The models of the plan.
        hidden: −∞ for items that must not be among a user's best, else 0 (float32, B × C); None if
            all are eligible.
    """
    if items is not None and not len(items):
        return [_nothing(profiles.single(row), ranker) for row in range(len(profiles))]
    outputs, approximated = _outputs(profiles, items, ranker)
    abstains = _abstains(outputs, profiles, items, ranker)
    sums = _weighted_sums(outputs, ranker.weights, abstains)
    abstaining = _names_of(abstains, list(outputs))
    # The scores of each model, followed by those of the whole ranking; −∞ where an item is hidden.
    shown = np.empty((len(outputs) + 1, *sums.shape), dtype=np.float32)
    for position, scores in enumerate((*outputs.values(), sums)):
        if hidden is None:
            shown[position] = scores
        else:
            np.add(scores, hidden, out=shown[position])
    shown[-1] += ranker.shared if items is None else ranker.shared[items]
    exact = {}
    if approximated:
        exact = _score_exactly(profiles, items, ranker, approximated, outputs, sums, shown)
    plan, rows = ranker.plan, np.arange(len(sums))[:, None]
    top = top_rows(shown[-1], max(plan.stars_count, plan.top_count))
    stars: Sequence[BestItems | None] = [None] * len(sums)
    if ranker.stars_scorers:
        positions = top.indexes[:, : plan.stars_count]
        # A model that ranked has already scored these items, unless it abstained.
        known = {
            name: scores[rows, positions]
            for name, scores in outputs.items()
            if name in ranker.stars_scorers
            and not any(name in names for names in abstaining)
            and (name not in exact or exact[name][rows, positions].all())
        }
        to_score = TopRows(_items_at(items, positions), np.minimum(top.counts, plan.stars_count))
        stars = _stars(profiles, to_score, ranker, known)
    own = dict(zip(outputs, own_best(shown[:-1], abstains, plan.best_count), strict=True))
    if plan.top_count:
        proposers = proposers_of([own[name] for name, _ in plan.weights], sums.shape[1])
        counts = [plan.top_count if _is_whole(names, ranker) else 0 for names in abstaining]
        biases = ranker.baseline.user_bias(profiles)
        tops = top_items(top, items, counts, sums, proposers, biases)
        return [
            UserRanking(_NO_SCORES, {}, tuple(names), best_items, found)
            for names, best_items, found in zip(abstaining, stars, tops, strict=True)
        ]
    rankings = []
    for position, row in enumerate(sums):
        best = {
            name: (_items_at(items, found[position]), outputs[name][position, found[position]])
            for name, found in own.items()
        }
        rankings.append(UserRanking(row, best, tuple(abstaining[position]), stars[position], None))
    return rankings


def _outputs(
    profiles: Profiles, items: Int32 | None, ranker: Ranker
) -> tuple[dict[str, Float32], Mapping[str, Scorer]]:
    """Scores items with the models that rank.

    Returns:
        The scores by the model's name, approximate ones last (float32, B × C), and the scorers of
        the models whose scores are approximate.
    """
    outputs: dict[str, Float32] = {}
    rough: dict[str, Float32] = {}
    count = len(ranker.shared if items is None else items)
    may_approximate = count > _MANY_CANDIDATES and _shows_only_the_best(ranker.plan, count)
    for name, scorer in ranker.scorers.items():
        if may_approximate and name in ranker.approximating:
            approximate = ranker.approximating[name].approximate
            scores = ranker.timer.run(name, "rank", approximate, profiles, items)
            if scores is not None:
                rough[name] = scores
                continue
        outputs[name] = ranker.timer.run(name, "rank", scorer.score, profiles, items)
    return outputs | rough, {name: ranker.scorers[name] for name in rough}


def _shows_only_the_best(plan: RankingPlan, count: int) -> bool:
    """Returns whether only so many of the best items are shown that they are scored exactly.

    Otherwise any item may be shown, as on later pages and in diverse lists.

    Args:
        plan: The plan.
        count: The number of ranked items.
    """
    return bool(plan.stars_count) or 0 < plan.top_count < count


def _score_exactly(
    profiles: Profiles,
    items: Int32 | None,
    ranker: Ranker,
    approximated: Mapping[str, Scorer],
    outputs: Mapping[str, Float32],
    sums: Float32,
    shown: Float32,
) -> dict[str, Bool]:
    """Replaces approximate scores by exact ones for items that are among the best.

    Args:
        profiles: The profiles of B users.
        items: The items (int32, C); None for the whole catalogue.
        ranker: The models of the plan.
        approximated: The scorers of the models whose scores are approximate.
        outputs: The scores of each model, approximate ones last; modified (float32, B × C).
        sums: The weighted sums of the scores; modified (float32, B × C).
        shown: The scores of each model and their total, −∞ where an item is hidden; modified
            (float32, (models + 1) × B × C).

    Returns:
        Whether each score of each approximating model is exact (bool, B × C).
    """
    plan, (users, width) = ranker.plan, sums.shape
    near_own = plan.best_count + _MARGIN
    shown_count = max(_SUM_FACTOR * max(plan.best_count, plan.stars_count), plan.top_count)
    near_top = max(shown_count + _MARGIN, near_own)
    count, rows = len(approximated) + 1, np.arange(users)[:, None]
    near = top_rows(shown[-count:].reshape(-1, width), near_top).indexes.reshape(count, users, -1)
    is_exact: dict[str, Bool] = {}
    for position, (name, scorer) in enumerate(approximated.items()):
        # An item near the top of both is scored twice, which is cheaper than removing duplicates.
        positions = np.hstack([near[-1], near[position, :, :near_own]])
        is_exact[name] = np.zeros(sums.shape, dtype=np.bool_)
        is_exact[name][rows, positions] = True
        chosen = _items_at(items, positions)
        exact = ranker.timer.run(name, "rank", score_pairs, scorer, profiles, chosen)
        change = ranker.weights[name] * (exact - outputs[name][rows, positions])
        outputs[name][rows, positions] = exact
        sums[rows, positions] += change
        shown[-1][rows, positions] += change
        own = shown[position - count]
        own[rows, positions] = np.where(np.isfinite(own[rows, positions]), exact, -np.inf)
    return is_exact


def _items_at(items: Int32 | None, positions: Int32) -> Int32:
    """Returns the items at some positions among `items`, which is None for the whole catalogue."""
    return positions if items is None else items[positions]


def _nothing(profile: Profiles, ranker: Ranker) -> UserRanking:
    """Returns the ranking of no items for one user."""
    stars = BestItems(_NONE[0], dict.fromkeys(ranker.stars_scorers, _NO_SCORES))
    top = None
    if ranker.plan.top_count:
        top = TopItems(*_NONE, np.empty(0, np.int32), float(ranker.baseline.user_bias(profile)[0]))
    best = {} if top else dict.fromkeys(ranker.scorers, _NONE)
    return UserRanking(_NO_SCORES, best, (), stars if ranker.stars_scorers else None, top)


def _stars(
    profiles: Profiles, top: TopRows, ranker: Ranker, known: Mapping[str, Float32]
) -> list[BestItems]:
    """Returns the scores of each user's best items by the plan's `stars_models`.

    Args:
        profiles: The profiles of B users.
        top: The best items of each user.
        ranker: The models of the plan.
        known: The scores by some of the models, which are already known (float32, B × C).
    """
    scores = {
        name: known[name]
        if name in known
        else ranker.timer.run(name, "score", score_pairs, scorer, profiles, top.indexes)
        for name, scorer in ranker.stars_scorers.items()
    }
    return [
        BestItems(
            top[position], {name: values[position, :count] for name, values in scores.items()}
        )
        for position, count in enumerate(top.counts.tolist())
    ]


def _abstains(
    outputs: Mapping[str, Float32], profiles: Profiles, items: Int32 | None, ranker: Ranker
) -> Bool:
    """Returns whether each model cannot score each user (bool, models × B).

    A model abstains if it returns NaN. A ranker abstains too if it gives every item of the
    catalogue 0: it then knows nothing about what the user has rated.

    Args:
        outputs: The scores of each model (float32, B × C).
        profiles: The profiles of B users.
        items: The items (int32, C); None for the whole catalogue.
        ranker: The models of the plan.
    """
    first = np.array([scores[:, 0] for scores in outputs.values()])
    abstains: Bool = np.isnan(first)
    # A single score shows that most users have others than 0.
    maybe = first == 0
    if not maybe.any():
        return abstains
    for model, row in np.argwhere(maybe).tolist():
        name = list(outputs)[model]
        scorer = ranker.scorers[name]
        if scorer.output is not Output.AFFINITY or outputs[name][row].any():
            continue
        # A ranker may have scores of 0 for some items only.
        abstains[model, row] = items is None or not scorer.score(profiles.single(row)).any()
    return abstains


def _names_of(abstains: Bool, models: Sequence[str]) -> list[list[str]]:
    """Returns the names of the models that abstain for each of B users (B)."""
    names: list[list[str]] = [[] for _ in range(abstains.shape[1])]
    if not abstains.any():  # As for most users.
        return names
    for model, row in np.argwhere(abstains).tolist():
        names[row].append(models[model])
    return names


def _is_whole(abstaining: Sequence[str], ranker: Ranker) -> bool:
    """Returns whether a user's sum ranks the items although some models abstain.

    A ranker that abstains adds nothing to the ranking. But the gateway replaces a rating predictor
    that abstains by the baseline, and ranks as for a cold start if all models abstain.
    """
    if not abstaining:
        return True
    ranks = len(abstaining) < len(ranker.scorers) or bool(ranker.plan.gateway_weights)
    return ranks and all(ranker.scorers[name].output is Output.AFFINITY for name in abstaining)


def _weighted_sums(
    outputs: dict[str, Float32], weights: Mapping[str, np.float32], abstains: Bool
) -> Float32:
    """Sums the models' scores (float32, B × C).

    Args:
        outputs: The scores of each model; set to 0 where it abstains (float32, B × C).
        weights: The weight of each model.
        abstains: Whether each model cannot score each user (bool, models × B).

    Raises:
        ScoresNotFinite: A score is NaN or infinite, although the model does not abstain.
    """
    sums = np.zeros_like(next(iter(outputs.values())))
    if abstains.any():
        for name, rows in zip(list(outputs), abstains, strict=True):
            if rows.any():
                outputs[name] = np.where(rows[:, None], np.float32(0), outputs[name])
    for name, scores in outputs.items():
        sums += weights[name] * scores
    _check_finite(sums, outputs)
    return sums


def _check_finite(sums: Float32, outputs: Mapping[str, Float32]) -> None:
    """Checks that all scores are finite, so that no other score reaches a caller.

    Raises:
        ScoresNotFinite: A score is NaN or infinite.
    """
    if not np.isfinite(sums).all():
        names = [name for name, scores in outputs.items() if not np.isfinite(scores).all()]
        raise ScoresNotFinite(f"scores of {', '.join(names) or 'the sum'} are not finite")
