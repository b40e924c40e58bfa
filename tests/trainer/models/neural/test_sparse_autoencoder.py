"""The autoencoder on sparse rows, compared with TensorFlow on dense rows."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.models.neural import sparse_autoencoder
from marquee_trainer.models.neural.sparse_autoencoder import Cells, SparseAutoencoder

ROWS, COLUMNS, UNITS = 30, 20, 9
SET_SCALE, L2, RATE = 1.5, 3.0, 0.01


def cells_of(seed: int = 0) -> Cells:
    """Draw residuals; one row and one column have none."""
    random = np.random.default_rng(seed)
    rated = random.random((ROWS, COLUMNS)) < 0.3
    rated[4], rated[:, 7] = False, False
    rows, columns = np.nonzero(rated)
    matrix = RatingsMatrix.of(
        rows.astype(np.int32),
        columns.astype(np.int32),
        random.normal(size=len(rows)).astype(np.float32),
        ROWS,
        COLUMNS,
    )
    scales = random.uniform(0.5, 2.0, ROWS).astype(np.float32)
    return Cells.of(matrix.all_profiles(), scales, COLUMNS)


def given_of(cells: Cells, step: int) -> Float32:
    """Return inputs of which about a third is dropped."""
    kept = np.random.default_rng(step).random(len(cells.columns)) >= 0.3
    return (kept / 0.7).astype(np.float32)


def dense_step(
    weights: list[tf.Variable], cells: Cells, given: Float32, optimizer: keras.Optimizer
) -> float:
    """Run the same step on dense rows, differentiated by TensorFlow."""
    encoder, encoder_bias, decoder, decoder_bias = weights
    inputs = np.zeros((ROWS, 2 * COLUMNS), np.float32)
    inputs[cells.rows, cells.columns] = given * cells.residuals
    inputs[cells.rows, COLUMNS + cells.columns] = given * SET_SCALE
    inputs *= cells.scales[:, None]
    places = np.stack([cells.rows, cells.columns], axis=1)
    with tf.GradientTape() as tape:
        codes = tf.sigmoid(tf.matmul(inputs, encoder) + encoder_bias)
        predicted = tf.matmul(codes, decoder, transpose_b=True) + decoder_bias
        squares = tf.reduce_sum(tf.square(tf.gather_nd(predicted, places) - cells.residuals))
        loss = squares + L2 * (tf.nn.l2_loss(encoder) + tf.nn.l2_loss(decoder))
    optimizer.apply(tape.gradient(loss, weights), weights)
    return float(squares)


def test_steps_equal_those_on_dense_rows() -> None:
    """Several Adam steps change the weights as in TensorFlow, and report the same errors."""
    network = SparseAutoencoder(COLUMNS, UNITS, SET_SCALE, seed=1)
    weights = [tf.Variable(weight) for weight in network.get_weights()]
    optimizer = keras.optimizers.Adam(RATE, beta_2=0.99)
    optimizer.build(weights)
    cells = cells_of()
    for step in range(5):
        given = given_of(cells, step)
        expected = dense_step(weights, cells, given, optimizer)
        assert network.step(cells, given, RATE, L2) == pytest.approx(expected, rel=1e-4)
    for sparse, dense in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_allclose(sparse, dense.numpy(), atol=2e-5)


def test_predictions_equal_the_formula() -> None:
    """Codes and predictions equal the formula of the network."""
    network = SparseAutoencoder(COLUMNS, UNITS, SET_SCALE, seed=1)
    cells = cells_of()
    encoder, bias, decoder, decoder_bias = network.get_weights()
    inputs = np.zeros((ROWS, 2 * COLUMNS), np.float32)
    inputs[cells.rows, cells.columns] = cells.residuals
    inputs[cells.rows, COLUMNS + cells.columns] = SET_SCALE
    codes = 1 / (1 + np.exp(-(cells.scales[:, None] * (inputs @ encoder) + bias)))
    np.testing.assert_allclose(network.encode(cells), codes, atol=1e-5)
    expected = codes @ decoder.T + decoder_bias
    rows, columns = np.array([0, 4, 29], np.int32), np.array([7, 0, 19], np.int32)
    found = network.predict(network.encode(cells), rows, columns)
    np.testing.assert_allclose(found, expected[rows, columns], atol=1e-5)


def test_training_does_not_depend_on_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread owns the weights that it changes, so the result is bit-identical."""
    results = []
    for cores in (1, 3):
        monkeypatch.setattr(sparse_autoencoder, "usable_cores", lambda cores=cores: cores)
        network = SparseAutoencoder(COLUMNS, UNITS, SET_SCALE, seed=2)
        cells = cells_of(3)
        for step in range(3):
            network.step(cells, given_of(cells, step), RATE, L2)
        results.append(network.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
