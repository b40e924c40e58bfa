"""Matrix factorization in Keras: embeddings with biases, a dot product, a perceptron, or both."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marquee_services.arrays import Float32
from marquee_services.ratings import RatingsMatrix
from marquee_services.scoring.scorer import ReleaseData
from marquee_trainer.models.model import Fit, Training
from marquee_trainer.models.scoring_module import (
    FoldInConfig,
    Layers,
    ScoringModule,
)
from marquee_trainer.models.tensorflow_model import TensorFlowModel


@dataclass(frozen=True)
class FactorConfig:
    """Matrix factorization by Adam on minibatches.

    Attributes:
        dimensions: Length of the embeddings.
        epochs: At most so many, with validation data; exactly so many without.
        patience: Epochs without a better validation error before training ends.
        batch: Ratings in a minibatch.
        learning_rate: Adam's, at the start; it falls by a cosine to a tenth over `epochs`.
        l2: Penalty of the embeddings for each rating, so that it scales with their frequency.
        bias_l2: Penalty of the biases for each rating.
        hidden: Units of the perceptron's layers; none for a plain dot product.
        with_dot: Whether the dot product is part of the score.
        dropout: Share of hidden units that are left out in training.
        weight_decay: L2 penalty of the perceptron's weights.
        fold_in: How users are folded in.
    """

    dimensions: int
    epochs: int
    learning_rate: float
    l2: float
    fold_in: FoldInConfig
    patience: int = 3
    batch: int = 1024
    bias_l2: float = 0.005
    hidden: tuple[int, ...] = ()
    with_dot: bool = True
    dropout: float = 0.0
    weight_decay: float = 0.0


class FactorNetwork(keras.Model):  # type: ignore[misc]
    """Stars of (user, item) pairs: μ + b_i + b_u + p · q + MLP(p, q)."""

    def __init__(self, users: int, items: int, mean: float, config: FactorConfig) -> None:
        """Takes the sizes, the mean rating and the configuration."""
        super().__init__()
        self.config = config
        self.mean = mean
        start = keras.initializers.RandomNormal(stddev=0.1 / np.sqrt(config.dimensions))
        if config.hidden:
            start = keras.initializers.RandomNormal(stddev=0.1)
        self.user_factors = keras.layers.Embedding(users, config.dimensions, start)
        self.item_factors = keras.layers.Embedding(items, config.dimensions, start)
        self.user_bias = keras.layers.Embedding(users, 1, "zeros")
        self.item_bias = keras.layers.Embedding(items, 1, "zeros")
        self.dense = [keras.layers.Dense(units) for units in config.hidden]
        self.norms = [keras.layers.BatchNormalization(momentum=0.9) for _ in config.hidden]
        self.drops = [keras.layers.Dropout(config.dropout) for _ in config.hidden]
        self.last = keras.layers.Dense(1, use_bias=False) if config.hidden else None

    def call(self, users: Any, items: Any, training: bool = False) -> Any:
        """Stars of pairs, and the penalty of their embeddings for each pair."""
        p, q = self.user_factors(users), self.item_factors(items)
        b, c = self.user_bias(users)[:, 0], self.item_bias(items)[:, 0]
        scores = self.mean + b + c
        if self.config.with_dot:
            scores += tf.reduce_sum(p * q, axis=1)
        if self.last is not None:
            layer = tf.concat([p, q], axis=1)
            for dense, norm, drop in zip(self.dense, self.norms, self.drops, strict=True):
                layer = drop(tf.nn.relu(norm(dense(layer), training=training)), training=training)
            scores += self.last(layer)[:, 0]
        penalty = self.config.l2 * tf.reduce_sum(p * p + q * q, axis=1)
        return scores, penalty + self.config.bias_l2 * (b * b + c * c)

    def decayed(self) -> list[Any]:
        """The weights that decay."""
        kernels = [dense.kernel for dense in self.dense]
        return [*kernels, self.last.kernel] if self.last is not None else kernels

    def layers_as_served(self) -> Layers:
        """The perceptron with batch normalisation folded into its weights."""
        weights = []
        for dense, norm in zip(self.dense, self.norms, strict=True):
            kernel, bias = (np.asarray(value) for value in dense.get_weights())
            gamma, beta, mean, variance = (np.asarray(value) for value in norm.get_weights())
            scale = gamma / np.sqrt(variance + norm.epsilon)
            weights.append((kernel * scale, (bias - mean) * scale + beta))
        (kernel, bias), hidden = weights[0], weights[1:]
        split = self.config.dimensions
        item_part = self.item_table() @ kernel[split:] + bias
        assert self.last is not None  # noqa: S101 - hidden layers are never without it
        return Layers(
            kernel[:split].astype(np.float32),
            item_part.astype(np.float32),
            tuple((w.astype(np.float32), b.astype(np.float32)) for w, b in hidden),
            np.asarray(self.last.get_weights()[0])[:, 0].astype(np.float32),
        )

    def item_table(self) -> Float32:
        """q of all items (float32, items × k)."""
        return np.asarray(self.item_factors.get_weights()[0], dtype=np.float32)

    def offsets(self) -> Float32:
        """μ + b_i of all items (float32, items)."""
        bias = np.asarray(self.item_bias.get_weights()[0])[:, 0]
        return (bias + self.mean).astype(np.float32)

    def mean_user(self, matrix: RatingsMatrix) -> Float32:
        """The mean of (p, b) over the users who rated (float32, k + 1)."""
        rated = np.diff(matrix.indptr) > 0
        table = np.hstack([self.user_factors.get_weights()[0], self.user_bias.get_weights()[0]])
        return np.asarray(table[rated].mean(axis=0), dtype=np.float32)


class FactorModel(TensorFlowModel[FactorConfig]):
    """A model of embeddings, trained on minibatches of ratings."""

    @abstractmethod
    def module(self, network: FactorNetwork, data: ReleaseData) -> ScoringModule:
        """The module that serves a trained network."""

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
        self.serve(self.module(network, data), data)
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
        self._decay = config.weight_decay
        self._optimizer = keras.optimizers.Adam(config.learning_rate)
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
                scores, penalty = self._network(users, items, training=True)
                squares = tf.square(ratings - scores)
                loss = tf.reduce_mean(squares + penalty)
                for weights in self._network.decayed():
                    loss += self._decay * tf.reduce_sum(tf.square(weights))
            variables = self._network.trainable_variables
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
            self._optimizer.apply(gradients, variables)
            total += tf.reduce_mean(squares)
        return total / tf.cast(self._batches, tf.float32)


__all__ = ["FactorConfig", "FactorModel", "FactorNetwork", "FoldInConfig"]
