"""User-based collaborative filtering, compared with hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.user_cf import UserCFConfig
from marquee_trainer.models.model import Training
from marquee_trainer.models.neighbours.user_cf import UserCF
from toy.ratings import factor_model_data, unbiased_release_data

# Residuals around 3 stars, NaN without a rating. Users 0 and 1 agree, user 2 disagrees.
TOY = np.array([[1, -1, np.nan], [2, -2, 1], [-1, 1, -1]])
TOY_CONFIG = UserCFConfig(
    neighbours=2, shrinkage=2.0, overlap_power=1.0, damping=0.25, deviation_damping=1.0
)


def fitted(data: ReleaseData, config: UserCFConfig | None = None) -> UserCF:
    """Return a fitted model."""
    model = UserCF(config)
    model.fit(Training(data))
    return model


def test_toy_prediction_by_hand() -> None:
    """A prediction equals the one computed by hand.

    The two users have n = 2 of 3 items in common and ρ = 1, so s = 1 · 2/4 · 2/3 = 1/3. σ² = 14/8;
    σ_0² = (2 + 1.75) / 3 = 1.25, σ_1² = (9 + 1.75) / 4 = 2.6875. Item 2 has s z / (s + 0.25 s) =
    (1 / σ_1) / 1.25, times σ_0: 0.5455955.
    """
    data = unbiased_release_data(TOY)
    scores = fitted(data, TOY_CONFIG).scorer.score(data.matrix.profiles([0]))
    assert scores[0, 2] == pytest.approx(3.5455955, abs=1e-5)


def test_toy_evidence_by_hand() -> None:
    """The evidence counts one neighbour, and has the rating and the contribution."""
    data = unbiased_release_data(TOY)
    profile = data.matrix.profiles([0])
    (evidence,) = fitted(data, TOY_CONFIG).scorer.neighbour_evidence(
        profile, np.array([2], np.int32)
    )
    assert evidence.count == 1
    assert evidence.mean_stars == pytest.approx(4.0)
    assert evidence.contribution == pytest.approx(0.5455955, abs=1e-5)


def test_evidence_agrees_with_the_prediction() -> None:
    """For each item, the baseline and the contribution sum to the score."""
    data = factor_model_data()
    model = fitted(data)
    items = np.arange(data.matrix.item_count, dtype=np.int32)
    profile = data.matrix.profile(
        -1, np.array([1, 5, 9], np.int32), np.array([5, 1, 4], np.float32)
    )
    evidence = model.scorer.neighbour_evidence(profile, items)
    shifts = np.array([one.contribution for one in evidence])
    predicted = model.scorer.score(profile)[0]
    np.testing.assert_allclose(data.baseline.score(profile)[0] + shifts, predicted, atol=1e-6)
    for one in evidence:
        assert (one.count == 0) == (one.mean_stars == 0.0)


def test_a_visitor_with_a_users_ratings_gets_the_users_scores() -> None:
    """The user with the same ratings is not a neighbour of the visitor, so the scores are equal."""
    data = factor_model_data()
    model = fitted(data, UserCFConfig(neighbours=5))
    for user in range(data.matrix.user_count):
        known = data.matrix.profiles([user])
        visitor = data.matrix.profile(-1, known.items, known.ratings)
        np.testing.assert_allclose(
            model.scorer.score(visitor), model.scorer.score(known), atol=1e-6
        )


def test_a_user_with_new_ratings_equals_a_visitor_with_all_ratings() -> None:
    """The training ratings of a user are not a neighbour of the user's own folded-in profile."""
    data = factor_model_data()
    model = fitted(data, UserCFConfig(neighbours=5))
    unseen = np.setdiff1d(np.arange(40), data.matrix.seen(7))[:1].astype(np.int32)
    folded = data.matrix.profile(7, unseen, np.array([5], np.float32))
    visitor = data.matrix.profile(-1, folded.items, folded.ratings)
    assert folded.needs_fold_in.all()
    np.testing.assert_array_equal(model.scorer.score(folded), model.scorer.score(visitor))


def test_new_ratings_change_the_scores() -> None:
    """A folded-in profile is scored from its ratings rather than with the stored neighbours."""
    data = factor_model_data()
    model = fitted(data)
    known = data.matrix.profiles([7])
    reversed_profile = data.matrix.profile(7, known.items, (6 - known.ratings).astype(np.float32))
    assert np.abs(model.scorer.score(reversed_profile) - model.scorer.score(known)).max() > 0.1


def test_dissimilar_users_do_not_contribute() -> None:
    """A user without similar users gets the baseline."""
    data = unbiased_release_data(TOY[[0, 2]])
    profile = data.matrix.profiles([0])
    scores = fitted(data, TOY_CONFIG).scorer.score(profile)
    np.testing.assert_array_equal(scores, data.baseline.score(profile))
    (evidence,) = fitted(data, TOY_CONFIG).scorer.neighbour_evidence(
        profile, np.array([2], np.int32)
    )
    assert (evidence.count, evidence.mean_stars, evidence.contribution) == (0, 0.0, 0.0)


def test_constant_ratings_give_the_baseline() -> None:
    """If all residuals are 0, the predictions are those of the baseline."""
    data = unbiased_release_data(np.array([[0.0, 0.0, np.nan], [0.0, 0.0, 0.0]]))
    profile = data.matrix.profiles([0])
    np.testing.assert_array_equal(fitted(data).scorer.score(profile), data.baseline.score(profile))
