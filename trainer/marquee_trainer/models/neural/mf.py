"""Matrix factorization in Keras: embeddings of users and items, trained by Adam."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.hyperparameters import (
    Interval,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Search,
    SearchWithin,
)
from marquee_trainer.models.model import Fit, Training
from marquee_trainer.models.neural.scoring_module import FoldInConfig, LinearModule
from marquee_trainer.models.neural.tensorflow_model import EpochConfig, TensorFlowModel


@dataclass(frozen=True)
class MFConfig(EpochConfig):
    """The hyperparameters of matrix factorization by Adam on minibatches.

    Attributes:
        epochs: See `EpochConfig`.
        patience: See `EpochConfig`.
        factors: k, the number of latent factors.
        learning_rate: The learning rate of Adam in the first epoch.
        decay: The factor that the learning rate is multiplied by after each epoch, so that the
            embeddings converge.
        l2: The L2 penalty of the embeddings for each rating, in squared stars; frequent users and
            items are penalised more.
        bias_l2: The L2 penalty of the biases for each rating.
        batch: The number of ratings in a minibatch.
        fold_in: The penalties of the fold-in.
    """

    epochs: int = 40
    patience: int = 3
    factors: Annotated[PositiveInt, Search(16, 128)] = 64
    learning_rate: Annotated[PositiveFloat, Search(0.0007, 0.004)] = 0.002
    decay: Annotated[float, Interval(above=0, at_most=1), Search(0.8, 1.0, log=False)] = 1.0
    l2: Annotated[NonNegativeFloat, Search(0.04, 0.12)] = 0.065
    bias_l2: NonNegativeFloat = 0.005
    batch: PositiveInt = 512
    fold_in: Annotated[
        FoldInConfig,
        SearchWithin(
            {
                "ridge": Search(0.3, 40.0),
                "ridge_per_rating": Search(0.005, 0.3),
                "bias_ridge": Search(1.0, 20.0),
            }
        ),
    ] = field(
        default_factory=lambda: FoldInConfig(ridge=1.0, ridge_per_rating=0.07, bias_ridge=5.0)
    )


class FactorNetwork(keras.Model):  # type: ignore[misc]
    """Predicts stars for (user, item) pairs: μ + b_i + b_u + p · q."""

    def __init__(self, users: int, items: int, mean: float, config: MFConfig) -> None:
        """Creates a network with small random factors.

        Args:
            users: The number of users.
            items: The number of items.
            mean: μ, the mean rating in stars.
            config: The hyperparameters.
        """
        super().__init__()
        self.config = config
        self.mean = mean
        start = keras.initializers.RandomNormal(stddev=0.1 / np.sqrt(config.factors))
        self.user_factors = keras.layers.Embedding(users, config.factors, start)
        self.item_factors = keras.layers.Embedding(items, config.factors, start)
        self.user_bias = keras.layers.Embedding(users, 1, "zeros")
        self.item_bias = keras.layers.Embedding(items, 1, "zeros")

    def call(self, users: Any, items: Any) -> Any:
        """Predicts pairs: int32[B], int32[B] → stars and L2 penalty of each, float32[B] each."""
        p, q = self.user_factors(users), self.item_factors(items)
        b, c = self.user_bias(users)[:, 0], self.item_bias(items)[:, 0]
        scores = self.mean + b + c + tf.reduce_sum(p * q, axis=1)
        penalty = self.config.l2 * tf.reduce_sum(p * p + q * q, axis=1)
        return scores, penalty + self.config.bias_l2 * (b * b + c * c)

    def item_table(self) -> Float32:
        """q of all items (float32, items × k)."""
        return np.asarray(self.item_factors.get_weights()[0], dtype=np.float32)

    def offsets(self) -> Float32:
        """μ + b_i of all items, in stars (float32, items)."""
        bias = np.asarray(self.item_bias.get_weights()[0])[:, 0]
        return (bias + self.mean).astype(np.float32)


class MF(TensorFlowModel[MFConfig]):
    """f = μ + b_i + b_u + p · q (Koren, Bell and Volinsky, 2009)."""

    name = "mf"
    config_type = MFConfig

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`."""
        data, config = training.data, self._config
        keras.utils.set_random_seed(training.seed)
        matrix = data.matrix
        network = FactorNetwork(matrix.user_count, matrix.item_count, data.baseline.mean, config)
        loop = _Loop(network, matrix, config)
        random = np.random.default_rng(training.seed)

        def validate() -> float:
            assert training.validation is not None  # noqa: S101 - called only with validation
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
    """The training loop; each epoch is one call of a compiled function."""

    def __init__(self, network: FactorNetwork, matrix: RatingsMatrix, config: MFConfig) -> None:
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
        """Trains on all ratings once, in the given order; returns the mean squared error."""
        return float(self._epoch(tf.constant(order.astype(np.int32))))

    def predict(self, users: Any, items: Any) -> Float32:
        """Predicts stars for pairs (float32, n)."""
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
