"""The limit of the ratings of a user from which similarities of items are computed."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.scorers.item_cf import ItemCFConfig, item_residuals
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.coverage import partial_coverage
from marquee_trainer.models.model import Training
from marquee_trainer.models.neighbours import interaction_cut
from marquee_trainer.models.neighbours.interaction_cut import InteractionCut, cut_columns
from marquee_trainer.models.neighbours.item_cf import ItemCF, item_neighbours
from toy.ratings import release_data

USERS, ITEMS = 300, 40
CONFIG = ItemCFConfig(neighbours=8)


@pytest.fixture(scope="module")
def data() -> ReleaseData:
    """Ratings of two kinds of items; the first ten users rate nearly everything."""
    random = np.random.default_rng(0)
    kind = np.arange(ITEMS) % 2
    taste = random.normal(size=(USERS, 2))
    stars = 3 + taste[:, kind] + 0.4 * random.normal(size=(USERS, ITEMS))
    chance = np.where(np.arange(USERS) < 10, 0.95, 0.3)
    rated = random.random((USERS, ITEMS)) < chance[:, None]
    return release_data(np.where(rated, np.clip(stars, 1, 5), np.nan))


def test_small_data_is_used_completely(data: ReleaseData) -> None:
    """Below the limit of co-ratings nothing is cut, and there is nothing to report."""
    assert InteractionCut.of(data.matrix) is None
    model = ItemCF(CONFIG)
    model.fit(Training(data))
    assert partial_coverage([model], data.matrix) == {}


def test_only_the_most_active_users_are_sampled(data: ReleaseData) -> None:
    """A column above the limit keeps that many of its residuals, and others keep all of them."""
    residuals = item_residuals(data)
    counts = np.diff(residuals.indptr)
    cut = cut_columns(residuals, 20)
    np.testing.assert_array_equal(np.diff(cut.indptr), np.minimum(counts, 20))
    whole, kept = residuals.toarray(), cut.toarray()
    np.testing.assert_array_equal(kept[kept != 0], whole[kept != 0])
    assert cut.nnz == np.minimum(counts, 20).sum()
    np.testing.assert_array_equal(cut_columns(residuals, 20).toarray(), kept)


def test_large_data_is_cut_and_says_so(data: ReleaseData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours come from the sample, most of them unchanged, and its size is told."""
    exact = item_neighbours(data, CONFIG)
    monkeypatch.setattr(interaction_cut, "_ALL_CO_RATINGS", 1_000)
    monkeypatch.setattr(interaction_cut, "_MOST_PER_USER", 20)
    model = ItemCF(CONFIG)
    model.fit(Training(data))
    found = model.scorer._neighbours
    common = sum(len(np.intersect1d(exact.row(i)[0], found.row(i)[0])) for i in range(ITEMS))
    assert 0.8 * len(exact.indices) < common
    assert len(found.indices) == len(exact.indices)
    assert not np.array_equal(found.similarities, exact.similarities)
    used = int(np.minimum(np.diff(data.matrix.indptr), 20).sum())
    cut = partial_coverage([model], data.matrix)["item_cf"]
    assert cut == InteractionCut(20, used, data.matrix.rating_count)
    assert f"{used:,} of {data.matrix.rating_count:,} ratings, at most 20 of each user" in str(cut)
