"""Cuts a page from scores: filters, then sorts, then re-ranks for diversity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.retrieval.top import top_indexes
from marquee_services.gateway.ranking.diversity import diversify
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates

# How many of the best items are re-ranked for diversity. Items below keep the order of scores.
DIVERSITY_POOL = 500


@dataclass(frozen=True)
class Page:
    """One page of a ranked list.

    Attributes:
        positions: Positions among the candidates, best first (int32).
        eligible: Which candidates the filters allow (bool, candidates).
        has_more: Whether there is a next page.
    """

    positions: Int32
    eligible: Bool
    has_more: bool


def cut_page(
    scored: ScoredCandidates,
    eligible: Bool,
    min_stars: float | None,
    diversity: float,
    item_vectors: Float32,
    offset: int,
    size: int,
) -> Page:
    """Ranks the eligible candidates and cuts one page of them.

    Args:
        scored: The candidates and their scores.
        eligible: Which items of the catalogue the filter allows (bool, items).
        min_stars: The lowest predicted rating that a candidate may have; None for no limit.
        diversity: The weight of diversity, 0 (none) to 1.
        item_vectors: Unit vectors of all items (float32, items × d), for diversity only.
        offset: How many items the earlier pages hold.
        size: The number of items of a page.
    """
    allowed = eligible if scored.items is None else eligible[scored.items]
    if min_stars is not None:
        allowed = allowed & (scored.stars >= min_stars)
    end = offset + size
    depth = max(end, DIVERSITY_POOL) if diversity > 0 else end
    order = _order(scored, depth + 1, allowed)
    has_more = len(order) > end
    if diversity > 0:
        # Candidates of later tiers are not in the pool, so that it is the same for every page.
        first_tier = len(order) if scored.tiers is None else int((scored.tiers[order] == 0).sum())
        pool_size = min(first_tier, DIVERSITY_POOL)
        pool, rest = order[:pool_size], order[pool_size:]
        selected = diversify(
            scored.ranking[pool], item_vectors[scored.item_indexes(pool)], diversity, end
        )
        order = (
            np.concatenate([pool[selected], rest]) if len(selected) == len(pool) else pool[selected]
        )
    return Page(order[offset:end], allowed, has_more)


def _order(scored: ScoredCandidates, count: int, allowed: Bool) -> Int32:
    """Positions of the best candidates, earlier tiers first (int32, at most `count`)."""
    if scored.tiers is None:
        return top_indexes(scored.ranking, count, allowed).astype(np.int32)
    parts = [np.empty(0, dtype=np.int32)]
    for tier in range(int(scored.tiers.max(initial=-1)) + 1):
        missing = count - sum(len(part) for part in parts)
        best = top_indexes(scored.ranking, missing, allowed & (scored.tiers == tier))
        parts.append(best.astype(np.int32))
    return np.concatenate(parts)
