"""Kept lists: what the memory holds, and what it counts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.release.ensemble import Blend, BlendPair
from marquee_services.gateway.caching.list_cache import ListCache
from marquee_services.gateway.ranking.scored import Scored

BLEND = Blend({"baseline": 1.0}, 0.0)


def scored_list(size: int) -> Scored:
    """Scores of so many items."""
    scores = np.arange(size, dtype=np.float32)
    pair = BlendPair(BLEND, BLEND)
    return Scored(None, {"baseline": scores}, pair, frozenset(), (1.0, 5.0), (), ())


def test_walking_the_pages_of_a_list_takes_its_memory_once() -> None:
    """However often a page of a list is served, other lists keep their place."""
    one = scored_list(100)
    memory = ListCache(3 * one.nbytes)
    memory.put("other", scored_list(100))
    memory.put("walked", one)
    for _ in range(50):
        kept = memory.get("walked")
        assert kept is not None
        memory.put("walked", kept)
        assert memory.get("walked") is kept
    memory.put("new", scored_list(100))
    assert all(memory.get(name) is not None for name in ("other", "walked", "new"))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 60)), max_size=40))
def test_what_is_kept_is_the_latest_that_fits(puts: list[tuple[str, int]]) -> None:
    """The memory holds the lists put last, in a bound of bytes, whatever was put before."""
    limit = 5 * scored_list(20).nbytes
    memory = ListCache(limit)
    sizes: dict[str, int] = {}
    for name, size in puts:
        memory.put(name, scored_list(size))
        sizes.pop(name, None)
        sizes[name] = scored_list(size).nbytes
        while sum(sizes.values()) > limit:
            del sizes[next(iter(sizes))]
    assert len(memory) == len(sizes)
    assert all(memory.get(name) is not None for name in sizes)


def test_a_kept_list_is_a_copy() -> None:
    """A list does not hold the answer of a whole batch in memory."""
    whole = np.arange(1000, dtype=np.float32)
    pair = BlendPair(BLEND, BLEND)
    memory = ListCache(1 << 20)
    memory.put("a", Scored(None, {"baseline": whole[:10]}, pair, frozenset(), (1.0, 5.0), (), ()))
    kept = memory.get("a")
    assert kept is not None
    assert kept.outputs["baseline"].base is None


def test_a_model_that_scores_all_alike_proposes_nothing() -> None:
    """No item is its best; another model's best are named, by the models' names."""
    outputs = {
        "mf": np.array([3, 1, 2, 0], np.float32),
        "ease": np.zeros(4, np.float32),
        "autorec": np.array([0, 1, 2, 3], np.float32),
        # Its best are alike, but not all that it scores.
        "ials": np.array([0, 1, 1, 1], np.float32),
    }
    blend = Blend(dict.fromkeys(outputs, 1.0), 0.0)
    scored = Scored(None, outputs, BlendPair(blend, blend), frozenset(), (1.0, 5.0), (), ())
    eligible = np.array([True, True, True, False])
    found = scored.proposers(np.array([0, 1, 2], np.int32), eligible, 2)
    assert found == [["mf"], ["autorec", "ials"], ["autorec", "ials", "mf"]]
