"""Item-based collaborative filtering."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.item_cf import ItemCFConfig
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.model import Training
from marquee_trainer.models.neighbours.item_cf import ItemCF

# Residuals around 3 stars by user (row) and item; NaN where there is no rating. Items 0 and 1 are
# rated alike, item 2 the other way round.
TOY = np.array([[1, 2, -1], [-1, -2, 1], [2, np.nan, np.nan]])
TOY_CONFIG = ItemCFConfig(neighbours=2, shrinkage=2.0, overlap_power=2.0, damping=0.25)


def data_of(residuals: np.ndarray) -> ReleaseData:
    """Ratings with residuals as given: the baseline is 3 stars for everybody and everything."""
    users, items = np.nonzero(~np.isnan(residuals))
    ratings = (residuals[users, items] + 3).astype(np.float32)
    matrix = RatingsMatrix.of(
        users.astype(np.int32), items.astype(np.int32), ratings, *residuals.shape
    )
    no_bias = Baseline(3.0, np.zeros(residuals.shape[1], np.float32), user_damping=1e12)
    return ReleaseData(matrix, no_bias)


def made_up(seed: int = 0, users: int = 60, items: int = 40) -> ReleaseData:
    """Ratings by two latent tastes."""
    rng = np.random.default_rng(seed)
    tastes = rng.normal(size=(users, 2)) @ rng.normal(size=(2, items))
    residuals = np.where(rng.random((users, items)) < 0.3, tastes, np.nan)
    matrix = data_of(residuals).matrix
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 3))


def fitted(data: ReleaseData, config: ItemCFConfig | None = None) -> ItemCF:
    """A fitted model."""
    model = ItemCF(config)
    model.fit(Training(data))
    return model


def test_toy_prediction_by_hand() -> None:
    """A prediction equals the one worked out on paper.

    Items 0 and 1 have n = 2 of 3 users in common and ρ = 1, so s = 1 · 2/4 · (2/3)² = 2/9. User 2
    rated item 0 by 2 above the baseline: item 1 has 3 + s · 2 / (s + 0.25 s) = 4.6, while item 2
    is like neither and stays at 3.
    """
    data = data_of(TOY)
    scores = fitted(data, TOY_CONFIG).scorer.score(data.matrix.profiles([2]))
    assert scores[0, 1:].tolist() == pytest.approx([4.6, 3.0], abs=1e-5)


def test_toy_similarities_by_hand() -> None:
    """The row of an item holds its neighbours, 0 elsewhere and 1 at itself."""
    row = fitted(data_of(TOY), TOY_CONFIG).scorer.similarities(0)
    assert row is not None
    assert row.tolist() == pytest.approx([1.0, 2 / 9, 0.0])


def test_toy_evidence_by_hand() -> None:
    """Evidence names the rated item, how like it is, and what it adds."""
    data = data_of(TOY)
    (evidence,) = fitted(data, TOY_CONFIG).scorer.rated_evidence(
        data.matrix.profiles([2]), np.array([1], np.int32), 5
    )
    assert evidence.items.tolist() == [0]
    assert evidence.similarities.tolist() == pytest.approx([2 / 9])
    assert evidence.contributions.tolist() == pytest.approx([1.6], abs=1e-5)


def test_contributions_add_up_to_the_departure_from_the_baseline() -> None:
    """Over all rated items nothing of a prediction is unexplained.

    With few neighbours an item's neighbours are not those that it is a neighbour of.
    """
    data = made_up()
    model = fitted(data, ItemCFConfig(neighbours=4))
    items = np.arange(data.matrix.item_count, dtype=np.int32)
    for user in range(0, data.matrix.user_count, 7):
        profile = data.matrix.profiles([user])
        evidence = model.scorer.rated_evidence(profile, items, 1000)
        total = np.array([one.contributions.sum() for one in evidence])
        wanted = model.scorer.score(profile)[0]
        np.testing.assert_allclose(data.baseline.score(profile)[0] + total, wanted, atol=1e-5)


def test_evidence_is_cut_to_the_largest_contributions() -> None:
    """The items named are those that pull most, up or down, in that order."""
    data = made_up()
    model = fitted(data)
    profile = data.matrix.profiles([3])
    items = np.arange(data.matrix.item_count, dtype=np.int32)
    everything = model.scorer.rated_evidence(profile, items, 1000)
    cut = model.scorer.rated_evidence(profile, items, 2)
    for whole, few in zip(everything, cut, strict=True):
        assert (np.diff(np.abs(whole.contributions)) <= 0).all()
        assert few.items.tolist() == whole.items[:2].tolist()
        assert np.isin(whole.items, profile.items).all()
    pulls = np.concatenate([one.contributions for one in cut])
    assert pulls.min() < 0 < pulls.max()


def test_known_users_and_visitors_are_one_case() -> None:
    """The same ratings give the same scores, whoever gives them."""
    data = made_up()
    model = fitted(data)
    for user in range(data.matrix.user_count):
        known = data.matrix.profiles([user])
        visitor = data.matrix.profile(-1, known.items, known.ratings)
        np.testing.assert_array_equal(model.scorer.score(visitor), model.scorer.score(known))


def test_neighbours_are_pruned_to_the_most_similar() -> None:
    """A smaller K keeps the best of the larger one's neighbours."""
    data = made_up()
    wide = fitted(data, ItemCFConfig(neighbours=30)).scorer
    narrow = fitted(data, ItemCFConfig(neighbours=4)).scorer
    for item in range(data.matrix.item_count):
        every, few = wide.similarities(item), narrow.similarities(item)
        assert every is not None
        assert few is not None
        kept = np.flatnonzero(few)
        assert len(kept) <= 5
        np.testing.assert_array_equal(few[kept], every[kept])
        assert every[few == 0].max(initial=0.0) <= few[kept].min()
