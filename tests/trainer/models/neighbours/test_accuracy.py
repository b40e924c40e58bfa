"""The accuracy of collaborative filtering on real ratings."""

from __future__ import annotations

import numpy as np
import pytest

from locations import REAL_DATA
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.model import Model, Training, predict_pairs
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF

# A short chain saves time; the default one reaches 0.767.
SHORT = BayesianMFConfig(factors=10, sweeps=70, burn_in=30, samples=20)
RATINGS = REAL_DATA / "ml-100k" / "u.data"


@pytest.mark.skipif(not RATINGS.exists(), reason="MovieLens 100K is not in ../shared/data")
@pytest.mark.parametrize(
    ("model", "limit"),
    [(UserCF(), 0.850), (ItemCF(), 0.828), (BayesianMF(SHORT), 0.795)],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_error_on_real_ratings(model: Model, limit: float) -> None:
    """The test MSE on MovieLens 100K (random 80/20 split, seed 0) does not exceed its limit."""
    rows = np.loadtxt(RATINGS, dtype=np.int64, usecols=(0, 1, 2))
    users = np.unique(rows[:, 0], return_inverse=True)[1].astype(np.int32)
    items = np.unique(rows[:, 1], return_inverse=True)[1].astype(np.int32)
    stars = rows[:, 2].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(rows))
    train, test = np.split(order, [int(0.8 * len(rows))])
    matrix = RatingsMatrix.of(
        users[train], items[train], stars[train], int(users.max()) + 1, int(items.max()) + 1
    )
    data = ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 10))
    model.fit(Training(data))
    predictions = np.clip(predict_pairs(model.scorer, data, users[test], items[test]), 1, 5)
    assert float(np.mean(np.square(predictions - stars[test]))) <= limit
