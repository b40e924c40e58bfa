"""Rating metrics, compared with hand-computed values and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.data.scale import RatingScale
from marquee_trainer.metrics.rating_metrics import rating_metrics

WHOLE_STARS = RatingScale(1.0, 5.0, 1.0)
HALF_STARS = RatingScale(0.5, 5.0, 0.5)


def test_errors_match_hand_computed_values() -> None:
    """MSE is (1 + 4 + 0) / 3, and MAE is (1 + 2 + 0) / 3."""
    predictions = np.array([3, 2, 5], dtype=np.float32)
    found = rating_metrics(predictions, np.array([4, 4, 5], dtype=np.float32), WHOLE_STARS)
    assert found.mse == pytest.approx(5 / 3)
    assert found.rmse == pytest.approx(math.sqrt(5 / 3))
    assert found.mae == pytest.approx(1)


@pytest.mark.parametrize(("scale", "mse"), [(WHOLE_STARS, 1.0), (HALF_STARS, 0.625)])
def test_predictions_are_clipped_to_the_scale(scale: RatingScale, mse: float) -> None:
    """7 counts as 5, and -3 as the lowest rating of the scale."""
    predictions = np.array([7, -3], dtype=np.float32)
    ratings = np.array([4, 2 if scale is WHOLE_STARS else 1], dtype=np.float32)
    assert rating_metrics(predictions, ratings, scale).mse == pytest.approx(mse)


@given(st.lists(st.tuples(st.floats(-2, 8, width=32), st.integers(1, 5)), min_size=1, max_size=60))
def test_errors_match_a_plain_loop(rows: list[tuple[float, int]]) -> None:
    """The vectorised errors equal those of a loop in double precision."""
    found = rating_metrics(
        np.array([row[0] for row in rows], dtype=np.float32),
        np.array([row[1] for row in rows], dtype=np.float32),
        WHOLE_STARS,
    )
    errors = [min(max(prediction, 1.0), 5.0) - rating for prediction, rating in rows]
    assert found.mse == pytest.approx(sum(e * e for e in errors) / len(errors), abs=1e-12)
    assert found.rmse == pytest.approx(math.sqrt(found.mse), abs=1e-12)
    assert found.mae == pytest.approx(sum(map(abs, errors)) / len(errors), abs=1e-12)


def test_a_prediction_of_nan_is_refused() -> None:
    """A model that diverged causes an error instead of metrics."""
    stars = np.array([4, np.nan], dtype=np.float32)
    with pytest.raises(ValueError, match="not a number"):
        rating_metrics(stars, np.ones(2, dtype=np.float32), WHOLE_STARS)
