"""The list cache: which lists it stores, and how it computes their size."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.release.ensemble import Blend, BlendPair
from marquee_core.retrieval.exact import Found
from marquee_services.gateway.caching.list_cache import ListCache
from marquee_services.gateway.ranking.ranked_candidates import RankedCandidates

BLEND = Blend({"baseline": 1.0}, 0.0)


def ranked_list(size: int, best: Found | None = None) -> RankedCandidates:
    """Return a ranked list with `size` candidates."""
    found = {} if best is None else {"ease": best}
    scores = np.arange(size, dtype=np.float64)
    return RankedCandidates(None, scores, found, 20, BlendPair(BLEND, BLEND), frozenset())


def test_a_list_stored_again_counts_once() -> None:
    """Serving many pages of one list does not evict other lists."""
    one = ranked_list(100)
    cache = ListCache(3 * one.nbytes)
    cache.put("other", ranked_list(100))
    cache.put("walked", one)
    for _ in range(50):
        cached = cache.get("walked")
        assert cached is not None
        cache.put("walked", cached)
        assert cache.get("walked") is cached
    cache.put("new", ranked_list(100))
    assert all(cache.get(name) is not None for name in ("other", "walked", "new"))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 60)), max_size=40))
def test_the_cache_keeps_the_latest_lists_that_fit(puts: list[tuple[str, int]]) -> None:
    """The least recently stored lists are evicted once the limit in bytes is exceeded."""
    limit = 5 * ranked_list(20).nbytes
    cache = ListCache(limit)
    sizes: dict[str, int] = {}
    for name, size in puts:
        cache.put(name, ranked_list(size))
        sizes.pop(name, None)
        sizes[name] = ranked_list(size).nbytes
        while sum(sizes.values()) > limit:
            del sizes[next(iter(sizes))]
    assert len(cache) == len(sizes)
    assert all(cache.get(name) is not None for name in sizes)


def test_a_cached_list_is_a_copy() -> None:
    """A cached list does not keep the arrays of a whole batch in memory."""
    items, scores = np.arange(1000, dtype=np.int32), np.arange(1000, dtype=np.float32)
    cache = ListCache(1 << 20)
    cache.put("a", ranked_list(10, (items[:3], scores[:3])))
    cached = cache.get("a")
    assert cached is not None
    assert all(array.base is None for array in cached.best["ease"])


def test_a_cached_list_keeps_predicted_stars() -> None:
    """Stars that were predicted for one page are not predicted again for the next."""
    ranked = ranked_list(4)
    ranked.stars[2] = 3.5
    cache = ListCache(1 << 20)
    cache.put("a", ranked)
    cached = cache.get("a")
    assert cached is not None
    assert np.array_equal(cached.stars, [np.nan, np.nan, 3.5, np.nan], equal_nan=True)
