"""Models with more ratings than int32 positions, simulated with a lower limit."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.arrays import Float32
from marquee_core.scorers import sparse
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.model import Training
from marquee_trainer.models.neural import mf
from marquee_trainer.models.neural.mf import FactorNetwork, MFConfig
from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel
from marquee_trainer.models.registry import MODELS_BY_NAME
from toy.ratings import release_data


def scores_of(name: str, data: ReleaseData) -> Float32:
    """Fit a model, and score all items for known users and a visitor."""
    model = MODELS_BY_NAME[name]()
    if isinstance(model, TensorFlowModel):
        model = model.with_epochs(1)
    model.fit(Training(data))
    visitor = data.matrix.profile(-1, np.array([1, 4], np.int32), np.array([5, 2], np.float32))
    known = data.matrix.profiles([0, 3, 9])
    return np.concatenate([model.scorer.score(known), model.scorer.score(visitor)])


@pytest.mark.parametrize("name", ["user_cf", "item_cf", "mf"])
def test_positions_of_64_bits_give_the_same_scores(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and scoring do not depend on the width of the positions of ratings."""
    rng = np.random.default_rng(3)
    stars = np.where(rng.random((30, 12)) < 0.6, rng.integers(1, 6, (30, 12)), 0)
    data = release_data(stars)
    expected = scores_of(name, data)
    for module in (sparse, mf):
        monkeypatch.setattr(module, "position_dtype", lambda _count: np.int64)
    np.testing.assert_array_equal(scores_of(name, data), expected)


def test_more_rows_than_int32_indexes_are_refused() -> None:
    """MF reports the numbers of users and items that its table of factors cannot hold."""
    with pytest.raises(ValueError, match="1,500,000,000 users and 1,000,000,000 items"):
        FactorNetwork(1_500_000_000, 1_000_000_000, 3.5, MFConfig())
