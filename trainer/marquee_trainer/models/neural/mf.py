"""Matrix factorization in Keras: embeddings of users and items, trained by Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.models.model import Fit, Training
from marquee_trainer.models.neural.scoring_module import FoldInConfig, LinearModule
from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel


@dataclass(frozen=True)
class FactorConfig:
    """Matrix factorization by Adam on minibatches.

    Attributes:
        dimensions: Length of the embeddings.
        epochs: At most so many, with validation data; exactly so many without.
        patience: Epochs without a better validation error before training ends.
        batch: Ratings in a minibatch.
        learning_rate: Adam's, in the first epoch.
        decay: By what the learning rate is multiplied after each epoch, so that the factors come
            to rest.
        l2: Penalty of the embeddings for each rating, so that it scales with their frequency.
        bias_l2: Penalty of the biases for each rating.
        fold_in: How users are folded in.
    """

    dimensions: int
    epochs: int
    learning_rate: float
    l2: float
    fold_in: FoldInConfig
    patience: int = 3
    batch: int = 512
    decay: float = 1.0
    bias_l2: float = 0.005

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay: {self.decay} is not above 0 and at most 1")


class FactorNetwork(keras.Model):  # type: ignore[misc]
    """Stars of (user, item) pairs: μ + b_i + b_u + p · q."""

    def __init__(self, users: int, items: int, mean: float, config: FactorConfig) -> None:
        """Takes the sizes, the mean rating and the configuration."""
        super().__init__()
        self.config = config
        self.mean = mean
        start = keras.initializers.RandomNormal(stddev=0.1 / np.sqrt(config.dimensions))
        self.user_factors = keras.layers.Embedding(users, config.dimensions, start)
        self.item_factors = keras.layers.Embedding(items, config.dimensions, start)
        self.user_bias = keras.layers.Embedding(users, 1, "zeros")
        self.item_bias = keras.layers.Embedding(items, 1, "zeros")

    def call(self, users: Any, items: Any) -> Any:
        """Stars of pairs, and the penalty of their embeddings for each pair."""
        p, q = self.user_factors(users), self.item_factors(items)
        b, c = self.user_bias(users)[:, 0], self.item_bias(items)[:, 0]
        scores = self.mean + b + c + tf.reduce_sum(p * q, axis=1)
        penalty = self.config.l2 * tf.reduce_sum(p * p + q * q, axis=1)
        return scores, penalty + self.config.bias_l2 * (b * b + c * c)

    def item_table(self) -> Float32:
        """q of all items (float32, items × k)."""
        return np.asarray(self.item_factors.get_weights()[0], dtype=np.float32)

    def offsets(self) -> Float32:
        """μ + b_i of all items (float32, items)."""
        bias = np.asarray(self.item_bias.get_weights()[0])[:, 0]
        return (bias + self.mean).astype(np.float32)


class MF(TensorFlowModel[FactorConfig]):
    """f = μ + b_i + b_u + p · q (Koren, Bell and Volinsky, 2009)."""

    name = "mf"
    default = FactorConfig(
        dimensions=64,
        epochs=40,
        learning_rate=0.002,
        l2=0.065,
        fold_in=FoldInConfig(ridge=1.0, ridge_per_rating=0.07, bias_ridge=5.0),
    )

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`."""
        data, config = training.data, self._config
        keras.utils.set_random_seed(training.seed)
        matrix = data.matrix
        network = FactorNetwork(matrix.user_count, matrix.item_count, data.baseline.mean, config)
        loop = _Loop(network, matrix, config)
        random = np.random.default_rng(training.seed)

        def validate() -> float:
            assert training.validation is not None  # noqa: S101 - asked only then
            predicted = loop.predict(training.validation.users, training.validation.items)
            return float(np.mean((predicted - training.validation.ratings) ** 2))

        fit = self.run_epochs(
            network,
            training,
            lambda: loop.epoch(random.permutation(matrix.rating_count)),
            validate,
        )
        self.serve(LinearModule(network.item_table(), network.offsets(), config.fold_in), data)
        return fit


class _Loop:
    """Trains a network, an epoch in one call of a compiled function."""

    def __init__(self, network: FactorNetwork, matrix: RatingsMatrix, config: FactorConfig) -> None:
        self._network = network
        self._users = tf.constant(matrix.users)
        self._items = tf.constant(matrix.items)
        self._ratings = tf.constant(matrix.ratings)
        self._batch = min(config.batch, matrix.rating_count)
        self._batches = matrix.rating_count // self._batch
        rate = keras.optimizers.schedules.ExponentialDecay(
            config.learning_rate, self._batches, config.decay, staircase=True
        )
        self._optimizer = keras.optimizers.Adam(rate)
        network(self._users[:2], self._items[:2])
        self._optimizer.build(network.trainable_variables)

    def epoch(self, order: Any) -> float:
        """One pass over the ratings in an order; the mean squared error on the way."""
        return float(self._epoch(tf.constant(order.astype(np.int32))))

    def predict(self, users: Any, items: Any) -> Float32:
        """Stars of pairs (float32, n)."""
        scores: Float32 = self._predict(tf.constant(users), tf.constant(items)).numpy()
        return scores

    @tf.function  # type: ignore[untyped-decorator]
    def _predict(self, users: Any, items: Any) -> Any:
        return self._network(users, items)[0]

    @tf.function  # type: ignore[untyped-decorator]
    def _epoch(self, order: Any) -> Any:
        total = tf.constant(0.0)
        for step in tf.range(self._batches):
            rows = order[step * self._batch : (step + 1) * self._batch]
            users, items = tf.gather(self._users, rows), tf.gather(self._items, rows)
            ratings = tf.gather(self._ratings, rows)
            with tf.GradientTape() as tape:
                scores, penalty = self._network(users, items)
                squares = tf.square(ratings - scores)
                loss = tf.reduce_mean(squares + penalty)
            variables = self._network.trainable_variables
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
            self._optimizer.apply(gradients, variables)
            total += tf.reduce_mean(squares)
        return total / tf.cast(self._batches, tf.float32)
