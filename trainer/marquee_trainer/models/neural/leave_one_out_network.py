"""A network that is trained through the fold-in: it predicts each rating from the user's others.

Users have no parameters. A user vector is the solution of a ridge regression on the user's ratings,
and each rating is predicted with the solution without that rating. Both follow from one
factorization of the normal equations by the Sherman–Morrison formula (the PRESS residual of Allen,
1974). Training therefore optimises the predictions that visitors get.

Item factors have normal posteriors, learned by variational inference (Blundell et al., 2015),
because point estimates would overfit the few ratings of rare items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.scorers.hyperparameters import (
    DropoutRate,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Search,
)
from marquee_core.scorers.perceptron import ItemParameters, Layers
from marquee_core.scorers.saved_model import PADDING
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.neural.audience import Audiences
from marquee_trainer.models.neural.dot_product_modules import ridge_solution
from marquee_trainer.models.neural.tensorflow_model import EpochConfig

# The lower limit of 1 − leverage, which rounding could reduce to 0.
_MIN_REST = 1e-3


@dataclass(frozen=True)
class LeaveOneOutConfig(EpochConfig):
    """The hyperparameters of a `LeaveOneOutNetwork`, trained by Adam on batches of users.

    Attributes:
        epochs: See `EpochConfig`.
        patience: See `EpochConfig`.
        factors: k, the number of latent factors.
        set_factors: e, the length of the encoding of the set of rated items.
        hidden_units: The number of units in each hidden layer of the perceptron.
        horizon: The number of epochs over which the learning rate decays to a twentieth, along a
            cosine.
        learning_rate: The learning rate of Adam at the start.
        cells: The maximum number of ratings in a batch of users, including padding.
        noise_variance: σ² of a rating, in squared stars. The larger it is, the stronger the prior
            of the factors.
        start_deviation: The standard deviation of the random initial weights.
        start_posterior_deviation: The initial standard deviation of the posterior of each factor.
        prior_deviation: The initial standard deviation of the prior of the factors; it is learned.
        ridge: The initial prior precision of a user's factors; it is learned.
        bias_ridge: The initial prior precision of a user's bias; it is learned.
        set_l2: The L2 penalty of the set embeddings, for each rating.
        audience_l2: The L2 penalty of the audience embeddings, in squared stars. The audience of an
            item is the set of users who rated it; their embeddings are part of its factors.
        audience_dropout: The share of each item's audience that training drops at random.
        audience_damping: c in the scale 1 / √(n + c) of an audience of n users.
        weight_decay: The L2 penalty of the perceptron's weights.
        dropout: The share of hidden units that training drops at random.
    """

    epochs: int = 16
    patience: int = 5
    factors: Annotated[PositiveInt, Search(16, 48)] = 32
    set_factors: PositiveInt = 16
    hidden_units: tuple[int, ...] = (32,)
    horizon: PositiveInt = 16
    learning_rate: Annotated[PositiveFloat, Search(0.003, 0.012)] = 0.006
    cells: PositiveInt = 4096
    noise_variance: Annotated[NonNegativeFloat, Search(0.5, 1.0)] = 0.65
    start_deviation: PositiveFloat = 0.03
    start_posterior_deviation: PositiveFloat = 0.06
    prior_deviation: PositiveFloat = 0.1
    ridge: PositiveFloat = 1.0
    bias_ridge: PositiveFloat = 5.0
    set_l2: Annotated[NonNegativeFloat, Search(1.0, 10.0)] = 4.0
    audience_l2: Annotated[NonNegativeFloat, Search(10.0, 300.0)] = 60.0
    audience_dropout: Annotated[DropoutRate, Search(0.2, 0.8, log=False)] = 0.5
    audience_damping: NonNegativeFloat = 10.0
    weight_decay: NonNegativeFloat = 1e-3
    dropout: Annotated[DropoutRate, Search(0.0, 0.5, log=False)] = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden_units or min(self.hidden_units) < 1:
            raise ValueError(
                f"hidden_units: {self.hidden_units!r} is not a non-empty tuple of sizes >= 1"
            )


class LeaveOneOutNetwork(keras.Model):  # type: ignore[misc]
    """f = c_i + b_u + p · q_i + s · z_i + MLP(p, s, q_i), where MLP may also see p ⊙ q_i.

    `PerceptronModule` is the served form.
    """

    def __init__(self, data: ReleaseData, config: LeaveOneOutConfig, products: bool) -> None:
        """Creates a network with random weights and the item biases of the baseline.

        Args:
            data: The training ratings and their baseline.
            config: The hyperparameters.
            products: Whether p ⊙ q_i is an input of the perceptron.
        """
        super().__init__()
        self.config = config
        self.has_products = products
        items, k, e = data.matrix.item_count, config.factors, config.set_factors

        def weight(name: str, shape: tuple[int, ...], start: Any) -> Any:
            return self.add_weight(shape=shape, initializer=start, name=name)

        def normal(deviation: float) -> Any:
            return keras.initializers.RandomNormal(stddev=deviation)

        def log(value: float) -> Any:
            return keras.initializers.Constant(float(np.log(value)))

        # Each weight needs a new initialiser, because one initialiser always returns the same
        # numbers.
        deviation = config.start_deviation
        posterior_start = log(config.start_posterior_deviation)
        self.means = weight("means", (items, k), normal(deviation))
        self.log_deviations = weight("log_deviations", (items, k), posterior_start)
        self.log_prior = weight("log_prior", (k,), log(config.prior_deviation))
        self.audience = weight("audience", (data.matrix.user_count, k), normal(deviation))
        self.audiences = Audiences(data.matrix, config.audience_damping)
        self.set_inputs = weight("set_inputs", (items, e), normal(deviation))
        self.set_outputs = weight("set_outputs", (items, e), normal(deviation))
        self.offsets = weight("offsets", (items,), "zeros")
        self.offsets.assign(data.baseline.item_bias + np.float32(data.baseline.mean))
        self.log_ridge = weight("log_ridge", (1,), log(config.ridge))
        self.log_bias_ridge = weight("log_bias_ridge", (1,), log(config.bias_ridge))
        self.dense = [keras.layers.Dense(units) for units in config.hidden_units]
        self.norms = [keras.layers.BatchNormalization(momentum=0.95) for _ in config.hidden_units]
        self.drops = [keras.layers.Dropout(config.dropout) for _ in config.hidden_units]
        self.last = keras.layers.Dense(1, use_bias=False, kernel_initializer=normal(0.01))
        width = (3 if products else 2) * k + e
        for dense, norm, after in zip(self.dense, self.norms, config.hidden_units, strict=True):
            dense.build((None, width))
            norm.build((None, after))
            width = after
        self.last.build((None, width))
        self.built = True

    def served_factors(self) -> Any:
        """Computes the means q_i = m_i + Σ_u t_u / √(n_i + c) over the audience u of each item.

        Not for compiled functions.

        Returns:
            float32[items, k].
        """
        return self.means + self.audiences.sums(self.audience.numpy(), self.audiences.whole)

    def ridge(self) -> Any:
        """The prior precisions of (p, b): float32[k + 1]."""
        factor_ridge = tf.repeat(tf.exp(self.log_ridge), self.config.factors)
        return tf.concat([factor_ridge, tf.exp(self.log_bias_ridge)], axis=0)

    def predict_left_out(
        self, factors: Any, items: Any, ratings: Any, noise: Any
    ) -> tuple[Any, Any, Any]:
        """Predicts each rating from the user's other ratings, with factors drawn at random.

        (p, b) without rating l is x − A⁻¹φ_l e_l / (1 − φ_l · A⁻¹φ_l), where x = A⁻¹ Σ φ y is the
        solution with all ratings, A = Σ φ φᵀ + ridge, φ = (q, 1), y = r − c, and e = y − φ · x.

        Args:
            factors: The means of the factors, with a part of the audiences in training:
                float32[items, k].
            items: The rated items, padded with -1: int32[B, L].
            ratings: The ratings in stars: float32[B, L].
            noise: Standard normal deviates for the draw from the posteriors: float32[items, k].

        Returns:
            The predictions and the ratings, in stars (float32[N] each), and their items (int32[N]).
        """
        drawn = factors + tf.exp(self.log_deviations) * noise
        given = tf.cast(items != PADDING, tf.float32)
        safe = tf.maximum(items, 0)
        q = tf.gather(drawn, safe) * given[:, :, None]
        design = tf.concat([q, given[:, :, None]], axis=2)
        offsets = tf.convert_to_tensor(self.offsets)
        targets = (ratings - tf.gather(offsets, safe)) * given
        normal = tf.matmul(design, design, transpose_a=True) + tf.linalg.diag(self.ridge())
        pulls = tf.linalg.matrix_transpose(
            tf.linalg.cholesky_solve(tf.linalg.cholesky(normal), tf.linalg.matrix_transpose(design))
        )
        whole = tf.einsum("blk,bl->bk", pulls, targets)
        errors = targets - tf.einsum("blk,bk->bl", design, whole)
        rest = tf.maximum(1.0 - tf.reduce_sum(design * pulls, axis=2), _MIN_REST)
        vectors = whole[:, None, :] - pulls * (errors / rest)[:, :, None]
        y = tf.gather(tf.convert_to_tensor(self.set_inputs), safe) * given[:, :, None]
        counts = tf.reduce_sum(given, axis=1)[:, None, None]
        sets = (tf.reduce_sum(y, axis=1, keepdims=True) - y) / tf.sqrt(counts)
        cells = tf.where(items != PADDING)
        rows = tf.gather_nd(items, cells)
        p, s, own = (tf.gather_nd(part, cells) for part in (vectors, sets, q))
        biases, additions = self._score(p, s, own, rows, training=True)
        return biases + additions, tf.gather_nd(ratings, cells), rows

    def predict_pairs(
        self, factors: Any, items: Any, ratings: Any, users: Any, targets: Any
    ) -> tuple[Any, Any]:
        """Predicts pairs from the means of the factors and all ratings of the users.

        Args:
            factors: See `served_factors`.
            items: The rated items of the users, padded with -1: int32[B, L].
            ratings: The ratings in stars: float32[B, L].
            users: The user of each pair, as a position in the batch: int32[N].
            targets: The item of each pair: int32[N].

        Returns:
            The biases c_i + b_u, and the terms of dot products and perceptron, in stars (float32[N]
            each).
        """
        given = tf.cast(items != PADDING, tf.float32)
        safe = tf.maximum(items, 0)
        q = tf.gather(factors, safe) * given[:, :, None]
        design = tf.concat([q, given[:, :, None]], axis=2)
        departures = (ratings - tf.gather(tf.convert_to_tensor(self.offsets), safe)) * given
        variances = tf.gather(tf.exp(2.0 * self.log_deviations), safe)
        uncertainty = tf.pad(tf.einsum("blk,bl->bk", variances, given), [[0, 0], [0, 1]])
        vectors = ridge_solution(design, departures, self.ridge() + uncertainty)
        y = tf.gather(tf.convert_to_tensor(self.set_inputs), safe)
        total = tf.einsum("ble,bl->be", y, given)
        sets = total / tf.sqrt(tf.reduce_sum(given, axis=1, keepdims=True) + 1.0)
        target_q = tf.gather(factors, targets)
        return self._score(
            tf.gather(vectors, users), tf.gather(sets, users), target_q, targets, training=False
        )

    def divergence(self) -> Any:
        """The Kullback–Leibler divergence of the posteriors from the prior."""
        squares = tf.exp(2.0 * self.log_deviations) + tf.square(self.means)
        return tf.reduce_sum(
            self.log_prior
            - self.log_deviations
            + 0.5 * squares / tf.exp(2.0 * self.log_prior)
            - 0.5
        )

    def _score(
        self, vectors: Any, sets: Any, q: Any, items: Any, training: bool
    ) -> tuple[Any, Any]:
        """Computes the biases of pairs, and the terms of dot products and perceptron."""
        p, user_bias = tf.split(vectors, (self.config.factors, 1), axis=1)
        inputs = [p, sets, q, p * q] if self.has_products else [p, sets, q]
        layer = tf.concat(inputs, axis=1)
        for dense, norm, drop in zip(self.dense, self.norms, self.drops, strict=True):
            layer = drop(tf.nn.relu(norm(dense(layer), training=training)), training=training)
        z = tf.gather(tf.convert_to_tensor(self.set_outputs), items)
        biases = tf.gather(tf.convert_to_tensor(self.offsets), items) + user_bias[:, 0]
        products = tf.reduce_sum(p * q, axis=1) + tf.reduce_sum(sets * z, axis=1)
        return biases, products + self.last(layer)[:, 0]

    def kernels(self) -> list[Any]:
        """The weight matrices of the perceptron."""
        return [*(dense.kernel for dense in self.dense), self.last.kernel]

    def item_side(self) -> ItemParameters:
        """The parameters of the items, as arrays."""

        def array(value: Any) -> Float32:
            return np.asarray(value, dtype=np.float32)

        return ItemParameters(
            array(self.served_factors()),
            array(tf.exp(2.0 * self.log_deviations)),
            array(self.offsets),
            array(self.set_inputs),
            array(self.set_outputs),
            array(self.ridge()),
        )

    def served_layers(self) -> Layers:
        """The perceptron, with batch normalisation folded into its weights."""
        weights = []
        for dense, norm in zip(self.dense, self.norms, strict=True):
            kernel, bias = (np.asarray(value) for value in dense.get_weights())
            gamma, beta, mean, variance = (np.asarray(value) for value in norm.get_weights())
            scale = gamma / np.sqrt(variance + norm.epsilon)
            weights.append(
                (
                    (kernel * scale).astype(np.float32),
                    ((bias - mean) * scale + beta).astype(np.float32),
                )
            )
        (kernel, bias), hidden = weights[0], weights[1:]
        k = self.config.factors
        user_width = k + self.config.set_factors
        item_part = np.asarray(self.served_factors()) @ kernel[user_width : user_width + k] + bias
        return Layers(
            kernel[:user_width],
            item_part.astype(np.float32),
            kernel[user_width + k :] if self.has_products else None,
            tuple(hidden),
            np.asarray(self.last.get_weights()[0], dtype=np.float32)[:, 0],
        )
