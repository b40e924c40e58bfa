"""The baselines: biases and popularity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee_core.arrays import load_array
from marquee_core.errors import ArtifactError
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import LoadScorer, ReleaseData, Scorer
from marquee_trainer.models.baselines import (
    BaselineScorer,
    BiasBaseline,
    MostPopular,
    PopularityScorer,
)
from marquee_trainer.models.model import Training, predict_pairs
from toy.ratings import release_data


@pytest.fixture
def data() -> ReleaseData:
    """Three users and four items; item 1 has the most ratings, and item 3 none."""
    stars = np.array([[5, 4, 0, 0], [0, 2, 3, 0], [0, 3, 0, 0]])
    return release_data(stars, damping=2.0, sweeps=5)


def load_biases(folder: Path, data: ReleaseData) -> Scorer:
    """Load a saved bias baseline."""
    return BaselineScorer(Baseline.load(folder, data.matrix.item_count))


def load_popularity(folder: Path, data: ReleaseData) -> Scorer:
    """Load a saved popularity model."""
    return PopularityScorer(
        load_array(folder / "scores.npy", np.float32, (data.matrix.item_count,))
    )


@pytest.mark.parametrize(
    ("kind", "load"), [(BiasBaseline, load_biases), (MostPopular, load_popularity)]
)
def test_a_saved_baseline_has_the_same_scores(
    kind: type[BiasBaseline] | type[MostPopular],
    load: LoadScorer,
    data: ReleaseData,
    tmp_path: Path,
) -> None:
    """A baseline can be fitted, saved and loaded, and scores unseen items."""
    model = kind()
    with pytest.raises(RuntimeError, match="not fitted"):
        _ = model.scorer
    model.fit(Training(data))
    model.save(tmp_path)
    again = load(tmp_path, data)
    users, items = np.array([0, 2, 1], np.int32), np.array([3, 0, 1], np.int32)
    np.testing.assert_array_equal(
        predict_pairs(again, data, users, items), predict_pairs(model.scorer, data, users, items)
    )
    unseen = np.ones(data.matrix.item_count, dtype=np.bool_)
    unseen[data.matrix.seen(0)] = False
    scores = model.scorer.score(data.matrix.profiles([0]))[0]
    assert set(top_indexes(scores, 10, unseen).tolist()) == {2, 3}
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(ArtifactError):
        load(tmp_path, data)


def test_the_most_rated_item_is_recommended_first(data: ReleaseData) -> None:
    """Popularity is the number of ratings, and is the same for every user."""
    model = MostPopular()
    model.fit(Training(data))
    scores = model.scorer.score(data.matrix.profiles([0, 1]))
    assert np.argmax(scores, axis=1).tolist() == [1, 1]
    assert scores[0, 3] == 0


def test_the_baseline_predicts_damped_biases(data: ReleaseData) -> None:
    """The prediction is μ + b_i + b_u, computed by hand for the first user."""
    model = BiasBaseline()
    model.fit(Training(data))
    baseline, mean = data.baseline, 3.4
    bias = (5 - mean - baseline.item_bias[0] + 4 - mean - baseline.item_bias[1]) / (2 + 2.0)
    pair = np.array([0], np.int32), np.array([2], np.int32)
    predicted = predict_pairs(model.scorer, data, *pair)
    assert predicted[0] == pytest.approx(mean + baseline.item_bias[2] + bias, abs=1e-5)
