"""Detection of rating scales and of explicit and implicit feedback."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.arrays import Float32
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.repeats import merge
from marquee_trainer.data.scale import Feedback, RatingScale, detect_feedback, find_unrated_marker


def array(*values: float) -> Float32:
    """Return an array of ratings."""
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("ratings", "scale"),
    [
        ((1, 2, 5), (1, 5, 1)),
        ((0.5, 4), (0.5, 5, 0.5)),
        ((0, 1), (0, 1, 1)),
        ((0, 3, 5), (0, 5, 1)),
        ((-1, 1), (-1, 1, 2)),
        ((-1, 0, 1), (-1, 1, 1)),
        ((1, 4, 10), (1, 10, 1)),
        ((0, 10), (0, 10, 1)),
        ((0.5, 9.5), (0, 10, 0.5)),
        ((1.25, 4.75), (1, 5, 0)),
        ((0.125, 0.5), (0, 1, 0)),
        ((3, 88), (0, 100, 1)),
        ((-9.75, 3.125), (-10, 10, 0)),
        ((0, 1500), (0, 1500, 1)),
        ((-300, 20), (-300, 300, 1)),
    ],
)
def test_common_scales_are_found(
    ratings: tuple[float, ...], scale: tuple[float, float, float]
) -> None:
    """The scale extends beyond the ratings if a common scale does."""
    assert RatingScale.of(array(*ratings)) == RatingScale(*scale)


@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=1))
def test_a_scale_contains_its_ratings(ratings: list[float]) -> None:
    """No rating is outside the scale that was found for it."""
    assert RatingScale.of(array(*ratings)).contains(array(*ratings)).all()


def test_a_scale_is_parsed() -> None:
    """Both ends may be negative or fractions."""
    assert RatingScale.parse("1:10") == RatingScale(1, 10, 0)
    assert RatingScale.parse("-10:9.5") == RatingScale(-10, 9.5, 0)
    for text in ("10", "5:1", "a:b", "1:2:3"):
        with pytest.raises(RatingsError, match="scale"):
            RatingScale.parse(text)


def test_equal_ratings_are_implicit_feedback() -> None:
    """A rating that everyone gives is equivalent to an interaction."""
    assert detect_feedback(array(1), 3) is Feedback.IMPLICIT
    assert detect_feedback(array(1, 2), 2) is Feedback.EXPLICIT
    assert detect_feedback(array(4), 1) is Feedback.EXPLICIT


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=30
    ),
    st.sampled_from(["last", "mean", "max", "sum"]),
)
def test_repeats_are_merged_as_a_loop_would(rows: list[tuple[int, int, int]], how: str) -> None:
    """Each pair has one rating, from the latest row or the latest of the highest ones."""
    cells, ratings, times = (np.array(column) for column in zip(*rows, strict=True))
    merged = merge(cells, ratings.astype(np.float32), times, how)
    assert sorted(cells[merged.rows].tolist()) == sorted(set(cells.tolist()))
    assert (np.diff(merged.rows) > 0).all()
    for row, rating in zip(merged.rows.tolist(), merged.ratings.tolist(), strict=True):
        same = [n for n in range(len(rows)) if rows[n][0] == rows[row][0]]
        values = [rows[n][1] for n in same]
        if how == "max":
            same = [n for n in same if rows[n][1] == max(values)]
        assert row == max(same, key=lambda n: (rows[n][2], n))
        expected = {
            "last": rows[row][1],
            "max": max(values),
            "sum": sum(values),
            "mean": sum(values) / len(values),
        }
        assert rating == pytest.approx(expected[how])


def test_the_mean_of_repeats_does_not_change_the_scale() -> None:
    """The scale is that of the ratings as given."""
    dataset = RatingsDataset.of(
        ["a", "a", "b"], ["x", "x", "x"], array(3, 4, 5), None, {}, "own", on_repeat="mean"
    )
    assert dataset.ratings.tolist() == [3.5, 5]
    assert dataset.scale == RatingScale(1, 5, 1)


@pytest.mark.parametrize(
    ("ratings", "mark"),
    [
        ((-1, 1, 2, 3, 4), -1),
        ((0, 0, 0, 1, 2, 3), 0),
        ((0, 1, 2, 3, 3), None),
        ((-1, 0, 1), None),
        ((-10, -9, 0, 3, 4), None),
        ((1, 2, 3, 9), None),
        ((0, 1), None),
    ],
)
def test_a_rating_that_may_mean_unrated_is_detected(
    ratings: tuple[float, ...], mark: float | None
) -> None:
    """It is far below the others, or 0 and the most common one; scales around 0 have none."""
    assert find_unrated_marker(array(*ratings)) == mark
