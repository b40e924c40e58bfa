"""AutoRec: autoencoders of rating vectors (Sedhain, Menon, Sanner and Xie, 2015).

The inputs are residuals of the ratings from the bias baseline. Further inputs mark which cells are
rated, because which users rate an item, and which items a user rates, also reveals taste (the
implicit feedback of Koren, 2008).

Only rated cells are stored and computed, and only they contribute to the loss (the masked loss of
equation 2), so the cost of an epoch is proportional to the number of ratings.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32, Int32
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.hyperparameters import (
    DropoutRate,
    NestedSearch,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Search,
)
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.model import Fit, Training
from marquee_trainer.models.neural.dot_product_modules import (
    EncoderModule,
    FoldInConfig,
    InputScale,
    LinearModule,
)
from marquee_trainer.models.neural.scoring_module import ScoringModule
from marquee_trainer.models.neural.sparse_autoencoder import Cells, SparseAutoencoder
from marquee_trainer.models.neural.tensorflow_model import EpochConfig, TensorFlowModel

# The learning rate at the end of the horizon, relative to that at the start.
_FINAL_RATE = 0.1
# The largest number of training steps in an epoch.
_MAX_STEPS = 16


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
            the mean of n. It keeps sums of many ratings in the range of the sigmoid.
        set_scale: The input that marks a cell as rated, in stars. It is scaled like the residuals.
        horizon: The number of epochs over which the learning rate decays to a tenth, along a
            cosine.
        step_ratings: The number of ratings in a training step. An epoch has one step on a small
            data set, and at most 16 steps on a large one.
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
    step_ratings: PositiveInt = 100_000


@dataclass(frozen=True)
class ItemAutoRecConfig(AutoRecConfig):
    """The hyperparameters of I-AutoRec; see also `AutoRecConfig`.

    Attributes:
        fold_in: The penalties of the ridge regression that reads a user out.
    """

    fold_in: Annotated[
        FoldInConfig,
        NestedSearch({"ridge": Search(10.0, 200.0), "bias_ridge": Search(1.0, 20.0)}),
    ] = field(
        default_factory=lambda: FoldInConfig(ridge=40.0, ridge_per_rating=0.0, bias_ridge=5.0)
    )


@dataclass(frozen=True)
class UserAutoRecConfig(AutoRecConfig):
    """The hyperparameters of U-AutoRec; see `AutoRecConfig`."""

    l2: float = 60.0
    set_scale: float = 1.0


AutoRecConfigT_co = TypeVar("AutoRecConfigT_co", bound=AutoRecConfig, covariant=True)
# Index arrays, or sizes.
T = TypeVar("T", Int32, int)


class RowsAndColumns(Protocol):
    """A function that assigns users and items to the rows and columns of a matrix."""

    def __call__(self, users: T, items: T) -> tuple[T, T]:
        """Returns the argument for the rows, then that for the columns."""


class AutoRecModel(TensorFlowModel[AutoRecConfigT_co]):
    """An autoencoder of the rating vectors of users, or of items."""

    @staticmethod
    @abstractmethod
    def rows_and_columns(users: T, items: T) -> tuple[T, T]:
        """Assigns users and items to the rows and columns of the autoencoder's matrix."""

    @abstractmethod
    def module(self, loop: _Loop, data: ReleaseData) -> ScoringModule:
        """Creates the served form of a trained network."""

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`."""
        data, config = training.data, self._config
        loop = _Loop(residual_matrix(data, self.rows_and_columns), config, training.seed)
        fit = self.run_epochs(
            loop.network, training, loop.epoch, lambda: self._validate(loop, training)
        )
        self.serve(self.module(loop, data), data)
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
    """I-AutoRec: encodes the rating vectors of items; a user is a linear readout of the codes.

    The readout is the solution of a ridge regression on the user's ratings, with the codes fixed.
    """

    name = "autorec"
    config_type = ItemAutoRecConfig

    @staticmethod
    def rows_and_columns(users: T, items: T) -> tuple[T, T]:
        """See `AutoRecModel.rows_and_columns`: a row is an item."""
        return items, users

    def module(self, loop: _Loop, data: ReleaseData) -> ScoringModule:
        """See `AutoRecModel.module`."""
        codes = loop.codes()
        offsets = data.baseline.item_bias + np.float32(data.baseline.mean)
        # Codes minus their mean, because the user's bias explains what is common to all items.
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

    def module(self, loop: _Loop, data: ReleaseData) -> ScoringModule:
        """See `AutoRecModel.module`."""
        config = self._config
        scale = InputScale(loop.mean_count, config.count_damping, config.set_scale)
        encoder, encoder_bias, decoder, decoder_bias = loop.network.get_weights()
        return EncoderModule(encoder, encoder_bias, decoder, decoder_bias, scale, data)


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
    """The training loop, on batches of random rows."""

    def __init__(self, sparse: RatingsMatrix, config: AutoRecConfig, seed: int) -> None:
        self.network = SparseAutoencoder(
            sparse.item_count, config.hidden_units, config.set_scale, seed
        )
        self._sparse = sparse
        self._config = config
        self._steps = 0
        counts = np.diff(sparse.indptr)
        self.mean_count = float(counts.mean())
        self._random = np.random.default_rng(seed)
        self._parts = steps_per_epoch(config, sparse.rating_count)
        self._all_cells = self._cells(np.arange(sparse.user_count, dtype=np.int32))

    def epoch(self) -> float:
        """Trains on all rows once; returns the mean squared error."""
        squares = sum(self._step(cells) for cells in self._batches())
        return squares / max(1, self._sparse.rating_count)

    def codes(self) -> Float32:
        """Encodes all rows (float32, rows × h)."""
        return self.network.encode(self._all_cells)

    def predict(self, rows: Int32, columns: Int32) -> Float32:
        """Predicts the residuals of cells, in stars (float32, n)."""
        return self.network.predict(self.codes(), rows, columns)

    def _batches(self) -> Iterator[Cells]:
        """The batches of an epoch: all rows, or random parts of them."""
        if self._parts == 1:
            yield self._all_cells
            return
        order = np.arange(self._sparse.user_count, dtype=np.int32)
        self._random.shuffle(order)
        for rows in np.array_split(order, self._parts):
            yield self._cells(rows)

    def _cells(self, rows: Int32) -> Cells:
        profiles, config = self._sparse.profiles(rows), self._config
        scale = InputScale(self.mean_count, config.count_damping, config.set_scale)
        scales = scale.of(tf.constant(profiles.counts, tf.float32)).numpy()
        return Cells.of(profiles, scales, self._sparse.item_count)

    def _step(self, cells: Cells) -> float:
        """Trains on a batch, and returns its sum of squared errors."""
        config = self._config
        kept = 1.0 - config.input_dropout
        given = self._random.random(len(cells.columns), dtype=np.float32) >= config.input_dropout
        # The learning rate decays along a cosine (Loshchilov and Hutter, 2017).
        done = min(1.0, self._steps / (config.horizon * self._parts))
        decay = 0.5 * (1.0 + math.cos(math.pi * done))
        rate = config.learning_rate * ((1.0 - _FINAL_RATE) * decay + _FINAL_RATE)
        self._steps += 1
        inputs = given.astype(np.float32) / np.float32(kept)
        return self.network.step(cells, inputs, rate, config.l2 / self._parts)


def steps_per_epoch(config: AutoRecConfig, ratings: int) -> int:
    """The number of training steps in an epoch.

    Each step updates all weights, even if it has few ratings, so the number is limited.
    """
    return max(1, min(_MAX_STEPS, -(-ratings // config.step_ratings)))
