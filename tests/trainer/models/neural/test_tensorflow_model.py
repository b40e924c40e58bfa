"""The neural models: learning, fold-in, saving and traced shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef

from marquee_core.errors import ArtifactError
from marquee_core.ratings import RatingsMatrix, join_profiles
from marquee_core.retrieval.exact import ScoresByProduct, item_products
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.saved_model import PADDING, SavedModelScorer
from marquee_core.scorers.scorer import ComparesItems, ReleaseData
from marquee_services.inference.models import INFERENCE_SCORERS
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.models.model import Training, predict_pairs
from marquee_trainer.models.neural import mf, scoring_module
from marquee_trainer.models.neural.autorec import (
    AutoRec,
    ItemAutoRecConfig,
    UserAutoRec,
    UserAutoRecConfig,
    residual_matrix,
)
from marquee_trainer.models.neural.deep_mf import DeepMF
from marquee_trainer.models.neural.dot_product_modules import FoldInConfig, LinearModule
from marquee_trainer.models.neural.leave_one_out_model import LeaveOneOutModel
from marquee_trainer.models.neural.leave_one_out_network import LeaveOneOutConfig
from marquee_trainer.models.neural.mf import MF, MFConfig
from marquee_trainer.models.neural.residual_mf import ResidualMF, ResidualMFConfig
from marquee_trainer.models.neural.tensorflow_model import EpochConfig, TensorFlowModel

EPOCHS = 3
NeuralModel: TypeAlias = TensorFlowModel[EpochConfig]
MODELS: tuple[type[NeuralModel], ...] = (MF, DeepMF, ResidualMF, AutoRec, UserAutoRec)
SMALL = {
    "mf": MFConfig(epochs=EPOCHS, factors=8, batch=256),
    "deep_mf": LeaveOneOutConfig(epochs=EPOCHS, factors=5, set_factors=3, cells=512),
    "residual_mf": ResidualMFConfig(epochs=EPOCHS, factors=5, set_factors=3, cells=512),
    "autorec": ItemAutoRecConfig(epochs=EPOCHS, hidden_units=16),
    "user_autorec": UserAutoRecConfig(epochs=EPOCHS, hidden_units=16),
}


@pytest.fixture(scope="module")
def parts() -> tuple[ReleaseData, Interactions]:
    """Training ratings and held-out ratings."""
    dataset = generate_sample(SampleConfig(users=60, items=50, ratings=1500), seed=3)
    rows = np.random.default_rng(0).permutation(len(dataset))
    train, held_out = rows[:-150], rows[-150:]
    matrix = RatingsMatrix.of(
        dataset.users[train],
        dataset.items[train],
        dataset.ratings[train],
        len(dataset.user_ids),
        len(dataset.catalogue),
    )
    data = ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 5))
    pairs = Interactions(
        dataset.users[held_out], dataset.items[held_out], dataset.ratings[held_out]
    )
    return data, pairs


@pytest.fixture(scope="module", params=MODELS, ids=lambda kind: kind.name)
def model(request: pytest.FixtureRequest, parts: tuple[ReleaseData, Interactions]) -> NeuralModel:
    """Each model, fitted without validation ratings."""
    fitted: NeuralModel = request.param(SMALL[request.param.name])
    fitted.fit(Training(parts[0]))
    return fitted


def test_a_model_too_large_for_a_saved_model_is_served_from_its_arrays(
    model: NeuralModel,
    parts: tuple[ReleaseData, Interactions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TensorFlow limits messages to 2 GiB; here the limit is just below the model's size."""
    whole, arrays = tmp_path / "whole", tmp_path / "arrays"
    model.save(whole)
    needed = model.fitted.graph_bytes
    # The size is that of the message including the graphs, which do not grow with the model.
    assert needed < (whole / "saved_model.pb").stat().st_size < needed + 3 * 2**20
    monkeypatch.setattr(scoring_module, "MAX_GRAPH_BYTES", needed - 1)
    model.save(arrays)
    assert not (arrays / "saved_model.pb").exists()
    loaded = INFERENCE_SCORERS[model.name](arrays, parts[0])
    profiles = parts[0].matrix.profiles(range(20))
    np.testing.assert_array_equal(loaded.score(profiles), model.scorer.score(profiles))


def test_a_saved_model_has_no_random_id(model: NeuralModel, tmp_path: Path) -> None:
    """Repeating a training gives each model the same files, and therefore the same version."""
    model.save(tmp_path)
    fingerprint = FingerprintDef.FromString((tmp_path / "fingerprint.pb").read_bytes())
    assert fingerprint.saved_model_checksum
    assert not fingerprint.uuid


def test_a_known_user_equals_a_visitor_with_the_users_ratings(
    model: NeuralModel, parts: tuple[ReleaseData, Interactions]
) -> None:
    """A visitor with the ratings of a known user gets the scores of that user."""
    matrix = parts[0].matrix
    known = matrix.profiles(range(10))
    visitors = join_profiles(
        [
            matrix.profile(-1, single.items, single.ratings)
            for single in (matrix.profiles([user]) for user in range(10))
        ]
    )
    expected = model.scorer.score(known)
    np.testing.assert_allclose(model.scorer.score(visitors), expected, atol=2e-3)


def test_without_ratings_every_model_predicts_the_baseline(
    model: NeuralModel, parts: tuple[ReleaseData, Interactions]
) -> None:
    """The predictions for a visitor without ratings are μ + b_i."""
    data = parts[0]
    nobody = data.matrix.profile(-1, np.empty(0, np.int32), np.empty(0, np.float32))
    expected = data.baseline.item_bias + np.float32(data.baseline.mean)
    np.testing.assert_array_equal(model.scorer.score(nobody)[0], expected)


def test_batches_candidates_and_single_users_agree(
    model: NeuralModel, parts: tuple[ReleaseData, Interactions]
) -> None:
    """Padding has no effect, so users and items have the same scores in any batch."""
    matrix = parts[0].matrix
    rated = matrix.profiles([5])
    mixed = join_profiles(
        [
            matrix.profiles([3]),
            matrix.profile(4, np.array([0], np.int32), np.array([5], np.float32)),
            matrix.profile(-1, np.empty(0, np.int32), np.empty(0, np.float32)),
            matrix.profile(-1, rated.items, rated.ratings),
            matrix.profiles([6]),
        ]
    )
    whole = model.scorer.score(mixed)
    single = np.concatenate([model.scorer.score(mixed.take(np.array([n]))) for n in range(5)])
    np.testing.assert_allclose(whole, single, atol=1e-4)
    candidates = np.array([7, 0, 49, 13, 2], dtype=np.int32)
    np.testing.assert_allclose(
        model.scorer.score(mixed, candidates), whole[:, candidates], atol=1e-4
    )


def test_a_saved_model_has_the_same_scores(
    model: NeuralModel, parts: tuple[ReleaseData, Interactions], tmp_path: Path
) -> None:
    """The scorer that the service loads gives the scores of the trainer."""
    data = parts[0]
    model.save(tmp_path / "saved")
    served = INFERENCE_SCORERS[model.name](tmp_path / "saved", data)
    profiles = data.matrix.profiles(range(data.matrix.user_count))
    np.testing.assert_allclose(served.score(profiles), model.scorer.score(profiles), atol=1e-5)
    assert isinstance(served, ComparesItems)
    row = served.similarities(7)
    assert row[7] == 1.0
    assert np.abs(row).max() <= 1.0


def test_scores_are_products_of_vectors(
    model: NeuralModel, parts: tuple[ReleaseData, Interactions]
) -> None:
    """This holds for known users and visitors, except that a perceptron has no products."""
    matrix = parts[0].matrix
    known = matrix.profiles(range(20))
    visitors = join_profiles(
        [matrix.profile(-1, p.items, p.ratings) for p in map(known.take, np.arange(20)[:, None])]
    )
    both = join_profiles([visitors, known])
    scorer = model.scorer
    items = item_products(scorer)
    if isinstance(model, LeaveOneOutModel):
        assert items is None
        return
    assert items is not None
    assert isinstance(scorer, ScoresByProduct)
    products = scorer.user_products(both) @ items.T
    np.testing.assert_allclose(products, model.scorer.score(both), atol=1e-4)


def test_no_shape_is_retraced(
    model: NeuralModel,
    parts: tuple[ReleaseData, Interactions],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No number of users, ratings or candidates causes another trace of the module."""
    fitted = model.fitted
    by_tensorflow = SavedModelScorer(fitted, parts[0])

    def traced(*_: object) -> None:
        raise AssertionError("traced again")

    for name in ("score", "fold_in", "known_vectors", "item_vectors"):
        monkeypatch.setattr(fitted.module, name, traced)
    matrix = parts[0].matrix
    for size in (1, 3, 33):
        known = matrix.profiles(range(size))
        folded = replace(known, needs_fold_in=np.ones(size, dtype=np.bool_))
        for users in (known, folded):
            by_tensorflow.score(users)
            by_tensorflow.score(users, np.arange(size, dtype=np.int32))
    with pytest.raises(AssertionError, match="traced again"):
        fitted.module.make_signatures()


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.name)
def test_fits_with_the_same_seed_are_equal(
    kind: type[NeuralModel], parts: tuple[ReleaseData, Interactions]
) -> None:
    """The same seed gives the same scores, and the number of epochs is the best of the curve."""
    data, held_out = parts
    scores = []
    for _ in range(2):
        model = kind(SMALL[kind.name])
        fit = model.fit(Training(data, held_out, seed=1))
        scores.append(predict_pairs(model.scorer, data, held_out.users, held_out.items))
        errors = [epoch.validation_mse for epoch in fit.curve]
        assert all(error is not None for error in errors)
        assert fit.epochs == int(np.argmin(np.array(errors, dtype=float))) + 1
    np.testing.assert_array_equal(scores[0], scores[1])


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_the_learning_rate_decays_after_each_epoch(
    parts: tuple[ReleaseData, Interactions], decay: float
) -> None:
    """The rate starts at the configured value and is multiplied by the configured factor."""
    config = MFConfig(factors=4, learning_rate=0.004, decay=decay)
    matrix = parts[0].matrix
    network = mf.FactorNetwork(matrix.user_count, matrix.item_count, 3.5, config)
    loop = mf._Loop(network, matrix, config)
    for epoch in range(3):
        assert loop.learning_rate == pytest.approx(0.004 * decay**epoch)
        loop.epoch(np.arange(matrix.rating_count))


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.1, np.nan])
def test_an_invalid_decay_is_refused(decay: float) -> None:
    """A learning rate must neither grow nor become 0 after the first epoch."""
    with pytest.raises(ValueError, match="decay"):
        MFConfig(decay=decay)


def test_training_stops_early_when_improvements_are_tiny(
    parts: tuple[ReleaseData, Interactions],
) -> None:
    """Tiny improvements do not extend training, and the epoch with the lowest error is kept."""
    errors = iter(np.concatenate([[2.0, 1.0], 1.0 - 1e-6 * np.arange(1, 99)]))
    model = MF(MFConfig(epochs=90, patience=4))
    network = keras.Sequential()
    fit = model.run_epochs(network, Training(*parts), lambda: 0.0, lambda: float(next(errors)))
    assert len(fit.curve) == fit.epochs == 2 + 4


def test_mf_learns_more_than_the_baseline(parts: tuple[ReleaseData, Interactions]) -> None:
    """On ratings with latent factors, the training error is lower than that of the baseline."""
    data = parts[0]
    model = MF(MFConfig(epochs=30, factors=8, batch=128))
    model.fit(Training(data))
    matrix = data.matrix
    predicted = predict_pairs(model.scorer, data, matrix.users, matrix.items)
    residuals = data.baseline.residuals(matrix.profiles(range(matrix.user_count)))
    assert np.mean((predicted - matrix.ratings) ** 2) < 0.9 * np.mean(residuals**2)


def test_autorec_reads_only_rated_cells(parts: tuple[ReleaseData, Interactions]) -> None:
    """The input of the autoencoder has a residual for each rating and no other cells."""
    data = parts[0]
    by_item = residual_matrix(data, AutoRec.rows_and_columns)
    assert by_item.rating_count == data.matrix.rating_count
    assert by_item.user_count == data.matrix.item_count
    everybody = data.matrix.profiles(range(data.matrix.user_count))
    total = float(data.baseline.residuals(everybody).sum())
    assert float(by_item.ratings.sum()) == pytest.approx(total, abs=1e-2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.floats(0.1, 5), st.floats(0, 0.5))
def test_a_linear_model_folds_in_with_the_ridge_solution(
    seed: int, count: int, ridge: float, per_rating: float
) -> None:
    """The fold-in equals the closed form, with padding."""
    random = np.random.default_rng(seed)
    factors = random.normal(size=(20, 3)).astype(np.float32)
    offsets = random.normal(size=20).astype(np.float32)
    config = FoldInConfig(ridge=ridge, ridge_per_rating=per_rating, bias_ridge=2.0)
    items = random.choice(20, size=count, replace=False).astype(np.int32)
    ratings = random.integers(1, 6, size=count).astype(np.float32)
    padded = np.full((1, 16), PADDING, dtype=np.int32)
    stars = np.zeros((1, 16), dtype=np.float32)
    padded[0, :count], stars[0, :count] = items, ratings
    module = LinearModule(factors, offsets, config)
    vector = module.fold_in(tf.constant(padded), tf.constant(stars)).numpy()[0]
    design = np.hstack([factors, np.ones((20, 1))])[items]
    penalty = np.diag([ridge + per_rating * count] * 3 + [2.0])
    expected = np.linalg.solve(design.T @ design + penalty, design.T @ (ratings - offsets[items]))
    np.testing.assert_allclose(vector, expected, atol=2e-3)


def test_a_damaged_saved_model_is_refused(
    parts: tuple[ReleaseData, Interactions], tmp_path: Path
) -> None:
    """A missing folder, and a SavedModel without the signatures, raise an ArtifactError."""
    with pytest.raises(ArtifactError):
        SavedModelScorer.load(tmp_path / "nothing", parts[0])
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "other"))
    with pytest.raises(ArtifactError, match="SavedModel"):
        SavedModelScorer.load(tmp_path / "other", parts[0])
