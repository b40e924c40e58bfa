"""Factors that are trained through the fold-in: each rating is predicted from the user's others.

A user has no parameters. The user vector is the ridge solution on the user's ratings, and a rating
is predicted by the solution without that rating. Both follow from one factorization of the normal
equations, by the formula of Sherman and Morrison (the PRESS residual of Allen, 1974). So what is
trained is what visitors get.

Item factors have normal posteriors, learned by variational inference (Blundell et al., 2015):
point estimates would fit the few ratings of rare items.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.scorers.item_cf import ItemCFConfig
from marquee_core.scorers.saved_model import PADDING
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.neural.perceptron_module import ItemSide, Layers
from marquee_trainer.models.neural.scoring_module import ridge_solution

# Leverage of a rating is below 1; this keeps rounding from dividing by 0.
_LEAST_REST = 1e-3
# Columns of a product with a sparse matrix at once: from 32 on, TensorFlow's kernel goes another
# way that takes four to seven times as long.
_PRODUCT_COLUMNS = 16


@dataclass(frozen=True)
class LeaveOneOutConfig:
    """Factors, sets and a perceptron, trained by Adam on batches of users.

    Attributes:
        dimensions: k, length of the factors.
        set_dimensions: e, length of the encoding of the set of rated items.
        hidden: Units of the perceptron's layers.
        products: Whether the perceptron sees p ⊙ q beside p and q.
        epochs: At most so many, with validation data; exactly so many without.
        horizon: Epochs over which the learning rate falls by a cosine to a twentieth.
        learning_rate: Adam's, at the start.
        cells: Padded ratings in a batch of users.
        noise_variance: σ² of a rating, in squared stars; weighs the prior of the factors.
        start_deviation: Of the means and posteriors of the factors, at the start.
        prior_deviation: Of the factors, at the start; it is learned.
        ridge: Prior precision of a user's factors, at the start; it is learned.
        bias_ridge: That of the user's bias.
        set_l2: Penalty of the set's embeddings, for each rating.
        audience_l2: Penalty of the users' part in the factors of what they rate, in squared stars.
        audience_dropout: Share of each item's raters that are left out in training.
        audience_damping: Ratings at which an item's raters begin to count.
        weight_decay: L2 penalty of the perceptron's weights.
        dropout: Share of hidden units that are left out in training.
        patience: Epochs without a better validation error before training ends.
        factor_weight: Weight of products and perceptron in what is served; training has it at 1.
        neighbour_weight: Weight of what item neighbourhoods add; 0 to leave them out.
        neighbours: The neighbourhoods.
    """

    dimensions: int = 32
    set_dimensions: int = 16
    hidden: tuple[int, ...] = (32,)
    products: bool = True
    epochs: int = 16
    horizon: int = 16
    learning_rate: float = 0.006
    cells: int = 4096
    noise_variance: float = 0.65
    start_deviation: tuple[float, float] = (0.03, 0.06)
    prior_deviation: float = 0.1
    ridge: float = 1.0
    bias_ridge: float = 5.0
    set_l2: float = 4.0
    audience_l2: float = 60.0
    audience_dropout: float = 0.5
    audience_damping: float = 10.0
    weight_decay: float = 1e-3
    dropout: float = 0.15
    patience: int = 5
    factor_weight: float = 1.0
    neighbour_weight: float = 0.0
    neighbours: ItemCFConfig = field(default_factory=ItemCFConfig)


class LeaveOneOutNetwork(keras.Model):  # type: ignore[misc]
    """f = μ + c_i + b_u + p · q_i + s · z_i + MLP(p, s, q_i); see `PerceptronModule`."""

    def __init__(self, data: ReleaseData, config: LeaveOneOutConfig) -> None:
        """Starts from the biases of the baseline."""
        super().__init__()
        self.config = config
        items, k, e = data.matrix.item_count, config.dimensions, config.set_dimensions

        def weight(name: str, shape: tuple[int, ...], start: Any) -> Any:
            return self.add_weight(shape=shape, initializer=start, name=name)

        def normal(deviation: float) -> Any:
            return keras.initializers.RandomNormal(stddev=deviation)

        def log(value: float) -> Any:
            return keras.initializers.Constant(float(np.log(value)))

        mean_start, posterior_start = config.start_deviation
        self.means = weight("means", (items, k), normal(mean_start))
        self.log_deviations = weight("log_deviations", (items, k), log(posterior_start))
        self.log_prior = weight("log_prior", (k,), log(config.prior_deviation))
        self.audience = weight("audience", (data.matrix.user_count, k), normal(mean_start))
        matrix = data.matrix
        # By item, for the product with a sparse matrix.
        order = np.argsort(matrix.items, kind="stable")
        places = np.stack([matrix.items, matrix.users], axis=1)[order].astype(np.int64)
        scale = 1.0 / np.sqrt(matrix.item_counts + config.audience_damping)
        self.raters = tf.constant(places)
        self.rater_scales = tf.constant(scale[places[:, 0]].astype(np.float32))
        self.sizes = items, matrix.user_count
        self.set_inputs = weight("set_inputs", (items, e), normal(mean_start))
        self.set_outputs = weight("set_outputs", (items, e), normal(mean_start))
        self.offsets = weight("offsets", (items,), "zeros")
        self.offsets.assign(data.baseline.item_bias + np.float32(data.baseline.mean))
        self.log_ridge = weight("log_ridge", (1,), log(config.ridge))
        self.log_bias_ridge = weight("log_bias_ridge", (1,), log(config.bias_ridge))
        self.dense = [keras.layers.Dense(units) for units in config.hidden]
        self.norms = [keras.layers.BatchNormalization(momentum=0.95) for _ in config.hidden]
        self.drops = [keras.layers.Dropout(config.dropout) for _ in config.hidden]
        self.last = keras.layers.Dense(1, use_bias=False, kernel_initializer=normal(0.01))
        width = (3 if config.products else 2) * k + e
        for dense, norm, after in zip(self.dense, self.norms, config.hidden, strict=True):
            dense.build((None, width))
            norm.build((None, after))
            width = after
        self.last.build((None, width))
        self.built = True

    def factors(self, kept: Any) -> Any:
        """Means of q_i = m_i + Σ_u t_u / √(n_i + c) over the raters u: float32[items, k].

        Who rates an item tells of it as well (item sets, as in Rendle, Zhang and Koren, 2019).

        Args:
            kept: Weights of the ratings, 1 for all alike (float32[ratings]).
        """
        raters = tf.SparseTensor(self.raters, self.rater_scales * kept, self.sizes)
        audience = tf.convert_to_tensor(self.audience)
        columns = range(0, self.config.dimensions, _PRODUCT_COLUMNS)
        parts = [audience[:, first : first + _PRODUCT_COLUMNS] for first in columns]
        products = [tf.sparse.sparse_dense_matmul(raters, part) for part in parts]
        return self.means + tf.concat(products, axis=1)

    def served_factors(self) -> Any:
        """Means of q with all raters: float32[items, k]."""
        return self.factors(tf.ones_like(self.rater_scales))

    def ridge(self) -> Any:
        """Prior precisions of (p, b): float32[k + 1]."""
        own = tf.repeat(tf.exp(self.log_ridge), self.config.dimensions)
        return tf.concat([own, tf.exp(self.log_bias_ridge)], axis=0)

    def left_out(self, items: Any, ratings: Any, noise: Any, kept: Any) -> tuple[Any, Any, Any]:
        """Predicts each rating from the user's others, with factors drawn from their posteriors.

        (p, b) without rating l is x − A⁻¹φ_l e_l / (1 − φ_l · A⁻¹φ_l), where x = A⁻¹ Σ φ y is the
        solution with all, A = Σ φ φᵀ + ridge, and e = y − φ · x.

        Args:
            items: int32[B, L], padded with -1.
            ratings: float32[B, L].
            noise: Standard normal, float32[items, k].
            kept: As `factors` takes it.

        Returns:
            Predictions, ratings (float32[N] each) and their items (int32[N]).
        """
        drawn = self.factors(kept) + tf.exp(self.log_deviations) * noise
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
        rest = tf.maximum(1.0 - tf.reduce_sum(design * pulls, axis=2), _LEAST_REST)
        vectors = whole[:, None, :] - pulls * (errors / rest)[:, :, None]
        y = tf.gather(tf.convert_to_tensor(self.set_inputs), safe) * given[:, :, None]
        counts = tf.reduce_sum(given, axis=1)[:, None, None]
        sets = (tf.reduce_sum(y, axis=1, keepdims=True) - y) / tf.sqrt(counts)
        cells = tf.where(items != PADDING)
        rows = tf.gather_nd(items, cells)
        p, s, own = (tf.gather_nd(part, cells) for part in (vectors, sets, q))
        biases, found = self._score(p, s, own, rows, training=True)
        return biases + found, tf.gather_nd(ratings, cells), rows

    def predict_pairs(self, items: Any, ratings: Any, users: Any, wanted: Any) -> tuple[Any, Any]:
        """Stars of pairs, with the means of the factors and all of the users' ratings.

        Biases, and what products and perceptron add to them (float32[N] each).

        Args:
            items: The users' ratings: int32[B, L], padded with -1.
            ratings: float32[B, L].
            users: Places in the batch, int32[N].
            wanted: Items, int32[N].
        """
        given = tf.cast(items != PADDING, tf.float32)
        safe = tf.maximum(items, 0)
        factors = self.served_factors()
        q = tf.gather(factors, safe) * given[:, :, None]
        design = tf.concat([q, given[:, :, None]], axis=2)
        targets = (ratings - tf.gather(tf.convert_to_tensor(self.offsets), safe)) * given
        spread = tf.gather(tf.exp(2.0 * self.log_deviations), safe)
        own = tf.pad(tf.einsum("blk,bl->bk", spread, given), [[0, 0], [0, 1]])
        vectors = ridge_solution(design, targets, self.ridge() + own)
        y = tf.gather(tf.convert_to_tensor(self.set_inputs), safe)
        total = tf.einsum("ble,bl->be", y, given)
        sets = total / tf.sqrt(tf.reduce_sum(given, axis=1, keepdims=True) + 1.0)
        wanted_q = tf.gather(factors, wanted)
        return self._score(
            tf.gather(vectors, users), tf.gather(sets, users), wanted_q, wanted, training=False
        )

    def divergence(self) -> Any:
        """Kullback–Leibler divergence of the posteriors from the prior."""
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
        p = vectors[:, :-1]
        inputs = [p, sets, q, p * q] if self.config.products else [p, sets, q]
        layer = tf.concat(inputs, axis=1)
        for dense, norm, drop in zip(self.dense, self.norms, self.drops, strict=True):
            layer = drop(tf.nn.relu(norm(dense(layer), training=training)), training=training)
        z = tf.gather(tf.convert_to_tensor(self.set_outputs), items)
        biases = tf.gather(tf.convert_to_tensor(self.offsets), items) + vectors[:, -1]
        products = tf.reduce_sum(p * q, axis=1) + tf.reduce_sum(sets * z, axis=1)
        return biases, products + self.last(layer)[:, 0]

    def kernels(self) -> list[Any]:
        """The perceptron's weights."""
        return [*(dense.kernel for dense in self.dense), self.last.kernel]

    def item_side(self) -> ItemSide:
        """What serves of the items."""

        def array(value: Any) -> Float32:
            return np.asarray(value, dtype=np.float32)

        return ItemSide(
            array(self.served_factors()),
            array(tf.exp(2.0 * self.log_deviations)),
            array(self.offsets),
            array(self.set_inputs),
            array(self.set_outputs),
            array(self.ridge()),
        )

    def layers_as_served(self) -> Layers:
        """The perceptron with batch normalisation folded into its weights."""
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
        k = self.config.dimensions
        of_user = k + self.config.set_dimensions
        item_part = np.asarray(self.served_factors()) @ kernel[of_user : of_user + k] + bias
        return Layers(
            kernel[:of_user],
            item_part.astype(np.float32),
            kernel[of_user + k :] if self.config.products else None,
            tuple(hidden),
            np.asarray(self.last.get_weights()[0], dtype=np.float32)[:, 0],
        )
