"""Cuts a page from a ranking: sorts, then re-ranks for diversity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.retrieval.top import top_indexes
from marquee_services.gateway.ranking.diversity import diversify
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates

# The number of best items that are re-ranked for diversity; other items stay ordered by score.
DIVERSITY_POOL = 500


@dataclass(frozen=True)
class Page:
    """A page of a ranked list.

    Attributes:
        positions: Positions among the candidates, the best first (int32).
        has_more: Whether there is a next page.
    """

    positions: Int32
    has_more: bool


def cut_page(
    ranked: RankedCandidates,
    allowed: Bool | None,
    diversity: float,
    item_vectors: Float32,
    offset: int,
    size: int,
) -> Page:
    """Cuts a page from the allowed candidates.

    Args:
        ranked: The candidates and their ranking scores.
        allowed: Whether each candidate may be on a page (bool, C); None to allow all.
        diversity: The weight of diversity, 0 (none) to 1.
        item_vectors: Unit vectors of all items, used only for diversity (float32, items × d).
        offset: The number of items on the previous pages.
        size: The number of items of a page.
    """
    end = offset + size
    order = best_positions(ranked, page_depth(diversity, end), allowed)
    has_more = len(order) > end
    if diversity > 0:
        # The pool contains only the first tier, so that it is the same for every page.
        first_tier = len(order) if ranked.tiers is None else int((ranked.tiers[order] == 0).sum())
        pool_size = min(first_tier, DIVERSITY_POOL)
        pool, rest = order[:pool_size], order[pool_size:]
        selected = diversify(
            ranked.scores[pool], item_vectors[ranked.item_indexes(pool)], diversity, end
        )
        order = (
            np.concatenate([pool[selected], rest]) if len(selected) == len(pool) else pool[selected]
        )
    return Page(order[offset:end], has_more)


def page_depth(diversity: float, end: int) -> int:
    """Returns how many of the best candidates determine a page and whether there is a next one.

    Args:
        diversity: The weight of diversity, 0 (none) to 1.
        end: The number of items on the page and the previous pages.
    """
    return (max(end, DIVERSITY_POOL) if diversity > 0 else end) + 1


def best_positions(ranked: RankedCandidates, count: int, allowed: Bool | None) -> Int32:
    """Returns positions of the best candidates, earlier tiers first (int32, at most `count`)."""
    if ranked.is_shortlist and allowed is None:
        return np.arange(min(count, len(ranked.scores)), dtype=np.int32)
    if ranked.tiers is None:
        return top_indexes(ranked.scores, count, allowed).astype(np.int32)
    parts = [np.empty(0, dtype=np.int32)]
    for tier in range(int(ranked.tiers.max(initial=-1)) + 1):
        missing = count - sum(len(part) for part in parts)
        in_tier = ranked.tiers == tier
        best = top_indexes(
            ranked.scores, missing, in_tier if allowed is None else allowed & in_tier
        )
        parts.append(best.astype(np.int32))
    return np.concatenate(parts)
