"""Deep and residual matrix factorization: training through the fold-in, and what serves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from marquee_core.arrays import Float32, Int32
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.item_cf import ItemCFConfig
from marquee_core.scorers.saved_model import PADDING
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.models.model import Training, predict_pairs
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neural.deep_mf import DeepMF
from marquee_trainer.models.neural.leave_one_out import LeaveOneOutConfig, LeaveOneOutNetwork
from marquee_trainer.models.neural.neighbour_part import NeighbourPart
from marquee_trainer.models.neural.residual_mf import ResidualMF

USERS, ITEMS = 30, 25
CONFIG = LeaveOneOutConfig(dimensions=4, set_dimensions=3, hidden=(6, 5), epochs=2, cells=200)


@pytest.fixture(scope="module")
def data() -> ReleaseData:
    """Ratings at random; the last user has none."""
    random = np.random.default_rng(5)
    rated = random.random((USERS, ITEMS)) < 0.4
    rated[-1] = False
    users, items = np.nonzero(rated)
    stars = random.integers(1, 6, len(users)).astype(np.float32)
    matrix = RatingsMatrix.of(users.astype(np.int32), items.astype(np.int32), stars, USERS, ITEMS)
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 3))


def padded(data: ReleaseData, users: list[int], length: int) -> tuple[Int32, Float32]:
    """Padded items and ratings."""
    items = np.full((len(users), length), PADDING, dtype=np.int32)
    ratings = np.zeros((len(users), length), dtype=np.float32)
    for place, user in enumerate(users):
        profile = data.matrix.profiles([user])
        items[place, : len(profile.items)] = profile.items
        ratings[place, : len(profile.items)] = profile.ratings
    return items, ratings


@pytest.mark.parametrize("products", [True, False])
def test_a_rating_is_predicted_by_the_users_others_alone(data: ReleaseData, products: bool) -> None:
    """What is left out has no part in its own prediction: as if it had never been given."""
    config = replace(CONFIG, products=products, dropout=0.0, hidden=(6,))
    network = LeaveOneOutNetwork(data, config)
    network.means.assign(np.random.default_rng(0).normal(size=(ITEMS, 4)))
    network.audience.assign(np.random.default_rng(3).normal(size=(USERS, 4)))
    network.set_inputs.assign(np.random.default_rng(1).normal(size=(ITEMS, 3)))
    # Without uncertainty the ridge of training and of use are one.
    network.log_deviations.assign(np.full((ITEMS, 4), -20.0))
    items, ratings = padded(data, [0, 1, 2], 32)
    calm = tf.zeros((ITEMS, 4))
    # Batch normalisation looks at the batch in training: the perceptron is taken out.
    network.last.kernel.assign(np.zeros(network.last.kernel.shape))
    found, wanted, rows = (
        part.numpy()
        for part in network.left_out(
            tf.constant(items), tf.constant(ratings), calm, tf.ones(data.matrix.rating_count)
        )
    )
    assert len(found) == (items != PADDING).sum()
    start = 0
    for user in range(3):
        count = int((items[user] != PADDING).sum())
        for place in range(count):
            others, stars = items[[user]].copy(), ratings[[user]].copy()
            others[0, place] = PADDING
            stars[0, place] = 0.0
            item = rows[start + place]
            parts = network.predict_pairs(
                tf.constant(others), tf.constant(stars), tf.constant([0]), tf.constant([item])
            )
            assert float(sum(parts)[0]) == pytest.approx(found[start + place], abs=2e-3)
            assert wanted[start + place] == ratings[user, place]
        start += count


@pytest.mark.parametrize(
    "model",
    [
        DeepMF(CONFIG),
        ResidualMF(replace(CONFIG, products=False, factor_weight=0.5, neighbour_weight=0.75)),
    ],
    ids=lambda model: model.name,
)
def test_what_serves_is_what_was_validated(data: ReleaseData, model: DeepMF) -> None:
    """The error of the curve is that of the served module: batch norm folded, parts weighted."""
    random = np.random.default_rng(2)
    rated = np.zeros((USERS, ITEMS), dtype=np.bool_)
    rated[data.matrix.users, data.matrix.items] = True
    users, items = np.nonzero(~rated)
    picked = random.choice(len(users), 60, replace=False)
    held_out = Interactions(
        users[picked].astype(np.int32),
        items[picked].astype(np.int32),
        random.integers(1, 6, 60).astype(np.float32),
    )
    fit = model.fit(Training(data, held_out))
    served = predict_pairs(model.scorer, data, held_out.users, held_out.items)
    best = min(epoch.validation_mse or np.inf for epoch in fit.curve)
    error = float(np.mean((served - held_out.ratings) ** 2))
    assert error == pytest.approx(best, rel=1e-3)


def test_known_users_are_the_same_with_a_table_of_vectors_and_without(
    data: ReleaseData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the table would be too large, neighbourhoods are asked anew of the kept ratings."""
    config = replace(CONFIG, products=False, neighbour_weight=0.5, epochs=1)
    users = data.matrix.profiles(range(USERS))
    scores = []
    for cells in (10**9, 0):
        monkeypatch.setattr("marquee_trainer.models.neural.perceptron_module._TABLE_CELLS", cells)
        model = ResidualMF(config)
        model.fit(Training(data))
        assert model._fitted is not None
        module = model._fitted.module
        assert module.users.numpy().shape == (USERS, module.kept)
        assert (module.kept == module.width) == (cells > 0)
        scores.append(model.scorer.score(users))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


def test_neighbourhoods_add_what_item_based_filtering_adds(data: ReleaseData) -> None:
    """The TensorFlow part and the CF service's scorer are one formula."""
    config = ItemCFConfig(neighbours=7, shrinkage=2.0)
    part = NeighbourPart(data, config)
    scorer = ItemCF(config).learn(data)
    users = [0, 3, 8]
    items, ratings = padded(data, users, 32)
    given = (items != PADDING).astype(np.float32)
    added = part.added(
        tf.constant(np.maximum(items, 0)), tf.constant(ratings), tf.constant(given)
    ).numpy()
    profiles = data.matrix.profiles(users)
    expected = scorer.score(profiles) - data.baseline.score(profiles)
    np.testing.assert_allclose(added, expected, atol=1e-5)
    assert np.abs(added).max() > 0.05


def test_ratings_of_known_users_are_kept_for_their_vectors(data: ReleaseData) -> None:
    """Users come back with what they rated, in any order, and with nothing where they did not."""
    part = NeighbourPart(data, ItemCFConfig(neighbours=3))
    part.remember(data.matrix.all_profiles())
    items, ratings = (row.numpy() for row in part.ratings_of(tf.constant([8, USERS - 1, 0])))
    for place, user in enumerate([8, USERS - 1, 0]):
        profile = data.matrix.profiles([user])
        given = items[place] != PADDING
        np.testing.assert_array_equal(items[place][given], profile.items)
        np.testing.assert_array_equal(ratings[place][given], profile.ratings)
        assert not ratings[place][~given].any()
