"""Item-based collaborative filtering, compared with hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.scorers.item_cf import ItemCFConfig
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.model import Training
from marquee_trainer.models.neighbours.item_cf import ItemCF
from toy.ratings import factor_model_data, unbiased_release_data

# Residuals around 3 stars by user (row) and item, NaN without a rating. Items 0 and 1 have similar
# ratings, item 2 the opposite ones.
TOY = np.array([[1, 2, -1], [-1, -2, 1], [2, np.nan, np.nan]])
TOY_CONFIG = ItemCFConfig(neighbours=2, shrinkage=2.0, overlap_power=2.0, damping=0.25)


def fitted(data: ReleaseData, config: ItemCFConfig | None = None) -> ItemCF:
    """Return a fitted model."""
    model = ItemCF(config)
    model.fit(Training(data))
    return model


def test_toy_prediction_by_hand() -> None:
    """A prediction equals the one computed by hand.

    Items 0 and 1 have n = 2 of 3 users in common and ρ = 1, so s = 1 · 2/4 · (2/3)² = 2/9. User 2
    rated item 0 2 stars above the baseline, so the prediction for item 1 is
    3 + s · 2 / (s + 0.25 s) = 4.6. Item 2 is similar to neither; its prediction is the baseline, 3.
    """
    data = unbiased_release_data(TOY)
    scores = fitted(data, TOY_CONFIG).scorer.score(data.matrix.profiles([2]))
    assert scores[0, 1:].tolist() == pytest.approx([4.6, 3.0], abs=1e-5)


def test_toy_similarities_by_hand() -> None:
    """The similarity is 1 to the item itself, and 0 to items that are not neighbours."""
    row = fitted(unbiased_release_data(TOY), TOY_CONFIG).scorer.similarities(0)
    assert row.tolist() == pytest.approx([1.0, 2 / 9, 0.0])


def test_toy_evidence_by_hand() -> None:
    """The evidence has the rated item, its similarity and its contribution."""
    data = unbiased_release_data(TOY)
    (evidence,) = fitted(data, TOY_CONFIG).scorer.rated_evidence(
        data.matrix.profiles([2]), np.array([1], np.int32), 5
    )
    assert evidence.items.tolist() == [0]
    assert evidence.similarities.tolist() == pytest.approx([2 / 9])
    assert evidence.contributions.tolist() == pytest.approx([1.6], abs=1e-5)


def test_contributions_sum_to_the_difference_from_the_baseline() -> None:
    """The contributions of all rated items explain the whole prediction.

    With few neighbours, the neighbour relation is not symmetric.
    """
    data = factor_model_data()
    model = fitted(data, ItemCFConfig(neighbours=4))
    items = np.arange(data.matrix.item_count, dtype=np.int32)
    for user in range(0, data.matrix.user_count, 7):
        profile = data.matrix.profiles([user])
        evidence = model.scorer.rated_evidence(profile, items, 1000)
        total = np.array([one.contributions.sum() for one in evidence])
        predicted = model.scorer.score(profile)[0]
        np.testing.assert_allclose(data.baseline.score(profile)[0] + total, predicted, atol=1e-5)


def test_evidence_is_limited_to_the_largest_contributions() -> None:
    """The evidence has the items with the largest absolute contributions, in that order."""
    data = factor_model_data()
    model = fitted(data)
    profile = data.matrix.profiles([3])
    items = np.arange(data.matrix.item_count, dtype=np.int32)
    everything = model.scorer.rated_evidence(profile, items, 1000)
    cut = model.scorer.rated_evidence(profile, items, 2)
    for whole, few in zip(everything, cut, strict=True):
        assert (np.diff(np.abs(whole.contributions)) <= 0).all()
        assert few.items.tolist() == whole.items[:2].tolist()
        assert np.isin(whole.items, profile.items).all()
    contributions = np.concatenate([one.contributions for one in cut])
    assert contributions.min() < 0 < contributions.max()


def test_a_visitor_with_a_users_ratings_gets_the_users_scores() -> None:
    """The same ratings give the same scores to a known user and to a visitor."""
    data = factor_model_data()
    model = fitted(data)
    for user in range(data.matrix.user_count):
        known = data.matrix.profiles([user])
        visitor = data.matrix.profile(-1, known.items, known.ratings)
        np.testing.assert_array_equal(model.scorer.score(visitor), model.scorer.score(known))


def test_neighbours_are_pruned_to_the_most_similar() -> None:
    """With a smaller K, only the most similar neighbours remain."""
    data = factor_model_data()
    wide = fitted(data, ItemCFConfig(neighbours=30)).scorer
    narrow = fitted(data, ItemCFConfig(neighbours=4)).scorer
    for item in range(data.matrix.item_count):
        all_similarities = wide.similarities(item)
        few = narrow.similarities(item)
        kept = np.flatnonzero(few)
        assert len(kept) <= 5
        np.testing.assert_array_equal(few[kept], all_similarities[kept])
        assert all_similarities[few == 0].max(initial=0.0) <= few[kept].min()
