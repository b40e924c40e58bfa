"""Cuts pages from scores: filters first, then order, then diversity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.retrieval.top import top_indexes
from marquee_services.gateway.ranking.diversity import diversify
from marquee_services.gateway.ranking.scored import Scored

# Items that are re-ranked for diversity; those after them follow in order of their scores.
DIVERSITY_POOL = 500


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes:
        places: Places among the candidates, best first (int32).
        eligible: Which candidates qualify (bool).
        has_more: Whether a page follows.
    """

    places: Int32
    eligible: Bool
    has_more: bool


def cut_page(
    scored: Scored,
    eligible: Bool,
    min_stars: float | None,
    diversity: float,
    item_vectors: Float32,
    offset: int,
    size: int,
) -> Page:
    """Cuts a page.

    Args:
        scored: The scores.
        eligible: Which items of the catalogue qualify (bool, items).
        min_stars: Only candidates with at least this predicted rating.
        diversity: 0 to 1.
        item_vectors: Unit vectors of all items (float32, items × d).
        offset: How many items the pages before held.
        size: How many items a page holds.
    """
    qualifies = eligible if scored.items is None else eligible[scored.items]
    if min_stars is not None:
        qualifies = qualifies & (scored.stars >= min_stars)
    end = offset + size
    depth = max(end, DIVERSITY_POOL) if diversity > 0 else end
    order = _order(scored, depth + 1, qualifies)
    has_more = len(order) > end
    if diversity > 0:
        # Of the first tier alone, so that the pool is the same on every page.
        first = len(order) if scored.tiers is None else int((scored.tiers[order] == 0).sum())
        size_of_pool = min(first, DIVERSITY_POOL)
        pool, rest = order[:size_of_pool], order[size_of_pool:]
        picked = diversify(
            scored.ranking[pool], item_vectors[scored.item_indexes(pool)], diversity, end
        )
        order = np.concatenate([pool[picked], rest]) if len(picked) == len(pool) else pool[picked]
    return Page(order[offset:end], qualifies, has_more)


def _order(scored: Scored, count: int, qualifies: Bool) -> Int32:
    """The best candidates, those of earlier tiers first (int32, at most `count`)."""
    if scored.tiers is None:
        return top_indexes(scored.ranking, count, qualifies).astype(np.int32)
    parts = [np.empty(0, dtype=np.int32)]
    for tier in range(int(scored.tiers.max(initial=-1)) + 1):
        left = count - sum(len(part) for part in parts)
        best = top_indexes(scored.ranking, left, qualifies & (scored.tiers == tier))
        parts.append(best.astype(np.int32))
    return np.concatenate(parts)
