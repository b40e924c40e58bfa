"""Ranked candidates: which models propose an item, and further tiers of candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marquee_core.release.ensemble import Blend, BlendPair
from marquee_core.retrieval.exact import Found
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates

BLENDS = BlendPair(Blend({}, 0.0), Blend({}, 0.0))


def found(items: Sequence[int], scores: Sequence[float]) -> Found:
    """Return items with their scores."""
    return np.array(items, np.int32), np.array(scores, np.float32)


def ranked(items: Sequence[int], best: dict[str, Found], best_count: int = 2) -> RankedCandidates:
    """Return a ranking of some items that all have the score 0."""
    indexes = np.array(items, np.int32)
    return RankedCandidates(indexes, np.zeros(len(items)), best, best_count, BLENDS, frozenset())


def test_an_item_is_proposed_by_models_that_rank_it_high() -> None:
    """The names of the models are sorted, and positions are translated to items."""
    best = {"mf": found([7, 5], [2, 1]), "ease": found([5], [1]), "ials": found([], [])}
    proposers = ranked([5, 6, 7], best).proposers(np.array([0, 1, 2], np.int32))
    assert [*map(list, proposers)] == [["ease", "mf"], [], ["mf"]]


def test_a_further_tier_is_ranked_after_the_first() -> None:
    """Each model keeps the best items of both tiers, and known stars are kept."""
    first = ranked([1, 2], {"mf": found([1, 2], [3, 1])})
    first.stars[:] = [4.0, 2.0]
    both = first.extended(ranked([8, 9], {"mf": found([9, 8], [2, 0]), "ease": found([8], [1])}))
    assert both.items is not None
    assert both.items.tolist() == [1, 2, 8, 9]
    assert both.tiers is not None
    assert both.tiers.tolist() == [0, 0, 1, 1]
    assert both.best["mf"][0].tolist() == [1, 9]
    assert both.best["ease"][0].tolist() == [8]
    assert np.array_equal(both.stars, [4.0, 2.0, np.nan, np.nan], equal_nan=True)
