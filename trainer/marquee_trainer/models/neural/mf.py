"""Matrix factorization in TensorFlow: embeddings of users and items, trained by Adam."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32, position_dtype
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.hyperparameters import (
    Interval,
    NestedSearch,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Search,
)
from marquee_trainer.models.model import Fit, Training
from marquee_trainer.models.neural.dot_product_modules import FoldInConfig, LinearModule
from marquee_trainer.models.neural.row_adam import RowAdam
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
        l2: The L2 penalty of the embeddings per rating, in squared stars; frequent users and items
            are penalised more.
        bias_l2: The L2 penalty of the biases per rating.
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
        NestedSearch(
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
    """Predicts stars for (user, item) pairs: μ + b_i + b_u + p · q.

    Users and items share one table: a row is (p, b_u) or (q, b_i), items after users.
    """

    def __init__(self, users: int, items: int, mean: float, config: MFConfig) -> None:
        """Creates a network with small random factors and biases of 0.

        Args:
            users: The number of users.
            items: The number of items.
            mean: μ, the mean rating in stars.
            config: The hyperparameters.

        Raises:
            ValueError: The total number of users and items exceeds the range of int32.
        """
        super().__init__()
        if users + items > np.iinfo(np.int32).max:
            raise ValueError(f"{users:,} users and {items:,} items exceed the 2³¹ − 1 rows of MF")
        self.config = config
        self.mean = mean
        self.users = users
        start = keras.initializers.RandomNormal(stddev=0.1 / np.sqrt(config.factors))
        self.table = self.add_weight((users + items, config.factors + 1), start, name="table")
        factors = np.asarray(self.table)[:, :-1]
        self.table.assign(np.pad(factors, ((0, 0), (0, 1))))
        self.built = True

    def rows(self, users: Any, items: Any) -> Any:
        """Returns the table rows of users, then those of items: int32[B], int32[B] → int32[2 B]."""
        return tf.concat([users, items + self.users], axis=0)

    def score(self, rows: Any) -> tuple[Any, Any]:
        """Predicts pairs from their rows: float32[2 B, k + 1] → stars and penalties, float32[B]."""
        # Split rather than sliced: slicing, and its gradient, would take a third of the step.
        parts = self.config.factors, 1
        (p, b), (q, c) = (tf.split(side, parts, axis=1) for side in tf.split(rows, 2))
        b, c = b[:, 0], c[:, 0]
        scores = self.mean + b + c + tf.reduce_sum(p * q, axis=1)
        penalty = self.config.l2 * tf.reduce_sum(p * p + q * q, axis=1)
        return scores, penalty + self.config.bias_l2 * (b * b + c * c)

    def item_table(self) -> Float32:
        """q of all items (float32, items × k)."""
        return np.ascontiguousarray(np.asarray(self.table)[self.users :, :-1], dtype=np.float32)

    def offsets(self) -> Float32:
        """μ + b_i of all items, in stars (float32, items)."""
        return (np.asarray(self.table)[self.users :, -1] + self.mean).astype(np.float32)


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
        self._config = config
        self._users = tf.constant(matrix.users)
        self._items = tf.constant(matrix.items)
        self._ratings = tf.constant(matrix.ratings)
        self._batch = min(config.batch, matrix.rating_count)
        self._batches = matrix.rating_count // self._batch
        self._position = position_dtype(matrix.rating_count)
        self._epochs = 0
        self._optimizer = RowAdam(network.table.value)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next epoch."""
        return self._config.learning_rate * self._config.decay**self._epochs

    def epoch(self, order: Any) -> float:
        """Trains on all ratings once, in the given order; returns the mean squared error."""
        rate = tf.constant(self.learning_rate, tf.float32)
        self._epochs += 1
        return float(self._epoch(tf.constant(order.astype(self._position)), rate))

    def predict(self, users: Any, items: Any) -> Float32:
        """Predicts stars for pairs (float32, n)."""
        scores: Float32 = self._predict(tf.constant(users), tf.constant(items)).numpy()
        return scores

    @tf.function  # type: ignore[untyped-decorator]
    def _predict(self, users: Any, items: Any) -> Any:
        rows = self._network.rows(users, items)
        return self._network.score(tf.gather(tf.convert_to_tensor(self._network.table), rows))[0]

    @tf.function  # type: ignore[untyped-decorator]
    def _epoch(self, order: Any, learning_rate: Any) -> Any:
        total = tf.constant(0.0)
        for step in tf.range(self._batches, dtype=order.dtype):
            batch = order[step * self._batch : (step + 1) * self._batch]
            users, items = tf.gather(self._users, batch), tf.gather(self._items, batch)
            ratings = tf.gather(self._ratings, batch)
            rows, positions = tf.unique(self._network.rows(users, items))
            state = self._optimizer.read(rows, learning_rate)
            values = state[0]
            with tf.GradientTape() as tape:
                tape.watch(values)
                scores, penalty = self._network.score(tf.gather(values, positions))
                squares = tf.square(ratings - scores)
                loss = tf.reduce_mean(squares + penalty)
            gradient = tf.convert_to_tensor(tape.gradient(loss, values))
            self._optimizer.apply(rows, state, gradient, learning_rate)
            total += tf.reduce_mean(squares)
        self._optimizer.flush(learning_rate)
        return total / tf.cast(self._batches, tf.float32)
