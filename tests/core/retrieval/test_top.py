"""Selection of the highest scores, and re-ranking for diversity."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from marquee_core.retrieval.top import best_unordered, top_indexes, top_rows, union_of
from marquee_services.gateway.ranking.diversity import diversify

scores = arrays(np.float32, st.integers(0, 60), elements=st.sampled_from([0.0, 1.0, 2.5, np.nan]))


@given(scores, st.integers(0, 70), st.randoms(use_true_random=False))
def test_the_selection_equals_that_of_a_full_sort(
    values: np.ndarray, count: int, random: object
) -> None:
    """The selection also handles ties and NaN."""
    eligible = np.array([random.random() < 0.7 for _ in values], dtype=np.bool_)  # type: ignore[attr-defined]
    usable = [i for i in range(len(values)) if eligible[i] and not np.isnan(values[i])]
    expected = sorted(usable, key=lambda i: (-values[i], i))[:count]
    assert top_indexes(values, count, eligible).tolist() == expected


@given(
    st.integers(16_384, 20_000),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.001, 0.5, 1.0]),
    st.sampled_from([0.0, 0.001, 0.5, 1.0]),
    st.sampled_from([3, 10**6]),
    st.integers(0, 1000),
)
@settings(max_examples=60)
def test_the_selection_from_a_large_catalogue_equals_that_of_a_full_sort(
    size: int, count: int, missing: float, hidden: float, distinct: int, seed: int
) -> None:
    """Selecting by blocks misses no item, even with ties, NaN and few eligible items."""
    random = np.random.default_rng(seed)
    values = random.integers(0, distinct, size).astype(np.float32)
    values[random.random(size) < missing] = np.nan
    eligible = random.random(size) >= hidden
    for mask in (None, eligible):
        usable = np.flatnonzero(~np.isnan(values) & (True if mask is None else mask))
        expected = usable[np.lexsort((usable, -values[usable]))][:count]
        assert top_indexes(values, count, mask).tolist() == expected.tolist()


def unit_rows(seed: int, count: int) -> np.ndarray:
    """Draw random unit vectors."""
    rows = np.random.default_rng(seed).normal(size=(count, 4))
    unit: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


@given(st.integers(0, 1000), st.integers(1, 30))
def test_without_diversity_items_are_ordered_by_score(seed: int, count: int) -> None:
    """A diversity of 0 does not change the order."""
    values = -np.sort(-np.random.default_rng(seed).normal(size=count))
    assert diversify(values, unit_rows(seed, count), 0.0, count).tolist() == list(range(count))


@given(st.integers(0, 1000), st.integers(2, 30), st.floats(0, 1))
def test_a_longer_selection_extends_a_shorter_one(seed: int, count: int, diversity: float) -> None:
    """Pages of a diversified list are therefore consistent."""
    values = -np.sort(-np.random.default_rng(seed).normal(size=count))
    vectors = unit_rows(seed, count)
    whole = diversify(values, vectors, diversity, count).tolist()
    assert sorted(whole) == list(range(count))
    assert diversify(values, vectors, diversity, count // 2).tolist() == whole[: count // 2]


def test_diversity_prefers_a_different_item_to_a_duplicate() -> None:
    """The second of two equal items comes after a different one."""
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    assert diversify(np.array([3.0, 2.9, 2.0]), vectors, 0.5, 3).tolist() == [0, 2, 1]


@given(
    st.integers(1, 4),
    st.integers(1, 700),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    st.sampled_from([1, 3, 10**6]),
    st.integers(0, 1000),
)
def test_selecting_rows_together_equals_one_by_one(
    rows: int, size: int, count: int, hidden: float, distinct: int, seed: int
) -> None:
    """Results agree with ties, few eligible items, and rows too short for blocks."""
    random = np.random.default_rng(seed)
    values = random.integers(0, distinct, (rows, size)).astype(np.float32)
    eligible = random.random((rows, size)) >= hidden
    for mask in (None, eligible):
        found = top_rows(values, count, mask)
        for row in range(rows):
            expected = top_indexes(values[row], count, None if mask is None else mask[row])
            assert found[row].tolist() == expected.tolist()


@given(st.integers(0, 3_000), st.integers(0, 60), st.integers(0, 9), st.booleans())
def test_an_unordered_selection_has_the_highest_scores(
    size: int, count: int, seed: int, has_ties: bool
) -> None:
    """Equal scores are interchangeable, and −∞ is never selected, however it is distributed."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal(size).astype(np.float32)
    if has_ties:
        scores = np.sort(np.round(scores))
        scores[: size // 3] = -np.inf
    found = best_unordered(scores, count)
    expected = top_indexes(scores, count, scores > -np.inf)
    assert sorted(scores[found].tolist()) == sorted(scores[expected].tolist())
    assert (np.diff(found) > 0).all()


def test_a_union_has_each_item_once_in_ascending_order() -> None:
    """Candidates of several models, some of them empty, become one ascending array."""
    parts = [np.array(part, dtype=np.int32) for part in ([7, 2, 5], [], [5, 9, 2])]
    union = union_of(parts)
    assert union.tolist() == [2, 5, 7, 9]
    assert union.dtype == np.int32
    assert union_of([parts[1]]).tolist() == []
