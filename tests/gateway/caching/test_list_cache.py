"""The list cache: which lists it holds, and how it counts their size."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.release.ensemble import Blend, BlendPair
from marquee_services.gateway.caching.list_cache import ListCache
from marquee_services.gateway.ranking.scored_candidates import ScoredCandidates

BLEND = Blend({"baseline": 1.0}, 0.0)


def scored_list(size: int) -> ScoredCandidates:
    """A scored list with `size` candidates."""
    scores = np.arange(size, dtype=np.float32)
    pair = BlendPair(BLEND, BLEND)
    return ScoredCandidates(None, {"baseline": scores}, pair, frozenset(), (1.0, 5.0), (), ())


def test_a_list_put_again_counts_once() -> None:
    """Serving many pages of one list does not evict other lists."""
    one = scored_list(100)
    cache = ListCache(3 * one.nbytes)
    cache.put("other", scored_list(100))
    cache.put("walked", one)
    for _ in range(50):
        cached = cache.get("walked")
        assert cached is not None
        cache.put("walked", cached)
        assert cache.get("walked") is cached
    cache.put("new", scored_list(100))
    assert all(cache.get(name) is not None for name in ("other", "walked", "new"))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 60)), max_size=40))
def test_the_cache_holds_the_latest_lists_that_fit(puts: list[tuple[str, int]]) -> None:
    """The least recently put lists are evicted once the limit of bytes is exceeded."""
    limit = 5 * scored_list(20).nbytes
    cache = ListCache(limit)
    sizes: dict[str, int] = {}
    for name, size in puts:
        cache.put(name, scored_list(size))
        sizes.pop(name, None)
        sizes[name] = scored_list(size).nbytes
        while sum(sizes.values()) > limit:
            del sizes[next(iter(sizes))]
    assert len(cache) == len(sizes)
    assert all(cache.get(name) is not None for name in sizes)


def test_a_cached_list_is_a_copy() -> None:
    """A cached list does not keep the arrays of a whole batch in memory."""
    whole = np.arange(1000, dtype=np.float32)
    pair = BlendPair(BLEND, BLEND)
    cache = ListCache(1 << 20)
    cache.put(
        "a", ScoredCandidates(None, {"baseline": whole[:10]}, pair, frozenset(), (1.0, 5.0), (), ())
    )
    cached = cache.get("a")
    assert cached is not None
    assert cached.outputs["baseline"].base is None


def test_a_model_that_scores_all_items_equally_proposes_none() -> None:
    """The other models propose their best items; the names are sorted."""
    outputs = {
        "mf": np.array([3, 1, 2, 0], np.float32),
        "ease": np.zeros(4, np.float32),
        "autorec": np.array([0, 1, 2, 3], np.float32),
        # The best scores are equal, but not all scores are.
        "ials": np.array([0, 1, 1, 1], np.float32),
    }
    blend = Blend(dict.fromkeys(outputs, 1.0), 0.0)
    scored = ScoredCandidates(
        None, outputs, BlendPair(blend, blend), frozenset(), (1.0, 5.0), (), ()
    )
    eligible = np.array([True, True, True, False])
    found = scored.proposers(np.array([0, 1, 2], np.int32), eligible, 2)
    assert found == [["mf"], ["autorec", "ials"], ["autorec", "ials", "mf"]]
