"""Generates the candidates of a large catalogue that a ranking plan ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from marquee_core.arrays import Bool, Int32
from marquee_core.ratings import Profiles
from marquee_core.retrieval.exact import ItemIndex, ScoresByProduct
from marquee_core.retrieval.top import best_unordered, union_of
from marquee_core.scorers.scorer import Scorer, ScoresCore, implements
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.plan import Query
from marquee_services.scoring.ranker import Ranker
from marquee_services.scoring.retrieval import best_of_all


def candidates_of(
    engine: Engine, queries: Sequence[Query], profiles: Profiles, ranker: Ranker
) -> list[Int32]:
    """Returns the union of each model's best eligible items for each user.

    The models of the plan that can search retrieve candidates; if none can, they all score the
    whole catalogue. The gateway's own models retrieve the best items of their weighted sum. If a
    filter leaves no more items than a model retrieves, all of them are candidates.

    Args:
        engine: The models of a release.
        queries: The users, B of them, without candidates.
        profiles: The profiles of the users.
        ranker: The models of a plan with a `retrieve_count`.

    Returns:
        The candidates of each user (int32, ascending).
    """
    count = ranker.plan.retrieve_count
    # Users with the same mask are searched for together; most have no mask of their own.
    groups: dict[int, tuple[Bool | None, list[int]]] = {}
    for position, query in enumerate(queries):
        mask = _mask(engine, query, int(profiles.counts[position]), count)
        groups.setdefault(id(mask), (mask, []))[1].append(position)
    candidates: list[Int32] = [np.empty(0, np.int32)] * len(queries)
    for mask, positions in groups.values():
        part = profiles if len(positions) == len(queries) else profiles.take(np.array(positions))
        if mask is not None and np.count_nonzero(mask) <= count:
            found = [np.flatnonzero(mask).astype(np.int32)] * len(positions)
        else:
            found = _search(engine, part, ranker, mask, [queries[p].new_only for p in positions])
        for row, (position, items) in enumerate(zip(positions, found, strict=True)):
            if queries[position].new_only:
                rated = part.items[part.indptr[row] : part.indptr[row + 1]]
                items = _without(items, rated)
            candidates[position] = items
    return candidates


def _mask(engine: Engine, query: Query, rated: int, count: int) -> Bool | None:
    """Returns whether each item may be retrieved for a user (bool, items); None for all.

    Items that the user has rated are usually not excluded here: it is cheaper to retrieve that many
    more items and to drop them afterwards, unless there are very many.
    """
    if not query.new_only:
        return query.eligible
    mask = engine.known_items
    if query.eligible is not None:
        mask = query.eligible if mask is None else query.eligible & mask
    if rated > count:
        mask = np.ones(engine.data.matrix.item_count, np.bool_) if mask is None else mask.copy()
        mask[engine.profiles([query]).items] = False
    return mask


def _search(
    engine: Engine,
    profiles: Profiles,
    ranker: Ranker,
    mask: Bool | None,
    new_only: Sequence[bool],
) -> list[Int32]:
    """Returns the union of each model's best items for users with the same mask."""
    count = ranker.plan.retrieve_count
    rated = profiles.counts[np.array(new_only)]
    # Each model also finds items that the user has rated, which are dropped later.
    wanted = count + int(rated[rated <= count].max(initial=0))
    searching = _searching(ranker.scorers, engine.indexes)
    parts: list[list[Int32]] = [[] for _ in range(len(profiles))]
    for name, scorer in (searching or ranker.scorers).items():
        index = engine.indexes.get(name)
        found = ranker.timer.run(
            name, "retrieve", _best_of, index, scorer, profiles, wanted, mask, not searching
        )
        for own, items in zip(parts, found, strict=True):
            own.append(items)
    if ranker.plan.gateway_weights:
        shared = ranker.best_shared(wanted, mask)
        for own in parts:
            own.append(shared)
    return [union_of(own) for own in parts]


def _searching(
    scorers: Mapping[str, Scorer], indexes: Mapping[str, ItemIndex]
) -> dict[str, Scorer]:
    """Returns the models that can search without scoring the whole catalogue."""
    return {
        name: scorer
        for name, scorer in scorers.items()
        if name in indexes or implements(type(scorer), ScoresCore)
    }


def _best_of(
    index: ItemIndex | None,
    scorer: Scorer,
    profiles: Profiles,
    count: int,
    mask: Bool | None,
    whole: bool,
) -> list[Int32]:
    """Returns the best items of one model for each user (int32, without order).

    The items of a model that approximates its scores are found by the approximate ones.
    """
    if whole or (index is not None and not (profiles.counts > 0).all()):
        return [items for items, _ in best_of_all(scorer, profiles, count, mask)]
    if index is not None:
        products = cast("ScoresByProduct", scorer).user_products(profiles)
        return index.candidates(products, count, mask)
    core, scores = cast("ScoresCore", scorer).score_core(profiles)
    own = None if mask is None else mask[core]
    found: list[Int32] = []
    for position, row in enumerate(scores):
        top = best_unordered(row if own is None else np.where(own, row, -np.inf), count)
        if len(top) == count and row[top].min() > 0:
            found.append(core[top])
        else:
            single = profiles.single(position)
            found += [items for items, _ in best_of_all(scorer, single, count, mask)]
    return found


def _without(items: Int32, rated: Int32) -> Int32:
    """Removes the items that a user has rated; both are ascending and distinct."""
    if not len(rated):
        return items
    positions = np.searchsorted(items, rated)
    positions = positions[items.take(positions, mode="clip") == rated] if len(items) else positions
    return np.delete(items, positions) if len(items) else items
