"""AutoRec: autoencoders of rating vectors (Sedhain, Menon, Sanner and Xie, 2015).

Beside the residuals, the input says which cells are rated at all: who rates an item, and what a
user rates, tells of taste as well (the implicit feedback of Koren, 2008).

The input pipeline and the loss are sparse: only rated cells are kept and read, and only they are
compared (the masked loss of equation 2). A rating enters as its residual from the bias baseline.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.model import Fit, Training
from marquee_trainer.models.neural.scoring_module import (
    EncoderModule,
    FoldInConfig,
    InputScale,
    LinearModule,
    ScoringModule,
)
from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel

# Learning rate at the end, as a share of that at the start.
_LAST_RATE = 0.1
# Adam's decay of squared gradients: there are few steps, so it must be quick.
_SECOND_DECAY = 0.99


@dataclass(frozen=True)
class AutoRecConfig:
    """An autoencoder with one hidden layer, sigmoid then identity, trained by Adam.

    Attributes:
        l2: λ of equation 2, the penalty of the weights in squared stars; biases are free.
        hidden: Units of the hidden layer.
        epochs: At most so many, with validation data; exactly so many without.
        horizon: Epochs over which the learning rate falls by a cosine to a tenth.
        learning_rate: Adam's, at the start.
        input_dropout: Share of an input's ratings that are left out in training, so that the
            network cannot copy what it is to predict.
        count_damping: c in the scale of an input of n ratings, √((n̄ + c) / (n + c)), where n̄ is
            the mean of n: sums of many ratings would leave the sigmoid's range.
        set_scale: Input of a rated cell that says that it is rated, in stars; scaled likewise.
        cells: Each step is on so many cells of dense rows; bounds memory. Small data is one step.
        patience: Epochs without a better validation error before training ends.
        fold_in: How users are folded in, for item vectors.
    """

    l2: float
    hidden: int = 100
    epochs: int = 70
    horizon: int = 70
    learning_rate: float = 0.01
    input_dropout: float = 0.5
    count_damping: float = 10.0
    set_scale: float = 4.0
    cells: int = 2_000_000
    patience: int = 15
    fold_in: FoldInConfig = field(
        default_factory=lambda: FoldInConfig(ridge=20.0, ridge_per_rating=0.0, bias_ridge=5.0)
    )


class AutoRecNetwork(keras.Model):  # type: ignore[misc]
    """r̂ = W · sigmoid(V x + m) + a of dense rows x, which are residuals and then sets."""

    def __init__(self, columns: int, hidden: int) -> None:
        """Takes the number of columns and of hidden units."""
        super().__init__()
        start = keras.initializers.RandomNormal(stddev=0.05)
        self.encoder = self.add_weight((2 * columns, hidden), start, name="encoder")
        self.encoder_bias = self.add_weight((hidden,), "zeros", name="encoder_bias")
        self.decoder = self.add_weight((columns, hidden), start, name="decoder")
        self.decoder_bias = self.add_weight((columns,), "zeros", name="decoder_bias")
        self.built = True

    def encode(self, rows: Any) -> Any:
        """Codes: float32[B, 2 · columns] → float32[B, hidden]."""
        return tf.sigmoid(tf.matmul(rows, self.encoder) + self.encoder_bias)

    def decode(self, codes: Any) -> Any:
        """Predicted residuals: float32[B, hidden] → float32[B, columns]."""
        return tf.matmul(codes, self.decoder, transpose_b=True) + self.decoder_bias

    def decode_cells(self, codes: Any, columns: Any) -> Any:
        """Predicted residuals of a column of each code: float32[n, hidden], int32[n]."""
        weights = tf.gather(tf.convert_to_tensor(self.decoder), columns)
        bias = tf.gather(tf.convert_to_tensor(self.decoder_bias), columns)
        return tf.reduce_sum(codes * weights, axis=1) + bias

    def parts(self) -> tuple[Float32, Float32, Float32, Float32]:
        """V, m, W and a as arrays."""
        v, m, w, a = (np.asarray(weight, dtype=np.float32) for weight in self.get_weights())
        return v, m, w, a


class AutoRecModel(TensorFlowModel[AutoRecConfig]):
    """An autoencoder of the rows of the ratings matrix, or of its columns."""

    @abstractmethod
    def oriented(self, users: Int32, items: Int32) -> tuple[Int32, Int32]:
        """Rows and columns of the autoencoder's matrix."""

    @abstractmethod
    def module(self, network: AutoRecNetwork, loop: _Loop, data: ReleaseData) -> ScoringModule:
        """The module that serves a trained network."""

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`."""
        data, config = training.data, self._config
        keras.utils.set_random_seed(training.seed)
        sparse = residual_matrix(data, self.oriented)
        network = AutoRecNetwork(sparse.item_count, config.hidden)
        loop = _Loop(network, sparse, config, training.seed)
        fit = self.run_epochs(network, training, loop.epoch, lambda: self._validate(loop, training))
        self.serve(self.module(network, loop, data), data)
        return fit

    def _validate(self, loop: _Loop, training: Training) -> float:
        held_out, data = training.validation, training.data
        assert held_out is not None  # noqa: S101 - asked only then
        rows, columns = self.oriented(held_out.users, held_out.items)
        everybody = data.matrix.all_profiles()
        bias = data.baseline.user_bias(everybody)[held_out.users]
        bias = bias + data.baseline.item_bias[held_out.items] + data.baseline.mean
        predicted = loop.predict(rows, columns) + bias
        return float(np.mean((predicted - held_out.ratings) ** 2))


class AutoRec(AutoRecModel):
    """I-AutoRec: codes of items' rating vectors; a user is a linear read-out of the codes.

    With the codes frozen, a user's read-out is the ridge solution on the user's own ratings.
    """

    name = "autorec"
    default = AutoRecConfig(
        l2=100.0, fold_in=FoldInConfig(ridge=40.0, ridge_per_rating=0.0, bias_ridge=5.0)
    )

    def oriented(self, users: Int32, items: Int32) -> tuple[Int32, Int32]:
        """As `AutoRecModel.oriented`: a row is an item."""
        return items, users

    def module(self, _: AutoRecNetwork, loop: _Loop, data: ReleaseData) -> ScoringModule:
        """As `AutoRecModel.module`."""
        codes = loop.codes()
        offsets = data.baseline.item_bias + np.float32(data.baseline.mean)
        # Codes around their mean: what all items share is the user's bias.
        centred = (codes - codes.mean(axis=0)).astype(np.float32)
        return LinearModule(centred, offsets.astype(np.float32), self._config.fold_in)


class UserAutoRec(AutoRecModel):
    """U-AutoRec: codes of users' rating vectors; any visitor's ratings can be encoded."""

    name = "user_autorec"
    default = AutoRecConfig(l2=60.0, set_scale=1.0)

    def oriented(self, users: Int32, items: Int32) -> tuple[Int32, Int32]:
        """As `AutoRecModel.oriented`: a row is a user."""
        return users, items

    def module(self, network: AutoRecNetwork, loop: _Loop, data: ReleaseData) -> ScoringModule:
        """As `AutoRecModel.module`."""
        config = self._config
        scale = InputScale(loop.mean_count, config.count_damping, config.set_scale)
        return EncoderModule(*network.parts(), scale, data)


def residual_matrix(data: ReleaseData, oriented: Any) -> RatingsMatrix:
    """Residuals r − b_ui as a matrix of the autoencoder's rows and columns, in stars."""
    matrix = data.matrix
    everybody = matrix.all_profiles()
    residuals = data.baseline.residuals(everybody)
    rows, columns = oriented(matrix.users, matrix.items)
    shape = oriented(matrix.user_count, matrix.item_count)
    return RatingsMatrix.of(rows, columns, residuals, *shape)


class _Loop:
    """Trains an autoencoder on blocks of random rows, of each of which a dense copy is made."""

    def __init__(
        self, network: AutoRecNetwork, sparse: RatingsMatrix, config: AutoRecConfig, seed: int
    ) -> None:
        self._network = network
        self._sparse = sparse
        self._config = config
        self._seed = seed
        self._steps = 0
        counts = np.diff(sparse.indptr)
        self.mean_count = float(counts.mean())
        size = max(1, config.cells // max(1, sparse.item_count))
        self._random = np.random.default_rng(seed)
        self._parts = -(-len(counts) // size)
        rate = keras.optimizers.schedules.CosineDecay(
            config.learning_rate, config.horizon * self._parts, alpha=_LAST_RATE
        )
        self._optimizer = keras.optimizers.Adam(rate, beta_2=_SECOND_DECAY)
        self._optimizer.build(network.trainable_variables)

    def epoch(self) -> float:
        """One pass over all rows; the mean squared error on the way."""
        squares, order = 0.0, np.arange(self._sparse.user_count)
        if self._parts > 1:
            self._random.shuffle(order)
        for block in self._blocks(order):
            self._steps += 1
            seed = tf.constant([self._seed, self._steps])
            squares += float(self._step(*self._cells(block), seed))
        return squares / max(1, self._sparse.rating_count)

    def codes(self) -> Float32:
        """Codes of all rows (float32, rows × hidden)."""
        blocks = self._blocks(np.arange(self._sparse.user_count))
        parts = [self._encode(*self._cells(rows)).numpy() for rows in blocks]
        return np.concatenate(parts)

    def predict(self, rows: Int32, columns: Int32) -> Float32:
        """Predicted residuals at cells (float32, n)."""
        codes = tf.constant(self.codes()[rows])
        found: Float32 = self._network.decode_cells(codes, tf.constant(columns)).numpy()
        return found

    def _blocks(self, order: Int64) -> list[Int32]:
        """Rows in that order, in as many parts as memory allows (int32)."""
        return [part.astype(np.int32) for part in np.array_split(order, self._parts)]

    def _cells(self, rows: Int32) -> tuple[Any, Any, Any]:
        """Places in a dense block, int64[n, 2], residuals, float32[n], and the block's length."""
        profiles = self._sparse.profiles(rows)
        places = np.stack([profiles.rows, profiles.items.astype(np.int64)], axis=1)
        # As a tensor: of each number TensorFlow would make a graph of its own.
        return tf.constant(places), tf.constant(profiles.ratings), tf.constant(len(rows))

    def _inputs(self, places: Any, residuals: Any, given: Any, rows: Any) -> Any:
        """Dense rows as the encoder takes them, of residuals and 1 for each rating."""
        shape = tf.stack([tf.cast(rows, tf.int64), self._sparse.item_count])
        counts = tf.math.bincount(tf.cast(places[:, 0], tf.int32), minlength=rows)
        scale = InputScale(self.mean_count, self._config.count_damping, self._config.set_scale)
        own = scale.of(tf.cast(counts, tf.float32))[:, None]
        sets = tf.scatter_nd(places, given * scale.set_scale, shape)
        return tf.concat([tf.scatter_nd(places, residuals, shape), sets], axis=1) * own

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _encode(self, places: Any, residuals: Any, rows: Any) -> Any:
        given = tf.ones_like(residuals)
        return self._network.encode(self._inputs(places, residuals, given, rows))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _step(self, places: Any, residuals: Any, rows: Any, seed: Any) -> Any:
        """A step on a block's share of the loss; the block's squared errors."""
        dropout, network = self._config.input_dropout, self._network
        kept = tf.random.stateless_uniform(tf.shape(residuals), seed) >= dropout
        kept = tf.cast(kept, tf.float32) / (1.0 - dropout)
        with tf.GradientTape() as tape:
            predicted = network.decode(
                network.encode(self._inputs(places, residuals * kept, kept, rows))
            )
            errors = tf.gather_nd(predicted, places) - residuals
            squares = tf.reduce_sum(tf.square(errors))
            penalty = tf.nn.l2_loss(network.encoder) + tf.nn.l2_loss(network.decoder)
            loss = squares + self._config.l2 * penalty / self._parts
        gradients = tape.gradient(loss, network.trainable_variables)
        self._optimizer.apply(
            [tf.convert_to_tensor(g) for g in gradients], network.trainable_variables
        )
        return squares
