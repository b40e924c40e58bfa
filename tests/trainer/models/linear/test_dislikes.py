"""Dislikes are evidence against similar items: their values and the resulting scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.arrays import Float32
from marquee_core.ratings import dislike_limit
from marquee_core.scorers.ease import EASEConfig
from marquee_core.scorers.item_weights import feedback_values, prior_weights
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.linear.implicit_feedback import ImplicitFeedbackModel
from marquee_trainer.models.linear.slit import SLIT
from marquee_trainer.models.model import Training
from toy.ratings import release_data

USERS, ITEMS, GROUPS = 160, 80, 4
GROUP = ITEMS // GROUPS
MODELS: list[type[ImplicitFeedbackModel]] = [EASE, SLIT, IALS]  # type: ignore[type-arg]


@pytest.fixture(scope="module")
def data() -> ReleaseData:
    """Four groups of users who mostly watch and like their own items, the first most often."""
    random = np.random.default_rng(0)
    own = (np.arange(USERS)[:, None] % GROUPS) == (np.arange(ITEMS) // GROUP)
    popular = 0.7 - 0.5 * (np.arange(ITEMS) % GROUP) / GROUP
    rated = random.random(own.shape) < np.where(own, popular, popular / 5)
    stars = np.where(own, random.integers(3, 6, own.shape), random.integers(1, 5, own.shape))
    return release_data(np.where(rated, stars, 0), random.integers(0, 9, np.count_nonzero(rated)))


@pytest.fixture(params=MODELS, ids=lambda kind: str(kind.name))
def scorer(request: pytest.FixtureRequest, data: ReleaseData) -> Scorer:
    """The scorer of each model."""
    model = request.param()
    model.fit(Training(data))
    fitted: Scorer = model.scorer
    return fitted


def visitor(data: ReleaseData, scorer: Scorer, ratings: dict[int, float]) -> Float32:
    """Return the scores for a visitor with the given stars by item."""
    items = np.array(list(ratings), np.int32)
    stars = np.array(list(ratings.values()), np.float32)
    row: Float32 = scorer.score(data.matrix.profile(-1, items, stars))[0]
    return row


def test_the_lowest_three_tenths_of_a_scale_are_dislikes() -> None:
    """These are 2 of 5 stars, 1.5 of half stars from 0.5, 3 of 10, and thumbs down."""
    on_scale = {(1, 5): 2, (0.5, 5): 1.5, (1, 10): 3, (0, 1): 0, (0, 100): 30, (-10, 10): -4}
    for (low, high), highest in on_scale.items():
        step = 0.5 if (low, high) == (0.5, 5) else 1.0
        ratings = np.arange(low, high + step, step)
        assert ratings[ratings <= dislike_limit(low, high)].max() == highest


@given(
    st.lists(st.floats(0.5, 5.0, width=32), min_size=1, max_size=20),
    st.floats(0.5, 5.0),
    st.floats(0.0, 1.0),
    st.floats(0.01, 3.0),
)
def test_values_never_fall_as_the_stars_rise(
    stars: list[float], minimum: float, indifference: float, weight: float
) -> None:
    """A dislike is negative for any minimum of a like, and more stars are never worth less."""
    ratings, limit = np.sort(np.array(stars, np.float32)), dislike_limit(0.5, 5.0)
    values = feedback_values(ratings, minimum, indifference, -weight, limit)
    assert (np.diff(values) >= 0).all()
    assert (values[ratings <= limit] < 0).all()
    assert (values[ratings > limit] >= 0).all()
    without = feedback_values(ratings, minimum, indifference, -weight, -math.inf)
    assert (without >= 0).all()


def test_a_dislike_lowers_the_items_that_a_like_raises(data: ReleaseData, scorer: Scorer) -> None:
    """A like raises the other items of its group, and a dislike lowers them."""
    # The items are ordered by time, so an older rating does not change the weight of the others.
    history = {25: 5.0, 27: 4.0}
    before = visitor(data, scorer, history)
    liked = visitor(data, scorer, {2: 5.0, **history}) - before
    disliked = visitor(data, scorer, {2: 1.0, **history}) - before
    near = np.delete(np.arange(GROUP), 2)
    assert liked[near].mean() > 0.0 > disliked[near].mean()
    assert disliked[near].mean() < disliked[GROUP:].mean()


def test_disliking_one_group_recommends_popular_items_of_others(
    data: ReleaseData, scorer: Scorer
) -> None:
    """Without any likes, the best items are the popular ones of the other groups."""
    disliked = dict.fromkeys((0, 1, 2, 3, 4), 1.0)
    scores = visitor(data, scorer, disliked)
    best = np.argsort(-scores, kind="stable")[:8]
    counts = data.matrix.item_counts
    assert (best >= GROUP).all()
    assert counts[best].mean() > counts[GROUP:].mean()


def test_one_star_and_five_stars_rank_differently(data: ReleaseData, scorer: Scorer) -> None:
    """Changing five ratings from 5 stars to 1 replaces at least half of the top 10."""
    items = (0, 2, 4, 6, 8)
    tops = []
    for stars in (5.0, 1.0):
        scores = visitor(data, scorer, dict.fromkeys(items, stars))
        scores[list(items)] = -np.inf
        tops.append(set(np.argsort(-scores, kind="stable")[:10].tolist()))
    assert len(tops[0] - tops[1]) >= 5


def test_without_dislikes_the_prior_has_no_weight(data: ReleaseData) -> None:
    """The prior counts 2 likes for each dislike of a user without likes, and fewer with likes."""
    items = np.array([1, 5, 9], np.int32)
    profile = data.matrix.profile(-1, items, np.full(3, 5, np.float32))
    for values, weight in (
        ([1, 1, 0.5], 0.0),
        ([-0.25, -0.25, 0], 1.0),
        ([1, 0.5, -0.5], 0.25),
        ([0, 0, 0], 0.0),
    ):
        assert prior_weights(profile, np.array(values, np.float32)).tolist() == [weight]


def test_implicit_feedback_has_no_dislikes(data: ReleaseData) -> None:
    """Without a limit, the lowest value is a like as any other."""
    config = EASEConfig(minimum_stars=0.5)
    implicit = ReleaseData(data.matrix, data.baseline)
    model = EASE(config)
    model.fit(Training(implicit))
    low = visitor(implicit, model.scorer, {2: 1.0})
    np.testing.assert_array_equal(low, visitor(implicit, model.scorer, {2: 5.0}))
    assert low.any()
