"""Which ratings count as relevant, on any scale and for implicit feedback."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.scale import Feedback, RatingScale
from marquee_trainer.training.relevance import relevant_rating


def dataset(
    ratings: list[float], scale: RatingScale | None = None, feedback: Feedback | None = None
) -> RatingsDataset:
    """Return ratings of different items by one user."""
    ids = [str(n) for n in range(len(ratings))]
    return RatingsDataset.of(
        ["u"] * len(ratings),
        ids,
        np.array(ratings, np.float32),
        None,
        {},
        "test",
        scale=scale,
        feedback=feedback,
    )


@pytest.mark.parametrize(
    ("ratings", "scale", "expected"),
    [
        ([1, 2, 3, 4, 5], None, 4.0),
        ([0.5, 1, 2.5, 4, 4.5, 5], None, 4.0),
        ([1, 3, 7, 8, 10], None, 8.0),
        ([0, 40, 80, 100], None, 75.0),
        ([0, 1, 1, 0], None, 1.0),
        ([-1, 1, 1, -1], None, 1.0),
        ([-10, -2.25, 3, 9.5], RatingScale(-10, 10, 0), 5.0),
    ],
)
def test_the_upper_quarter_of_the_scale_is_relevant(
    ratings: list[float], scale: RatingScale | None, expected: float
) -> None:
    """These are 4 stars and more on MovieLens' scales, and the equivalent on others."""
    assert relevant_rating(dataset(ratings, scale)) == expected


def test_without_high_ratings_the_upper_quartile_is_relevant() -> None:
    """Here no rating is above 3, so the best of them count as what users like."""
    assert relevant_rating(dataset([1, 1, 1, 2, 2, 2, 2, 3], RatingScale(1, 5, 1))) == 2.0
    assert relevant_rating(dataset([1, 1, 1, 3, 3], RatingScale(1, 5, 1))) == 3.0


@pytest.mark.parametrize("strengths", [[1, 1, 1], [5, 1, 300], [0.5, 2, 7]])
def test_any_interaction_is_relevant(strengths: list[float]) -> None:
    """Interactions count as relevant with and without a strength."""
    found = dataset(strengths, feedback=Feedback.IMPLICIT)
    assert (found.ratings >= relevant_rating(found)).all()


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=40))
def test_some_rating_is_always_relevant(ratings: list[float]) -> None:
    """For any ratings, rankings have something to be measured by."""
    found = dataset(ratings)
    assert (found.ratings >= relevant_rating(found)).any()


@pytest.mark.parametrize(
    ("scale", "stars", "expected"),
    [
        (RatingScale(0.5, 5, 0.5), 3.0, 3.0),
        (RatingScale(1, 5, 1), 4.0, 4.0),
        (RatingScale(1, 10, 1), 5.0, 10.0),
        (RatingScale(0, 100, 1), 3.0, 50.0),
        (RatingScale(-1, 1, 2), 1.0, -1.0),
    ],
)
def test_stars_are_mapped_to_any_scale(scale: RatingScale, stars: float, expected: float) -> None:
    """1 star is the lowest rating of other scales, and 5 stars the highest."""
    assert scale.from_stars(stars) == pytest.approx(expected)
