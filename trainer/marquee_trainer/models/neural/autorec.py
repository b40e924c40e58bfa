"""AutoRec: autoencoders of rating vectors (Sedhain, Menon, Sanner and Xie, 2015).

A rating is an input as its residual from the bias baseline. Further inputs mark which cells are
rated: which users rate an item, and which items a user rates, also reveals taste (the implicit
feedback of Koren, 2008).

The input pipeline and the loss are sparse: only rated cells are stored and read, and only they
contribute to the loss (the masked loss of equation 2).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, TypeVar

import keras
import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.hyperparameters import (
    DropoutRate,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Search,
    SearchWithin,
)
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.model import Fit, Training
from marquee_trainer.models.neural.scoring_module import (
    EncoderModule,
    FoldInConfig,
    InputScale,
    LinearModule,
    ScoringModule,
)
from marquee_trainer.models.neural.tensorflow_model import EpochConfig, TensorFlowModel

# The learning rate at the end of the horizon, relative to that at the start.
_FINAL_RATE = 0.1
# Adam's β₂, the decay of the squared gradients: training has few steps, so they must adapt fast.
_ADAM_BETA_2 = 0.99


@dataclass(frozen=True)
class AutoRecConfig(EpochConfig):
    """The hyperparameters of an autoencoder with one hidden layer, trained by Adam.

    The hidden layer has sigmoid activation, the output is linear.

    Attributes:
        epochs: See `EpochConfig`.
        patience: See `EpochConfig`.
        hidden_units: h, the number of units in the hidden layer.
        l2: λ of equation 2, the L2 penalty of the weights, in squared stars. Biases have none.
        input_dropout: The share of an input's ratings that training drops at random, so that the
            network cannot copy the ratings that it predicts.
        learning_rate: The learning rate of Adam at the start.
        count_damping: c in the scale √((n̄ + c) / (n + c)) of an input with n ratings, where n̄ is
            the mean of n. It keeps the sums of many ratings in the range of the sigmoid.
        set_scale: The input that marks a cell as rated, in stars. It is scaled like the residuals.
        horizon: The number of epochs over which the learning rate decays to a tenth, along a
            cosine.
        cells: The maximum number of cells in a training step on dense rows, which limits memory.
            A small data set is a single step.
    """

    epochs: int = 70
    patience: int = 15
    hidden_units: Annotated[PositiveInt, Search(50, 500)] = 100
    l2: Annotated[NonNegativeFloat, Search(30.0, 600.0)] = 100.0
    input_dropout: Annotated[DropoutRate, Search(0.1, 0.7, log=False)] = 0.5
    learning_rate: Annotated[PositiveFloat, Search(0.005, 0.02)] = 0.01
    count_damping: Annotated[NonNegativeFloat, Search(2.0, 100.0)] = 10.0
    set_scale: Annotated[NonNegativeFloat, Search(0.3, 10.0)] = 4.0
    horizon: PositiveInt = 70
    cells: PositiveInt = 2_000_000


@dataclass(frozen=True)
class ItemAutoRecConfig(AutoRecConfig):
    """The hyperparameters of I-AutoRec; see also `AutoRecConfig`.

    Attributes:
        fold_in: The penalties of a user's read-out.
    """

    fold_in: Annotated[
        FoldInConfig,
        SearchWithin({"ridge": Search(10.0, 200.0), "bias_ridge": Search(1.0, 20.0)}),
    ] = field(
        default_factory=lambda: FoldInConfig(ridge=40.0, ridge_per_rating=0.0, bias_ridge=5.0)
    )


@dataclass(frozen=True)
class UserAutoRecConfig(AutoRecConfig):
    """The hyperparameters of U-AutoRec; see `AutoRecConfig`."""

    l2: float = 60.0
    set_scale: float = 1.0


class AutoRecNetwork(keras.Model):  # type: ignore[misc]
    """r̂ = W · sigmoid(V x + m) + a for dense rows x: residuals, then marks of rated cells."""

    def __init__(self, columns: int, hidden_units: int) -> None:
        """Creates a network with small random weights.

        Args:
            columns: The number of columns of the ratings matrix.
            hidden_units: h, the number of hidden units.
        """
        super().__init__()
        start = keras.initializers.RandomNormal(stddev=0.05)
        self.encoder = self.add_weight((2 * columns, hidden_units), start, name="encoder")
        self.encoder_bias = self.add_weight((hidden_units,), "zeros", name="encoder_bias")
        self.decoder = self.add_weight((columns, hidden_units), start, name="decoder")
        self.decoder_bias = self.add_weight((columns,), "zeros", name="decoder_bias")
        self.built = True

    def encode(self, rows: Any) -> Any:
        """Encodes rows: float32[B, 2 · columns] → float32[B, h]."""
        return tf.sigmoid(tf.matmul(rows, self.encoder) + self.encoder_bias)

    def decode(self, codes: Any) -> Any:
        """Predicts all residuals of codes: float32[B, h] → float32[B, columns]."""
        return tf.matmul(codes, self.decoder, transpose_b=True) + self.decoder_bias

    def decode_cells(self, codes: Any, columns: Any) -> Any:
        """Predicts one column for each code: float32[n, h], int32[n] → float32[n]."""
        weights = tf.gather(tf.convert_to_tensor(self.decoder), columns)
        bias = tf.gather(tf.convert_to_tensor(self.decoder_bias), columns)
        return tf.reduce_sum(codes * weights, axis=1) + bias

    def weight_arrays(self) -> tuple[Float32, Float32, Float32, Float32]:
        """Encoder V, its bias m, decoder W and its bias a (float32, shapes as in `__init__`)."""
        v, m, w, a = (np.asarray(weight, dtype=np.float32) for weight in self.get_weights())
        return v, m, w, a


AutoRecConfigT_co = TypeVar("AutoRecConfigT_co", bound=AutoRecConfig, covariant=True)
# Index arrays, or sizes.
T = TypeVar("T", Int32, int)


class RowsAndColumns(Protocol):
    """A function that assigns users and items to rows and columns, in this order."""

    def __call__(self, users: T, items: T) -> tuple[T, T]:
        """Returns what belongs to the rows, then what belongs to the columns."""


class AutoRecModel(TensorFlowModel[AutoRecConfigT_co]):
    """An autoencoder of the rating vectors of users, or of items."""

    @staticmethod
    @abstractmethod
    def rows_and_columns(users: T, items: T) -> tuple[T, T]:
        """Assigns users and items to the rows and columns of the autoencoder's matrix."""

    @abstractmethod
    def module(self, network: AutoRecNetwork, loop: _Loop, data: ReleaseData) -> ScoringModule:
        """Makes the served form of a trained network."""

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`."""
        data, config = training.data, self._config
        keras.utils.set_random_seed(training.seed)
        sparse = residual_matrix(data, self.rows_and_columns)
        network = AutoRecNetwork(sparse.item_count, config.hidden_units)
        loop = _Loop(network, sparse, config, training.seed)
        fit = self.run_epochs(network, training, loop.epoch, lambda: self._validate(loop, training))
        self.serve(self.module(network, loop, data), data)
        return fit

    def _validate(self, loop: _Loop, training: Training) -> float:
        """The mean squared error of the validation ratings."""
        held_out, data = training.validation, training.data
        assert held_out is not None  # noqa: S101 - called only with validation
        rows, columns = self.rows_and_columns(held_out.users, held_out.items)
        bias = data.baseline.user_bias(data.matrix.all_profiles())[held_out.users]
        bias = bias + data.baseline.item_bias[held_out.items] + data.baseline.mean
        predicted = loop.predict(rows, columns) + bias
        return float(np.mean((predicted - held_out.ratings) ** 2))


class AutoRec(AutoRecModel[ItemAutoRecConfig]):
    """I-AutoRec: encodes the rating vectors of items; a user is a linear read-out of the codes.

    The read-out is the solution of a ridge regression on the user's ratings, with the codes fixed.
    """

    name = "autorec"
    config_type = ItemAutoRecConfig

    @staticmethod
    def rows_and_columns(users: T, items: T) -> tuple[T, T]:
        """See `AutoRecModel.rows_and_columns`: a row is an item."""
        return items, users

    def module(self, _: AutoRecNetwork, loop: _Loop, data: ReleaseData) -> ScoringModule:
        """See `AutoRecModel.module`."""
        codes = loop.codes()
        offsets = data.baseline.item_bias + np.float32(data.baseline.mean)
        # Codes minus their mean, because the user's bias explains what all items have in common.
        centred = (codes - codes.mean(axis=0)).astype(np.float32)
        return LinearModule(centred, offsets.astype(np.float32), self._config.fold_in)


class UserAutoRec(AutoRecModel[UserAutoRecConfig]):
    """U-AutoRec: encodes the rating vectors of users; a visitor is folded in by encoding."""

    name = "user_autorec"
    config_type = UserAutoRecConfig

    @staticmethod
    def rows_and_columns(users: T, items: T) -> tuple[T, T]:
        """See `AutoRecModel.rows_and_columns`: a row is a user."""
        return users, items

    def module(self, network: AutoRecNetwork, loop: _Loop, data: ReleaseData) -> ScoringModule:
        """See `AutoRecModel.module`."""
        config = self._config
        scale = InputScale(loop.mean_count, config.count_damping, config.set_scale)
        return EncoderModule(*network.weight_arrays(), scale, data)


def residual_matrix(data: ReleaseData, rows_and_columns: RowsAndColumns) -> RatingsMatrix:
    """Builds the matrix that an autoencoder is trained on: residuals r − b_ui, in stars.

    Args:
        data: The training ratings and their baseline.
        rows_and_columns: Assigns users and items to rows and columns; see `AutoRecModel`.
    """
    matrix = data.matrix
    residuals = data.baseline.residuals(matrix.all_profiles())
    rows, columns = rows_and_columns(matrix.users, matrix.items)
    shape = rows_and_columns(matrix.user_count, matrix.item_count)
    return RatingsMatrix.of(rows, columns, residuals, *shape)


class _Loop:
    """The training loop, on blocks of random rows, which are made dense one at a time."""

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
            config.learning_rate, config.horizon * self._parts, alpha=_FINAL_RATE
        )
        self._optimizer = keras.optimizers.Adam(rate, beta_2=_ADAM_BETA_2)
        self._optimizer.build(network.trainable_variables)

    def epoch(self) -> float:
        """Trains on all rows once; returns the mean squared error."""
        squares, order = 0.0, np.arange(self._sparse.user_count)
        if self._parts > 1:
            self._random.shuffle(order)
        for block in self._blocks(order):
            self._steps += 1
            seed = tf.constant([self._seed, self._steps])
            squares += float(self._step(*self._cells(block), seed))
        return squares / max(1, self._sparse.rating_count)

    def codes(self) -> Float32:
        """Encodes all rows (float32, rows × h)."""
        blocks = self._blocks(np.arange(self._sparse.user_count))
        parts = [self._encode(*self._cells(rows)).numpy() for rows in blocks]
        return np.concatenate(parts)

    def predict(self, rows: Int32, columns: Int32) -> Float32:
        """Predicts the residuals of cells, in stars (float32, n)."""
        codes = tf.constant(self.codes()[rows])
        residuals: Float32 = self._network.decode_cells(codes, tf.constant(columns)).numpy()
        return residuals

    def _blocks(self, order: Int64) -> list[Int32]:
        """Splits rows, in the given order, into blocks that are small enough to train (int32)."""
        return [part.astype(np.int32) for part in np.array_split(order, self._parts)]

    def _cells(self, rows: Int32) -> tuple[Any, Any, Any]:
        """A block's rated cells (int64[n, 2]), their residuals (float32[n]) and its row count."""
        profiles = self._sparse.profiles(rows)
        places = np.stack([profiles.rows, profiles.items.astype(np.int64)], axis=1)
        # The row count is a tensor, because TensorFlow would trace a graph for each Python number.
        return tf.constant(places), tf.constant(profiles.ratings), tf.constant(len(rows))

    def _inputs(self, places: Any, residuals: Any, given: Any, rows: Any) -> Any:
        """Makes dense input rows for the encoder.

        Args:
            places: The rated cells of the block: int64[n, 2].
            residuals: Their residuals, 0 where dropped: float32[n].
            given: The marks of the cells, 1 or scaled up for dropout, 0 where dropped: float32[n].
            rows: The number of rows in the block.
        """
        shape = tf.stack([tf.cast(rows, tf.int64), self._sparse.item_count])
        counts = tf.math.bincount(tf.cast(places[:, 0], tf.int32), minlength=rows)
        scale = InputScale(self.mean_count, self._config.count_damping, self._config.set_scale)
        row_scales = scale.of(tf.cast(counts, tf.float32))[:, None]
        sets = tf.scatter_nd(places, given * scale.set_scale, shape)
        return tf.concat([tf.scatter_nd(places, residuals, shape), sets], axis=1) * row_scales

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _encode(self, places: Any, residuals: Any, rows: Any) -> Any:
        given = tf.ones_like(residuals)
        return self._network.encode(self._inputs(places, residuals, given, rows))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _step(self, places: Any, residuals: Any, rows: Any, seed: Any) -> Any:
        """Trains on a block's share of the loss; returns the block's sum of squared errors."""
        dropout, network = self._config.input_dropout, self._network
        given = tf.random.stateless_uniform(tf.shape(residuals), seed) >= dropout
        given = tf.cast(given, tf.float32) / (1.0 - dropout)
        with tf.GradientTape() as tape:
            predicted = network.decode(
                network.encode(self._inputs(places, residuals * given, given, rows))
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
