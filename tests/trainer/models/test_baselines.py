"""The floor has the interface of every model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee_core.errors import ArtifactError
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.baselines import BiasBaseline, MostPopular
from marquee_trainer.models.model import Training


@pytest.fixture
def data() -> ReleaseData:
    """Three users and four items; item 1 is rated most, item 3 never."""
    users, items = np.array([0, 0, 1, 1, 2], np.int32), np.array([0, 1, 1, 2, 1], np.int32)
    ratings = np.array([5, 4, 2, 3, 3], np.float32)
    matrix = RatingsMatrix.of(users, items, ratings, 3, 4)
    return ReleaseData(matrix, Baseline.fit(matrix, 2.0, 2.0, 5))


@pytest.mark.parametrize("kind", [BiasBaseline, MostPopular])
def test_what_is_saved_scores_as_before(
    kind: type[BiasBaseline] | type[MostPopular], data: ReleaseData, tmp_path: Path
) -> None:
    """Fit, predict, recommend, save and load, as of any model."""
    model = kind()
    with pytest.raises(RuntimeError, match="not fitted"):
        _ = model.scorer
    model.fit(Training(data))
    model.save(tmp_path)
    again = kind.load(tmp_path, data)
    users, items = np.array([0, 2, 1], np.int32), np.array([3, 0, 1], np.int32)
    np.testing.assert_array_equal(
        again.predict(data, users, items), model.predict(data, users, items)
    )
    assert set(model.recommend(data, 0, 10).tolist()) == {2, 3}
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(ArtifactError):
        kind.load(tmp_path, data)


def test_the_most_rated_item_is_recommended_first(data: ReleaseData) -> None:
    """Popularity is the number of ratings, whoever asks."""
    model = MostPopular()
    model.fit(Training(data))
    scores = model.scorer.score(data.matrix.profiles([0, 1]))
    assert np.argmax(scores, axis=1).tolist() == [1, 1]
    assert scores[0, 3] == 0


def test_the_baseline_predicts_damped_biases(data: ReleaseData) -> None:
    """μ + b_i + b_u, worked out by hand for the first user."""
    model = BiasBaseline()
    model.fit(Training(data))
    baseline, mean = data.baseline, 3.4
    bias = (5 - mean - baseline.item_bias[0] + 4 - mean - baseline.item_bias[1]) / (2 + 2.0)
    predicted = model.predict(data, np.array([0], np.int32), np.array([2], np.int32))
    assert predicted[0] == pytest.approx(mean + baseline.item_bias[2] + bias, abs=1e-5)
