"""Deep and residual MF: leave-one-out training through the fold-in, and the served module."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from marquee_core.arrays import Float32, Int32
from marquee_core.scorers.item_cf import ItemCFConfig
from marquee_core.scorers.saved_model import PADDING
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.models.model import Training, predict_pairs
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neural.deep_mf import DeepMF
from marquee_trainer.models.neural.item_neighbourhoods import ItemNeighbourhoods
from marquee_trainer.models.neural.leave_one_out_network import (
    LeaveOneOutConfig,
    LeaveOneOutNetwork,
)
from marquee_trainer.models.neural.residual_mf import ResidualMF, ResidualMFConfig
from toy.ratings import release_data

USERS, ITEMS = 30, 25
CONFIG = LeaveOneOutConfig(factors=4, set_factors=3, hidden_units=(6, 5), epochs=2, cells=200)
RESIDUAL_CONFIG = ResidualMFConfig(
    factors=4, set_factors=3, hidden_units=(6, 5), epochs=2, cells=200
)


@pytest.fixture(scope="module")
def data() -> ReleaseData:
    """Random ratings; the last user has none."""
    random = np.random.default_rng(5)
    rated = random.random((USERS, ITEMS)) < 0.4
    rated[-1] = False
    stars = np.zeros((USERS, ITEMS))
    stars[rated] = random.integers(1, 6, np.count_nonzero(rated))
    return release_data(stars)


def padded(data: ReleaseData, users: list[int], length: int) -> tuple[Int32, Float32]:
    """Return the ratings of some users, padded to a length."""
    items = np.full((len(users), length), PADDING, dtype=np.int32)
    ratings = np.zeros((len(users), length), dtype=np.float32)
    for place, user in enumerate(users):
        profile = data.matrix.profiles([user])
        items[place, : len(profile.items)] = profile.items
        ratings[place, : len(profile.items)] = profile.ratings
    return items, ratings


@pytest.mark.parametrize("products", [True, False])
def test_a_rating_is_predicted_only_from_the_users_other_ratings(
    data: ReleaseData, products: bool
) -> None:
    """A prediction equals that for a user without the predicted rating."""
    config = replace(CONFIG, dropout=0.0, hidden_units=(6,))
    network = LeaveOneOutNetwork(data, config, products)
    network.means.assign(np.random.default_rng(0).normal(size=(ITEMS, 4)))
    network.audience.assign(np.random.default_rng(3).normal(size=(USERS, 4)))
    network.set_inputs.assign(np.random.default_rng(1).normal(size=(ITEMS, 3)))
    # Without uncertainty, training and prediction use the same ridge.
    network.log_deviations.assign(np.full((ITEMS, 4), -20.0))
    items, ratings = padded(data, [0, 1, 2], 32)
    no_noise = tf.zeros((ITEMS, 4))
    # In training, batch normalisation depends on the batch, so the perceptron is disabled.
    network.last.kernel.assign(np.zeros(network.last.kernel.shape))
    predicted, targets, rows = (
        part.numpy()
        for part in network.predict_left_out(
            network.served_factors(), tf.constant(items), tf.constant(ratings), no_noise
        )
    )
    assert len(predicted) == (items != PADDING).sum()
    start = 0
    for user in range(3):
        count = int((items[user] != PADDING).sum())
        for place in range(count):
            others, stars = items[[user]].copy(), ratings[[user]].copy()
            others[0, place] = PADDING
            stars[0, place] = 0.0
            item = rows[start + place]
            parts = network.predict_pairs(
                network.served_factors(),
                tf.constant(others),
                tf.constant(stars),
                tf.constant([0]),
                tf.constant([item]),
            )
            assert float(sum(parts)[0]) == pytest.approx(predicted[start + place], abs=2e-3)
            assert targets[start + place] == ratings[user, place]
        start += count


@pytest.mark.parametrize(
    "model",
    [
        DeepMF(CONFIG),
        ResidualMF(replace(RESIDUAL_CONFIG, factor_weight=0.5, neighbour_weight=0.75)),
    ],
    ids=lambda model: model.name,
)
def test_the_served_module_has_the_validated_error(
    data: ReleaseData, model: DeepMF | ResidualMF
) -> None:
    """The best error of the learning curve is that of the served module."""
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


def test_known_users_have_the_same_scores_without_a_table_of_vectors(
    data: ReleaseData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the table would be too large, vectors are computed from the stored ratings."""
    config = replace(RESIDUAL_CONFIG, neighbour_weight=0.5, epochs=1)
    users = data.matrix.profiles(range(USERS))
    scores = []
    for cells in (10**9, 0):
        monkeypatch.setattr("marquee_trainer.models.neural.perceptron_module._TABLE_CELLS", cells)
        model = ResidualMF(config)
        model.fit(Training(data))
        module = model.fitted.module
        assert module.users.numpy().shape == (USERS, module.stored_width)
        assert (module.stored_width == module.width) == (cells > 0)
        scores.append(model.scorer.score(users))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


def test_neighbourhoods_contribute_as_in_item_cf(data: ReleaseData) -> None:
    """The TensorFlow network computes the same formula as the scorer of the CF service."""
    config = ItemCFConfig(neighbours=7, shrinkage=2.0)
    part = ItemNeighbourhoods(data, config)
    scorer = ItemCF(config).learn(data)
    users = [0, 3, 8]
    items, ratings = padded(data, users, 32)
    given = (items != PADDING).astype(np.float32)
    contributions = part.contributions(
        tf.constant(np.maximum(items, 0)), tf.constant(ratings), tf.constant(given)
    ).numpy()
    profiles = data.matrix.profiles(users)
    expected = scorer.score(profiles) - data.baseline.score(profiles)
    np.testing.assert_allclose(contributions, expected, atol=1e-5)
    assert np.abs(contributions).max() > 0.05


def test_stored_ratings_of_known_users_can_be_looked_up(data: ReleaseData) -> None:
    """Users are looked up in any order, and a user without ratings has only padding."""
    part = ItemNeighbourhoods(data, ItemCFConfig(neighbours=3))
    part.store_ratings(data.matrix.all_profiles())
    items, ratings = (row.numpy() for row in part.ratings_of(tf.constant([8, USERS - 1, 0])))
    for place, user in enumerate([8, USERS - 1, 0]):
        profile = data.matrix.profiles([user])
        given = items[place] != PADDING
        np.testing.assert_array_equal(items[place][given], profile.items)
        np.testing.assert_array_equal(ratings[place][given], profile.ratings)
        assert not ratings[place][~given].any()
