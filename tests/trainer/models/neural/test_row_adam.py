"""Adam that updates only the rows of a step, compared with Adam on the whole table."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from marquee_trainer.models.neural.row_adam import RowAdam

ROWS, COLUMNS = 40, 3


def test_row_updates_equal_those_of_adam_on_the_whole_table() -> None:
    """Rows agree over epochs with different learning rates, however often they are used."""
    random = np.random.default_rng(0)
    start = random.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    targets = random.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    chances = np.linspace(1.0, 0.0, ROWS) ** 3
    whole, table = tf.Variable(start), tf.Variable(start)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build([whole])
    row_adam = RowAdam(table)
    for rate in (0.01, 0.005):
        optimizer.learning_rate = rate
        for _ in range(150):
            rows = np.flatnonzero(random.random(ROWS) < chances).astype(np.int32)
            noise = random.normal(size=(len(rows), COLUMNS)).astype(np.float32)
            gradient = np.zeros_like(start)
            gradient[rows] = whole.numpy()[rows] - targets[rows] + noise
            optimizer.apply([tf.constant(gradient)], [whole])
            read = row_adam.read(tf.constant(rows), rate)
            own = read[0] - targets[rows] + noise
            row_adam.apply(tf.constant(rows), read, own, rate)
        row_adam.flush(rate)
    moved = np.abs(whole.numpy() - start).mean(axis=1)
    difference = np.abs(whole.numpy() - table.numpy()).mean(axis=1)
    used = chances > 0.02
    assert float(moved[used].min()) > 0.01
    assert (difference[used] < 0.1 * moved[used]).all()
    np.testing.assert_array_equal(table.numpy()[-1], start[-1])


def test_reading_a_row_applies_pending_updates() -> None:
    """Reading a row after steps without it gives the same values as flushing the table."""
    table = tf.Variable(np.ones((2, 1), dtype=np.float32))
    row_adam = RowAdam(table)
    for row in (0, 1, 1, 1):
        rows = tf.constant([row])
        row_adam.apply(rows, row_adam.read(rows, 0.1), tf.ones((1, 1)), 0.1)
    read = float(row_adam.read(tf.constant([0]), 0.1)[0][0, 0])
    row_adam.flush(0.1)
    assert read == pytest.approx(float(table[0, 0]))
    assert read < 0.9 - 0.05
