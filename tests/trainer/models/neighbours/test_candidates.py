"""Candidate neighbours, for data with too many rows to compare all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.scorers.neighbours import CoRatings
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.user_cf import UserCFConfig, UserResiduals
from marquee_trainer.models.model import Training
from marquee_trainer.models.neighbours import candidates, neighbourhoods
from marquee_trainer.models.neighbours.candidates import candidate_rows
from marquee_trainer.models.neighbours.user_cf import UserCF
from toy.ratings import release_data

USERS, ITEMS = 240, 60
CONFIG = UserCFConfig(neighbours=10)


@pytest.fixture(scope="module")
def data() -> ReleaseData:
    """Ratings by users of six tastes, each of whom mostly rates a part of the items."""
    random = np.random.default_rng(0)
    taste = random.integers(0, 6, USERS)
    likes = random.normal(size=(6, ITEMS))
    chance = np.where(random.random((6, ITEMS)) < 0.5, 0.6, 0.1)
    rated = random.random((USERS, ITEMS)) < chance[taste]
    stars = 3 + likes[taste] + 0.3 * random.normal(size=(USERS, ITEMS))
    return release_data(np.where(rated, np.clip(stars, 1, 5), np.nan))


@pytest.fixture
def ratings(data: ReleaseData) -> CoRatings:
    """The standardised residuals."""
    return UserResiduals(data, CONFIG).ratings


def always_candidates(monkeypatch: pytest.MonkeyPatch, per_neighbour: int) -> None:
    """Compare rows with candidates, however few rows there are."""
    monkeypatch.setattr(neighbourhoods, "_EXACT_PAIRS", -1)
    monkeypatch.setattr(neighbourhoods, "candidate_pairs", lambda *_: -1)
    monkeypatch.setattr(neighbourhoods, "_CANDIDATES_PER_NEIGHBOUR", per_neighbour)


def neighbours_of(data: ReleaseData) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the neighbours of each user, and their similarities."""
    model = UserCF(CONFIG)
    model.fit(Training(data))
    found = model.scorer._neighbours
    assert found is not None
    return [found.row(user) for user in range(len(found))]


def test_with_all_rows_as_candidates_neighbours_are_exact(
    data: ReleaseData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing with candidates gives the same neighbours and bit-identical similarities."""
    exact = neighbours_of(data)
    always_candidates(monkeypatch, per_neighbour=USERS)
    for found, expected in zip(neighbours_of(data), exact, strict=True):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_a_few_candidates_include_most_of_the_neighbours(
    data: ReleaseData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sixth of the rows as candidates, the neighbours are nearly as similar."""
    exact = neighbours_of(data)
    always_candidates(monkeypatch, per_neighbour=4)
    monkeypatch.setattr(candidates, "_GROUP_ROWS", 20)
    monkeypatch.setattr(candidates, "_PROBED_ROWS", USERS // 2)
    found = neighbours_of(data)
    reached = sum(float(similarities.sum()) for _, similarities in found)
    assert reached > 0.85 * sum(float(similarities.sum()) for _, similarities in exact)


@pytest.mark.parametrize("group", [7, 64, 1_000])
def test_candidates_are_distinct_and_include_the_row_itself(
    ratings: CoRatings, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    """Each row has the configured number of candidates in ascending order, including itself."""
    monkeypatch.setattr(candidates, "_GROUP_ROWS", group)
    monkeypatch.setattr(candidates, "_PROBED_ROWS", 50)
    found, order = candidate_rows(ratings, 30)
    assert found.shape == (USERS, 30)
    assert (np.diff(found, axis=1) > 0).all()
    assert (found == np.arange(USERS)[:, None]).any(axis=1).all()
    np.testing.assert_array_equal(np.sort(order), np.arange(USERS))


def test_small_data_is_compared_completely(
    data: ReleaseData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates are used only above a number of additions, and only if they cost less."""

    def unexpected(*_: object) -> None:
        raise AssertionError("candidates were searched")

    monkeypatch.setattr(neighbourhoods, "candidate_rows", unexpected)
    assert len(neighbours_of(data)) == USERS
    # Comparing with as many candidates as rows costs more than comparing all rows.
    monkeypatch.setattr(neighbourhoods, "_EXACT_PAIRS", 0)
    monkeypatch.setattr(neighbourhoods, "_CANDIDATES_PER_NEIGHBOUR", USERS)
    assert len(neighbours_of(data)) == USERS


@pytest.mark.parametrize("kinds", [1, 3, 1_000])
def test_the_greatest_values_are_found_among_equal_ones(kinds: int) -> None:
    """The requested number of positions is found in each row, with ties in any order."""
    values = np.random.default_rng(0).integers(0, kinds, (20, 50)).astype(np.float32)
    places = candidates._greatest(values, 7)
    assert places.shape == (20, 7)
    assert (np.diff(places, axis=1) > 0).all()
    expected = np.sort(values, axis=1)[:, -7:]
    found = np.sort(np.take_along_axis(values, places, axis=1), axis=1)
    np.testing.assert_array_equal(found, expected)
