"""Finds a model's best items for users: with an index, in the model's core, or among all items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from marquee_core.arrays import Bool
from marquee_core.ratings import Profiles
from marquee_core.retrieval.exact import Found, ItemIndex, ScoresByProduct
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.scorer import Approximates, Scorer, ScoresCore, implements

# A search by approximate scores finds a quarter more items than requested, plus this many.
_WIDER_SHARE, _WIDER_BY = 4, 24
# If less than one in this many items is eligible, only those are scored.
_FEW_SHARE = 4


def search(
    index: ItemIndex | None,
    scorer: Scorer,
    profiles: Profiles,
    count: int,
    eligible: Bool | None,
) -> list[Found]:
    """Finds the best items of a model for each user, if possible without scoring all items.

    Args:
        index: The model's index; None to search its core.
        scorer: The model's scorer; a `ScoresCore` if it has no index.
        profiles: The profiles of B users.
        count: The number of items for each user.
        eligible: Whether each item may be found (bool, items); None to allow all.
    """
    if index is None:
        return _best_of_core(scorer, profiles, count, eligible)
    if not (profiles.counts > 0).all():
        return best_of_all(scorer, profiles, count, eligible)
    products = cast("ScoresByProduct", scorer).user_products(profiles)
    if not implements(type(scorer), Approximates):
        return index.search(products, count, eligible)
    found = index.search(products, _wider(count), eligible)
    return _exactly(scorer, profiles, found, count)


def _best_of_core(
    scorer: Scorer, profiles: Profiles, count: int, eligible: Bool | None
) -> list[Found]:
    """Returns the best items of a model's core for each user.

    For users for whom too few items of the core score above 0, the whole catalogue is scored.
    """
    core, scores = cast("ScoresCore", scorer).score_core(profiles)
    own = None if eligible is None else eligible[core]
    found: list[Found] = []
    for position, row in enumerate(scores):
        top = top_indexes(row, count, own)
        if len(top) == count and row[top[-1]] > 0:
            found.append((core[top], row[top]))
        else:
            found += best_of_all(scorer, profiles.single(position), count, eligible)
    return found


def best_of_all(
    scorer: Scorer, profiles: Profiles, count: int, eligible: Bool | None
) -> list[Found]:
    """Returns the best items of a model for each user, found by scoring the whole catalogue.

    If few items are eligible, only these are scored. If the model can approximate its scores, the
    approximate ones find the items, which are then scored exactly.
    """
    items = None
    if eligible is not None and 0 < _FEW_SHARE * np.count_nonzero(eligible) < len(eligible):
        items = np.flatnonzero(eligible).astype(np.int32)
    approximate = None
    if implements(type(scorer), Approximates):
        approximate = cast("Approximates", scorer).approximate(profiles, items)
    found: list[Found] = []
    for row in scorer.score(profiles, items) if approximate is None else approximate:
        wanted = count if approximate is None else _wider(count)
        top = top_indexes(row, wanted, eligible if items is None else None)
        best = top.astype(np.int32) if items is None else items[top]
        found.append((best, row[top]))
    return found if approximate is None else _exactly(scorer, profiles, found, count)


def _wider(count: int) -> int:
    """Returns the number of items to find by approximate scores for a number of exact ones."""
    return count + count // _WIDER_SHARE + _WIDER_BY


def _exactly(scorer: Scorer, profiles: Profiles, found: Sequence[Found], count: int) -> list[Found]:
    """Replaces the approximate scores of found items by exact ones, and selects the best."""
    exact: list[Found] = []
    for position, (items, scores) in enumerate(found):
        if len(items):
            scores = scorer.score(profiles.single(position), items)[0]
        order = np.lexsort((items, -scores))[:count]
        exact.append((items[order], scores[order]))
    return exact
