"""Deep matrix factorization: a dot product and a perceptron on the vectors of user and item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.item_cf import ItemCFScorer
from marquee_core.scorers.saved_model import PADDING
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.models.model import Fit, Training, predict_pairs
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neural.leave_one_out import LeaveOneOutConfig, LeaveOneOutNetwork
from marquee_trainer.models.neural.neighbour_part import NeighbourPart
from marquee_trainer.models.neural.perceptron_module import PerceptronModule
from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel

# Users of about as many ratings go together. The logarithm of how many is jittered by so much, so
# that it is not always the same users.
_JITTER = 0.15
# Learning rate at the end, as a share of that at the start.
_LAST_RATE = 0.05


class DeepMF(TensorFlowModel[LeaveOneOutConfig]):
    """f = c_i + b_u + p · q_i + s · z_i + MLP(p, s, q_i, p ⊙ q_i): NeuMF (He et al., 2017).

    The perceptron has dense layers, batch normalisation, ReLU and dropout. It sees p ⊙ q, for it
    does not learn products from so few ratings (Rendle et al., 2020).
    """

    name = "deep_mf"
    default = LeaveOneOutConfig()

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`."""
        keras.utils.set_random_seed(training.seed)
        data, config = training.data, self._config
        network = LeaveOneOutNetwork(data, config)
        loop = _Loop(network, data.matrix, config, training.seed)
        added = self._added(training)

        def validate() -> float:
            assert training.validation is not None  # noqa: S101 - asked only then
            biases, found = loop.predict(training.validation)
            predicted = biases + config.factor_weight * found + added
            return float(np.mean((predicted - training.validation.ratings) ** 2))

        fit = self.run_epochs(network, training, loop.epoch, validate)
        neighbours = NeighbourPart(data, config.neighbours) if config.neighbour_weight else None
        module = PerceptronModule(
            network.item_side(),
            network.layers_as_served(),
            config.factor_weight,
            neighbours,
            config.neighbour_weight,
            data.matrix.user_count,
        )
        self.serve(module, data)
        return fit

    def _added(self, training: Training) -> Float32:
        """What neighbourhoods add to the stars of the validation pairs (float32, n)."""
        held_out, data = training.validation, training.data
        if held_out is None or not self._config.neighbour_weight:
            return np.zeros(1, dtype=np.float32)
        neighbours: ItemCFScorer = ItemCF(self._config.neighbours).learn(data)
        stars = predict_pairs(neighbours, data, held_out.users, held_out.items)
        bias = data.baseline.user_bias(data.matrix.all_profiles())[held_out.users]
        neutral = data.baseline.mean + data.baseline.item_bias[held_out.items] + bias
        return (self._config.neighbour_weight * (stars - neutral)).astype(np.float32)


class _Loop:
    """Trains a network on batches of users of like numbers of ratings."""

    def __init__(
        self,
        network: LeaveOneOutNetwork,
        matrix: RatingsMatrix,
        config: LeaveOneOutConfig,
        seed: int,
    ) -> None:
        self._network = network
        self._matrix = matrix
        self._config = config
        self._random = np.random.default_rng(seed)
        self._seed = seed
        self._neutral: Float32 = network.offsets.numpy().copy()
        self._steps = 0
        batches = sum(1 for _ in self._batches(np.zeros(matrix.user_count)))
        rate = keras.optimizers.schedules.CosineDecay(
            config.learning_rate, max(1, config.horizon * batches), alpha=_LAST_RATE
        )
        self._optimizer = keras.optimizers.Adam(rate)
        self._optimizer.build(network.trainable_variables)

    def epoch(self) -> float:
        """One pass over all users; the mean squared error on the way."""
        jitter = _JITTER * self._random.standard_normal(self._matrix.user_count)
        batches = list(self._batches(jitter))
        squares = 0.0
        for place in self._random.permutation(len(batches)):
            self._steps += 1
            seed = tf.constant([self._seed, self._steps])
            items, ratings = self._padded(batches[place])
            squares += float(self._step(tf.constant(items), tf.constant(ratings), seed))
        return squares / max(1, self._matrix.rating_count)

    def predict(self, pairs: Interactions) -> tuple[Float32, Float32]:
        """Biases of pairs, and what else there is to their stars (float32, n each).

        Users without ratings get the baseline's μ + b_i, which training starts from.
        """
        biases = self._neutral[pairs.items]
        found = np.zeros(len(pairs), dtype=np.float32)
        for users in self._batches(np.zeros(self._matrix.user_count)):
            here = np.flatnonzero(np.isin(pairs.users, users))
            if len(here):
                users = np.sort(users)
                items, ratings = self._padded(users)
                parts = self._predict(
                    tf.constant(items),
                    tf.constant(ratings),
                    tf.constant(np.searchsorted(users, pairs.users[here]).astype(np.int32)),
                    tf.constant(pairs.items[here]),
                )
                biases[here], found[here] = (part.numpy() for part in parts)
        return biases, found

    def _batches(self, jitter: Float64) -> Iterator[Int32]:
        """Users with ratings, as many at once as the padded ratings allow (int32)."""
        counts = np.diff(self._matrix.indptr)
        users = np.flatnonzero(counts > 0).astype(np.int32)
        users = users[np.argsort(np.log(counts[users]) + jitter[users], kind="stable")]
        first = 0
        while first < len(users):
            longest = np.maximum.accumulate(counts[users[first:]])
            padded = longest * np.arange(1, len(longest) + 1)
            size = max(1, int(np.searchsorted(padded, self._config.cells, side="right")))
            yield users[first : first + size]
            first += size

    def _padded(self, users: Int32) -> tuple[Int32, Float32]:
        """Items, padded with -1, and ratings of users (int32 and float32, B × L)."""
        profiles = self._matrix.profiles(users)
        shape = len(users), int(profiles.counts.max())
        items = np.full(shape, PADDING, dtype=np.int32)
        ratings = np.zeros(shape, dtype=np.float32)
        places = np.arange(len(profiles.items)) - np.repeat(profiles.indptr[:-1], profiles.counts)
        items[profiles.rows, places] = profiles.items
        ratings[profiles.rows, places] = profiles.ratings
        return items, ratings

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _predict(self, items: Any, ratings: Any, users: Any, wanted: Any) -> Any:
        return self._network.predict_pairs(items, ratings, users, wanted)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _step(self, items: Any, ratings: Any, seed: Any) -> Any:
        network, config = self._network, self._config
        shape = (self._matrix.item_count, config.dimensions)
        noise = tf.random.stateless_normal(shape, seed)
        kept = tf.random.stateless_uniform(tf.shape(network.rater_scales), seed)
        kept = tf.cast(kept >= config.audience_dropout, tf.float32)
        kept /= 1.0 - config.audience_dropout
        with tf.GradientTape() as tape:
            predicted, wanted, rated = network.left_out(items, ratings, noise, kept)
            squares = tf.square(predicted - wanted)
            penalty = 2.0 * config.noise_variance * network.divergence()
            penalty += config.audience_l2 * tf.reduce_sum(tf.square(network.audience))
            loss = tf.reduce_mean(squares) + penalty / self._matrix.rating_count
            for table in (network.set_inputs, network.set_outputs):
                rows = tf.gather(tf.convert_to_tensor(table), rated)
                loss += config.set_l2 * tf.reduce_mean(tf.reduce_sum(tf.square(rows), axis=1))
            for kernel in network.kernels():
                loss += config.weight_decay * tf.reduce_sum(tf.square(kernel))
        variables = network.trainable_variables
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
        self._optimizer.apply(gradients, variables)
        return tf.reduce_sum(squares)
