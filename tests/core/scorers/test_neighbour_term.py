"""The item neighbourhoods within another model's prediction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.arrays import Float32
from marquee_core.scorers import neighbour_term
from marquee_core.scorers.neighbour_term import NeighbourTerm
from toy.ratings import release_data

ITEMS = 30


def random_term(seed: int) -> tuple[NeighbourTerm, Float32]:
    """Return a term with random neighbours of each item, and its users' ratings (NaN: unrated)."""
    random = np.random.default_rng(seed)
    near = random.random((ITEMS, ITEMS)) < 0.3
    np.fill_diagonal(near, val=False)
    stars = np.where(random.random((6, ITEMS)) < 0.4, random.random((6, ITEMS)) - 0.5, np.nan)
    stars[0] = np.nan
    return (
        NeighbourTerm(
            np.concatenate([[0], np.cumsum(near.sum(axis=1))]),
            np.nonzero(near)[1].astype(np.int32),
            random.random(int(near.sum())).astype(np.float32),
            (random.random(ITEMS) + 0.1).astype(np.float32),
            release_data(stars).baseline,
            0.7,
        ),
        stars.astype(np.float32),
    )


@given(st.integers(0, 10_000))
def test_all_items_have_the_scores_of_any_items(seed: int) -> None:
    """The whole catalogue is scored by the rated items, and other items by their neighbours."""
    term, stars = random_term(seed)
    profiles = release_data(stars).matrix.all_profiles()
    every = np.arange(ITEMS, dtype=np.int32)
    np.testing.assert_array_equal(term.score(profiles), term.score(profiles, every))
    assert not term.score(profiles)[0].any()


def test_a_term_that_is_too_large_to_reverse_gives_the_same_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reversing the neighbours of a large catalogue would take too much memory."""
    term, stars = random_term(0)
    profiles = release_data(stars).matrix.all_profiles()
    expected = term.score(profiles)
    assert "_reversed" in vars(term)
    fresh, _ = random_term(0)
    monkeypatch.setattr(neighbour_term, "_MAX_REVERSED", len(fresh.indices) - 1)
    np.testing.assert_array_equal(fresh.score(profiles), expected)
    assert "_reversed" not in vars(fresh)
