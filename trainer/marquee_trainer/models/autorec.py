"""AutoRec: autoencoders of rating vectors (Sedhain, Menon, Sanner and Xie, 2015).

The input pipeline and the loss are sparse: only rated cells are read, and only they are compared
(the masked loss of equation 2). A rating enters as its residual from the bias baseline.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marquee_services.arrays import Float32, Int32
from marquee_services.ratings import RatingsMatrix
from marquee_services.scoring.scorer import ReleaseData
from marquee_trainer.models.model import Fit, Training
from marquee_trainer.models.scoring_module import (
    EncoderModule,
    FoldInConfig,
    LinearModule,
    ScoringModule,
)
from marquee_trainer.models.tensorflow_model import TensorFlowModel


@dataclass(frozen=True)
class AutoRecConfig:
    """An autoencoder with one hidden layer, sigmoid then identity, trained by Adam.

    Attributes:
        hidden: Units of the hidden layer.
        epochs: At most so many, with validation data; exactly so many without.
        learning_rate: Adam's.
        l2: Penalty of the weights (λ / 2 of equation 2), for each rating.
        rows: Rating vectors in a minibatch.
        input_dropout: Share of an input's ratings that are left out in training, so that the
            network cannot copy what it is to predict.
        patience: Epochs without a better validation error before training ends.
        fold_in: How users are folded in, for item vectors.
    """

    hidden: int
    epochs: int
    learning_rate: float
    l2: float
    rows: int = 64
    input_dropout: float = 0.5
    patience: int = 5
    fold_in: FoldInConfig = field(
        default_factory=lambda: FoldInConfig(ridge=20.0, ridge_per_rating=0.0, bias_ridge=5.0)
    )


class AutoRecNetwork(keras.Model):  # type: ignore[misc]
    """r̂_c = w_c · sigmoid(Σ_j x_j v_j + m) + a_c over columns j and c of a row."""

    def __init__(self, columns: int, hidden: int) -> None:
        """Takes the number of columns and of hidden units."""
        super().__init__()
        start = keras.initializers.RandomNormal(stddev=0.05)
        self.encoder = self.add_weight((columns, hidden), start, name="encoder")
        self.encoder_bias = self.add_weight((hidden,), "zeros", name="encoder_bias")
        self.decoder = self.add_weight((columns, hidden), start, name="decoder")
        self.decoder_bias = self.add_weight((columns,), "zeros", name="decoder_bias")
        self.built = True

    def encode(self, rows: Any, columns: Any, values: Any, count: Any) -> Any:
        """Codes of sparse rows: rows int32[nnz], columns int32[nnz], values float32[nnz]."""
        parts = tf.gather(tf.convert_to_tensor(self.encoder), columns) * values[:, None]
        return tf.sigmoid(tf.math.unsorted_segment_sum(parts, rows, count) + self.encoder_bias)

    def decode(self, codes: Any, rows: Any, columns: Any) -> Any:
        """Predicted residuals at cells (float32[nnz])."""
        weights = tf.gather(tf.convert_to_tensor(self.decoder), columns)
        bias = tf.gather(tf.convert_to_tensor(self.decoder_bias), columns)
        return tf.reduce_sum(tf.gather(codes, rows) * weights, axis=1) + bias

    def parts(self) -> tuple[Float32, Float32, Float32, Float32]:
        """v, m, w and a as arrays."""
        v, m, w, a = (np.asarray(weight, dtype=np.float32) for weight in self.get_weights())
        return v, m, w, a


class AutoRecModel(TensorFlowModel[AutoRecConfig]):
    """An autoencoder of the rows of the ratings matrix, or of its columns."""

    @abstractmethod
    def oriented(self, users: Int32, items: Int32) -> tuple[Int32, Int32]:
        """Rows and columns of the autoencoder's matrix."""

    @abstractmethod
    def module(self, network: AutoRecNetwork, data: ReleaseData) -> ScoringModule:
        """The module that serves a trained network."""

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`."""
        data, config = training.data, self._config
        keras.utils.set_random_seed(training.seed)
        sparse = residual_matrix(data, self.oriented)
        network = AutoRecNetwork(sparse.item_count, config.hidden)
        loop = _Loop(network, sparse, config, np.random.default_rng(training.seed))
        fit = self.run_epochs(network, training, loop.epoch, lambda: self._validate(loop, training))
        self.serve(self.module(network, data), data)
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
    default = AutoRecConfig(hidden=128, epochs=60, learning_rate=0.002, l2=0.6, input_dropout=0.3)

    def oriented(self, users: Int32, items: Int32) -> tuple[Int32, Int32]:
        """As `AutoRecModel.oriented`: a row is an item."""
        return items, users

    def module(self, network: AutoRecNetwork, data: ReleaseData) -> ScoringModule:
        """As `AutoRecModel.module`."""
        sparse = residual_matrix(data, self.oriented)
        codes = network.encode(
            tf.constant(sparse.users),
            tf.constant(sparse.items),
            tf.constant(sparse.ratings),
            sparse.user_count,
        ).numpy()
        offsets = data.baseline.item_bias + np.float32(data.baseline.mean)
        # Codes around their mean: what all items share is the user's bias.
        centred = (codes - codes.mean(axis=0)).astype(np.float32)
        return LinearModule(centred, offsets.astype(np.float32), self._config.fold_in)


class UserAutoRec(AutoRecModel):
    """U-AutoRec: codes of users' rating vectors; any visitor's ratings can be encoded."""

    name = "user_autorec"
    default = AutoRecConfig(hidden=128, epochs=60, learning_rate=0.001, l2=0.3)

    def oriented(self, users: Int32, items: Int32) -> tuple[Int32, Int32]:
        """As `AutoRecModel.oriented`: a row is a user."""
        return users, items

    def module(self, network: AutoRecNetwork, data: ReleaseData) -> ScoringModule:
        """As `AutoRecModel.module`."""
        return EncoderModule(*network.parts(), data)


def residual_matrix(data: ReleaseData, oriented: Any) -> RatingsMatrix:
    """Residuals r − b_ui as a matrix of the autoencoder's rows and columns, in stars."""
    matrix = data.matrix
    everybody = matrix.all_profiles()
    residuals = data.baseline.residuals(everybody)
    rows, columns = oriented(matrix.users, matrix.items)
    shape = oriented(matrix.user_count, matrix.item_count)
    return RatingsMatrix.of(rows, columns, residuals, *shape)


class _Loop:
    """Trains an autoencoder on minibatches of sparse rows."""

    def __init__(
        self,
        network: AutoRecNetwork,
        sparse: RatingsMatrix,
        config: AutoRecConfig,
        random: np.random.Generator,
    ) -> None:
        self._network = network
        self._sparse = sparse
        self._config = config
        self._random = random
        self._optimizer = keras.optimizers.Adam(config.learning_rate)
        self._optimizer.build(network.trainable_variables)

    def epoch(self) -> float:
        """One pass over all rows; the mean squared error on the way."""
        order = self._random.permutation(self._sparse.user_count)
        squares, count = 0.0, 0
        for first in range(0, len(order), self._config.rows):
            batch = self._sparse.profiles(order[first : first + self._config.rows].astype(np.int32))
            if not len(batch.items):
                continue
            kept = self._random.random(len(batch.items)) >= self._config.input_dropout
            inputs = batch.ratings * kept / (1.0 - self._config.input_dropout)
            squares += float(
                self._step(
                    tf.constant(batch.rows.astype(np.int32)),
                    tf.constant(batch.items),
                    tf.constant(inputs.astype(np.float32)),
                    tf.constant(batch.ratings),
                    tf.constant(len(batch)),
                )
            )
            count += len(batch.items)
        return squares / max(count, 1)

    def predict(self, rows: Int32, columns: Int32) -> Float32:
        """Predicted residuals at cells (float32, n)."""
        sparse = self._sparse
        codes = self._network.encode(
            tf.constant(sparse.users),
            tf.constant(sparse.items),
            tf.constant(sparse.ratings),
            sparse.user_count,
        )
        predicted: Float32 = self._network.decode(
            codes, tf.constant(rows), tf.constant(columns)
        ).numpy()
        return predicted

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _step(self, rows: Any, columns: Any, inputs: Any, wanted: Any, count: Any) -> Any:
        with tf.GradientTape() as tape:
            codes = self._network.encode(rows, columns, inputs, count)
            squares = tf.reduce_sum(tf.square(self._network.decode(codes, rows, columns) - wanted))
            penalty = sum(
                tf.reduce_sum(tf.square(tf.gather(tf.convert_to_tensor(weights), columns)))
                for weights in (self._network.encoder, self._network.decoder)
            )
            loss = (squares + self._config.l2 * penalty) / tf.cast(tf.size(wanted), tf.float32)
        variables = self._network.trainable_variables
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
        self._optimizer.apply(gradients, variables)
        return squares
