"""The base class of deep and residual MF, which trains and serves a `LeaveOneOutNetwork`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.saved_model import PADDING
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.models.model import Fit, Training
from marquee_trainer.models.neural.leave_one_out_network import (
    LeaveOneOutConfig,
    LeaveOneOutNetwork,
)
from marquee_trainer.models.neural.perceptron_module import PerceptronModule
from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel

# Batches contain users with similar numbers of ratings. Random jitter of the logarithm of that
# number changes which users share a batch. This is its standard deviation.
_JITTER = 0.15
# The learning rate at the end of the horizon, relative to that at the start.
_FINAL_RATE = 0.05
# The largest number of steps in an epoch, not counting padding; beyond it, batches grow instead.
# Each step adds up the audience of all items, so with more steps the cost of an epoch would grow
# with the square of the number of ratings.
_MAX_STEPS = 256
# The name of the baseline μ + b_i of an earlier fit, in the parameters that a refit starts from.
_BASELINE = "baseline"

LeaveOneOutConfigT_co = TypeVar("LeaveOneOutConfigT_co", bound=LeaveOneOutConfig, covariant=True)


class LeaveOneOutModel(TensorFlowModel[LeaveOneOutConfigT_co]):
    """f = c_i + b_u + g(p · q_i + s · z_i + MLP(p, s, q_i, …)), by factors, sets and a perceptron.

    Subclasses choose the perceptron's inputs and how its prediction is combined with others.

    Attributes:
        products: Whether p ⊙ q_i is an input of the perceptron.
    """

    products: ClassVar[bool]
    refit_from = 0.5

    @abstractmethod
    def combiner(self, training: Training) -> Callable[[Float32, Float32], Float32]:
        """Returns a function that predicts the validation ratings in stars.

        It takes the biases c_i + b_u of the validation pairs, and the terms of dot products and
        perceptron (float32, n each).
        """

    @abstractmethod
    def module(self, network: LeaveOneOutNetwork, data: ReleaseData) -> PerceptronModule:
        """Makes the served form of a trained network."""

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`."""
        keras.utils.set_random_seed(training.seed)
        data, config = training.data, self._config
        network = LeaveOneOutNetwork(data, config, self.products)
        self.continue_from_start(network)
        baseline = data.baseline.item_bias + np.float32(data.baseline.mean)
        if self.start:
            # Biases keep what they learned beyond the baseline, which has more ratings in a refit.
            network.offsets.assign_add(baseline - self.start[_BASELINE])
        loop = _Loop(network, data.matrix, config, training.seed, self.skipped_epochs)
        combine = self.combiner(training)

        def validate() -> float:
            assert training.validation is not None  # noqa: S101 - called only with validation
            predicted = combine(*loop.predict(training.validation))
            return float(np.mean((predicted - training.validation.ratings) ** 2))

        fit = self.run_epochs(network, training, loop.epoch, validate)
        if self.learned and not self.start:
            self.learned = {**self.learned, _BASELINE: baseline}
        self.serve(self.module(network, data), data)
        return fit


class _RestOfDecay(keras.optimizers.schedules.CosineDecay):  # type: ignore[misc]
    """A cosine decay (Loshchilov and Hutter, 2017) without its first steps."""

    def __init__(self, done: int, rate: float, steps: int, alpha: float) -> None:
        """Creates the schedule.

        Args:
            done: The number of first steps that are omitted.
            rate: The learning rate at the start of the whole decay.
            steps: The length of the whole decay.
            alpha: The learning rate at its end, relative to that at its start.
        """
        super().__init__(rate, steps, alpha=alpha)
        self._done = done

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step of the rest, counted from 0: a float32 scalar."""
        return super().__call__(step + self._done)


class _Loop:
    """The training loop, on batches of users with similar numbers of ratings."""

    def __init__(
        self,
        network: LeaveOneOutNetwork,
        matrix: RatingsMatrix,
        config: LeaveOneOutConfig,
        seed: int,
        skipped_epochs: int,
    ) -> None:
        self._network = network
        self._matrix = matrix
        self._config = config
        self._random = np.random.default_rng(seed)
        self._seed = seed
        self._initial_offsets: Float32 = network.offsets.numpy().copy()
        self._cells = max(config.cells, -(-matrix.rating_count // _MAX_STEPS))
        batches = sum(1 for _ in self._batches(np.zeros(matrix.user_count)))
        self._steps = skipped_epochs * batches
        horizon = max(1, config.horizon * batches)
        rate = _RestOfDecay(self._steps, config.learning_rate, horizon, alpha=_FINAL_RATE)
        self._variables = [v for v in network.trainable_variables if v is not network.audience]
        self._optimizer = keras.optimizers.Adam(rate)
        self._optimizer.build(self._variables)
        self._audience_optimizer = keras.optimizers.Adam(rate)
        self._audience_optimizer.build([network.audience])

    def epoch(self) -> float:
        """Trains on all users once; returns the mean squared error."""
        jitter = _JITTER * self._random.standard_normal(self._matrix.user_count)
        batches = list(self._batches(jitter))
        squares = 0.0
        for position in self._random.permutation(len(batches)):
            squares += self._train(*self._padded(batches[position]))
        return squares / max(1, self._matrix.rating_count)

    def predict(self, pairs: Interactions) -> tuple[Float32, Float32]:
        """Predicts the biases of pairs, and the terms of dot products and perceptron.

        For users without ratings, the bias is the baseline's μ + b_i and the terms are 0.

        Returns:
            The biases and the terms, in stars (float32, n each).
        """
        biases = self._initial_offsets[pairs.items]
        additions = np.zeros(len(pairs), dtype=np.float32)
        factors = self._network.served_factors()
        batches = [np.sort(users) for users in self._batches(np.zeros(self._matrix.user_count))]
        # Users without ratings are in no batch, and their pairs come first.
        batch_of = np.full(self._matrix.user_count, -1)
        for number, users in enumerate(batches):
            batch_of[users] = number
        order = np.argsort(batch_of[pairs.users], kind="stable")
        ends = np.searchsorted(batch_of[pairs.users[order]], np.arange(len(batches) + 1))
        for users, first, end in zip(batches, ends[:-1], ends[1:], strict=True):
            here = order[first:end]
            if len(here):
                items, ratings = self._padded(users)
                parts = self._predict(
                    factors,
                    tf.constant(items),
                    tf.constant(ratings),
                    tf.constant(np.searchsorted(users, pairs.users[here]).astype(np.int32)),
                    tf.constant(pairs.items[here]),
                )
                biases[here], additions[here] = (part.numpy() for part in parts)
        return biases, additions

    def _batches(self, jitter: Float64) -> Iterator[Int32]:
        """Yields batches of users with ratings, each as large as the limit allows (int32).

        Args:
            jitter: Added to the logarithm of each user's number of ratings before sorting
                (float64, users).
        """
        counts = np.diff(self._matrix.indptr)
        users = np.flatnonzero(counts > 0).astype(np.int32)
        users = users[np.argsort(np.log(counts[users]) + jitter[users], kind="stable")]
        first = 0
        while first < len(users):
            # An upper bound on the batch size, reached if no user has more ratings than the first.
            most = max(1, self._cells // int(counts[users[first]]))
            longest = np.maximum.accumulate(counts[users[first : first + most]])
            padded = longest * np.arange(1, len(longest) + 1)
            size = max(1, int(np.searchsorted(padded, self._cells, side="right")))
            yield users[first : first + size]
            first += size

    def _padded(self, users: Int32) -> tuple[Int32, Float32]:
        """The rated items of users, padded with -1, and the ratings (int32, float32, B × L)."""
        profiles = self._matrix.profiles(users)
        shape = len(users), int(profiles.counts.max())
        items = np.full(shape, PADDING, dtype=np.int32)
        ratings = np.zeros(shape, dtype=np.float32)
        positions = np.arange(len(profiles.items)) - np.repeat(
            profiles.indptr[:-1], profiles.counts
        )
        items[profiles.rows, positions] = profiles.items
        ratings[profiles.rows, positions] = profiles.ratings
        return items, ratings

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _predict(self, factors: Any, items: Any, ratings: Any, users: Any, targets: Any) -> Any:
        return self._network.predict_pairs(factors, items, ratings, users, targets)

    def _train(self, items: Int32, ratings: Float32) -> float:
        """Trains on a batch; returns its sum of squared errors."""
        network, audiences = self._network, self._network.audiences
        self._steps += 1
        seed = tf.constant([self._seed, self._steps])
        dropout = self._config.audience_dropout
        audience = audiences.part(dropout, (self._seed, self._steps))
        weight = 1.0 / (1.0 - dropout)
        sums = audiences.sums(network.audience.numpy(), audience, weight)
        squares, by_item = self._step(
            tf.constant(items), tf.constant(ratings), seed, tf.constant(sums)
        )
        by_user = audiences.gradient(by_item.numpy(), audience, weight)
        self._update_audience(tf.constant(by_user))
        return float(squares)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _step(self, items: Any, ratings: Any, seed: Any, sums: Any) -> tuple[Any, Any]:
        """Updates all weights but the embeddings of the audience.

        Returns:
            The batch's sum of squared errors, and the gradient by the sums of the audience.
        """
        network, config = self._network, self._config
        shape = (self._matrix.item_count, config.factors)
        noise = tf.random.stateless_normal(shape, seed)
        with tf.GradientTape() as tape:
            tape.watch(sums)
            factors = network.means + sums
            predicted, targets, rated = network.predict_left_out(factors, items, ratings, noise)
            squares = tf.square(predicted - targets)
            penalty = 2.0 * config.noise_variance * network.divergence()
            loss = tf.reduce_mean(squares) + penalty / self._matrix.rating_count
            for table in (network.set_inputs, network.set_outputs):
                rows = tf.gather(tf.convert_to_tensor(table), rated)
                loss += config.set_l2 * tf.reduce_mean(tf.reduce_sum(tf.square(rows), axis=1))
            for kernel in network.kernels():
                loss += config.weight_decay * tf.reduce_sum(tf.square(kernel))
        found = tape.gradient(loss, [*self._variables, sums])
        *gradients, by_item = map(tf.convert_to_tensor, found)
        self._optimizer.apply(gradients, self._variables)
        return tf.reduce_sum(squares), by_item

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _update_audience(self, gradient: Any) -> None:
        """Updates the embeddings of the audience, whose penalty is part of the loss."""
        audience = self._network.audience
        penalty = 2.0 * self._config.audience_l2 / self._matrix.rating_count
        self._audience_optimizer.apply([gradient + penalty * audience], [audience])
