"""The TensorFlow modules that are exported and served: plain operations, no Keras.

The signatures are those of `marquee_services.inference.saved_model`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from marquee_services.arrays import Float32
from marquee_services.inference.saved_model import MAX_BATCH, PADDING, PRODUCTS, SavedModelScorer
from marquee_services.scoring.scorer import ReleaseData


@dataclass(frozen=True)
class FoldInConfig:
    """How a user's vector is found from ratings, with the item side frozen.

    minimise Σ (r − f(u, i))² + Σ_k d_k (u_k − c_k)², d = ridge + ridge_per_rating · n for factors
    and bias_ridge for the bias, which is the last component; c is the centre.

    Attributes:
        ridge: Of each factor.
        ridge_per_rating: Of each factor, for each rating.
        bias_ridge: Of the bias.
        steps: Gauss–Newton steps; one is exact for a score that is linear in the vector.
        step_length: Share of each step that is gone; below 1 where a score bends.
    """

    ridge: float
    ridge_per_rating: float
    bias_ridge: float
    steps: int = 1
    step_length: float = 1.0


class ScoringModule(tf.Module):  # type: ignore[misc]
    """A user vector, an item side, and a score of the two."""

    def __init__(self, width: int, items: int) -> None:
        """Takes the length of user vectors and the number of items."""
        super().__init__()
        self.width = width
        self.items = items
        self.users = tf.Variable(tf.zeros((1, width)), shape=(None, width), trainable=False)

    @abstractmethod
    def pairs(self, vectors: Any, items: Any) -> Any:
        """Stars of pairs: vectors float32[N, d], items int32[N] → float32[N]."""

    @abstractmethod
    def matrix(self, vectors: Any, items: Any) -> Any:
        """Stars of all pairs: float32[B, d], int32[C] or None for all items → float32[B, C]."""

    @abstractmethod
    def fold(self, items: Any, ratings: Any) -> Any:
        """User vectors of padded ratings: int32[B, L], float32[B, L] → float32[B, d]."""

    @abstractmethod
    def representation(self) -> Any:
        """Item vectors for similarities: float32[items, e]."""

    def products(self) -> Any:
        """Item vectors whose product with (u, 1) is the score: float32[items, d + 1], if any are.

        None when scores are no products of vectors.
        """
        return None

    def make_signatures(self) -> dict[str, Any]:
        """The signatures, as concrete functions."""
        vectors = tf.TensorSpec((None, self.width), tf.float32)
        index = tf.TensorSpec((None,), tf.int32)
        grid, stars = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.float32)

        def concrete(function: Any, **specs: Any) -> Any:
            return tf.function(function).get_concrete_function(**specs)

        signatures = {
            "user_vectors": concrete(
                lambda users: {"r": tf.gather(self.users, users)}, users=index
            ),
            "fold_in": concrete(
                lambda items, ratings: {"r": self.fold(items, ratings)}, items=grid, ratings=stars
            ),
            "score_all": concrete(
                lambda user_vectors: {"r": self.matrix(user_vectors, None)}, user_vectors=vectors
            ),
            "score": concrete(
                lambda user_vectors, items: {"r": self.matrix(user_vectors, items)},
                user_vectors=vectors,
                items=index,
            ),
            "item_vectors": concrete(lambda: {"r": self.representation()}),
        }
        products = self.products()
        if products is not None:
            signatures[PRODUCTS] = concrete(lambda: {"r": self.products()})
        return signatures


class FittedScorer:
    """A module with its signatures, before it is saved: it scores by the code that serves it."""

    def __init__(self, module: ScoringModule, data: ReleaseData) -> None:
        """Folds all known users in, so that they are what visitors with their ratings would be."""
        self.module = module
        self.signatures = module.make_signatures()
        self.scorer = SavedModelScorer(self, data)
        everybody = data.matrix.all_profiles()
        table = np.zeros((len(everybody), module.width), dtype=np.float32)
        # By number of ratings, so that little is padded.
        order = np.argsort(everybody.counts, kind="stable")
        for first in range(0, len(order), MAX_BATCH):
            part = order[first : first + MAX_BATCH]
            table[part] = self.scorer.fold(everybody.take(part))
        module.users.assign(table)

    def save(self, folder: Path) -> None:
        """Writes a SavedModel."""
        tf.saved_model.save(self.module, str(folder), signatures=self.signatures)


class LinearModule(ScoringModule):
    """f(u, i) = c_i + p · q_i + b, with u = (p, b); folds in by the ridge solution."""

    def __init__(self, factors: Float32, offsets: Float32, fold_in: FoldInConfig) -> None:
        """Takes the item side.

        Args:
            factors: q (float32, items × k).
            offsets: c in stars (float32, items).
            fold_in: How users are folded in.
        """
        super().__init__(factors.shape[1] + 1, len(factors))
        ones = np.ones((len(factors), 1), dtype=np.float32)
        self.factors = tf.constant(np.hstack([factors, ones]))
        self.offsets = tf.constant(offsets)
        self.fold_in = fold_in

    def pairs(self, vectors: Any, items: Any) -> Any:
        """As `ScoringModule.pairs`."""
        products = tf.reduce_sum(vectors * tf.gather(self.factors, items), axis=1)
        return products + tf.gather(self.offsets, items)

    def matrix(self, vectors: Any, items: Any) -> Any:
        """As `ScoringModule.matrix`."""
        if items is None:
            return tf.matmul(vectors, self.factors, transpose_b=True) + self.offsets
        factors, offsets = tf.gather(self.factors, items), tf.gather(self.offsets, items)
        return tf.matmul(vectors, factors, transpose_b=True) + offsets

    def fold(self, items: Any, ratings: Any) -> Any:
        """As `ScoringModule.fold`."""
        centre = tf.zeros((self.width,))
        return gauss_newton(self.pairs, items, ratings, centre, self.fold_in)

    def representation(self) -> Any:
        """As `ScoringModule.representation`."""
        return self.factors[:, :-1]

    def products(self) -> Any:
        """As `ScoringModule.products`."""
        return tf.concat([self.factors, self.offsets[:, None]], axis=1)


@dataclass(frozen=True)
class Layers:
    """A multi-layer perceptron on (p, q), as it serves: batch normalisation is folded in.

    Attributes:
        user_weights: W_p (float32, k × h).
        item_part: W_q q_i + b of the first layer, for each item (float32, items × h).
        hidden: Weights and biases of the further hidden layers.
        output: Weights of the last layer (float32, h').
    """

    user_weights: Float32
    item_part: Float32
    hidden: tuple[tuple[Float32, Float32], ...]
    output: Float32


class PerceptronModule(ScoringModule):
    """f(u, i) = c_i + b + p · q_i + MLP(p, q_i), with u = (p, b); the dot product may be left out.

    The first layer splits into a part of the user and one of the item, which is fixed per release.
    """

    def __init__(
        self,
        factors: Float32,
        offsets: Float32,
        layers: Layers,
        with_dot: bool,
        centre: Float32,
        fold_in: FoldInConfig,
    ) -> None:
        """Takes the item side.

        Args:
            factors: q (float32, items × k).
            offsets: c in stars (float32, items).
            layers: The perceptron.
            with_dot: Whether the dot product is part of the score.
            centre: The mean user vector, from which folding in starts (float32, k + 1).
            fold_in: How users are folded in.
        """
        super().__init__(factors.shape[1] + 1, len(factors))
        self.factors = tf.constant(factors)
        self.offsets = tf.constant(offsets)
        self.user_weights = tf.constant(layers.user_weights)
        self.item_part = tf.constant(layers.item_part)
        self.hidden = [(tf.constant(w), tf.constant(b)) for w, b in layers.hidden]
        self.output = tf.constant(layers.output)
        self.with_dot = with_dot
        self.centre = tf.constant(centre)
        self.fold_in = fold_in

    def pairs(self, vectors: Any, items: Any) -> Any:
        """As `ScoringModule.pairs`."""
        user = vectors[:, :-1]
        first = tf.matmul(user, self.user_weights) + tf.gather(self.item_part, items)
        scores = self._rest(first) + tf.gather(self.offsets, items) + vectors[:, -1]
        if self.with_dot:
            scores += tf.reduce_sum(user * tf.gather(self.factors, items), axis=1)
        return scores

    def matrix(self, vectors: Any, items: Any) -> Any:
        """As `ScoringModule.matrix`."""
        user = vectors[:, :-1]
        item_part = self.item_part if items is None else tf.gather(self.item_part, items)
        offsets = self.offsets if items is None else tf.gather(self.offsets, items)
        first = tf.matmul(user, self.user_weights)[:, None, :] + item_part
        scores = self._rest(first) + offsets + vectors[:, -1:]
        if self.with_dot:
            factors = self.factors if items is None else tf.gather(self.factors, items)
            scores += tf.matmul(user, factors, transpose_b=True)
        return scores

    def fold(self, items: Any, ratings: Any) -> Any:
        """As `ScoringModule.fold`."""
        return gauss_newton(self.pairs, items, ratings, self.centre, self.fold_in)

    def representation(self) -> Any:
        """As `ScoringModule.representation`."""
        return self.factors

    def _rest(self, first: Any) -> Any:
        layer = tf.nn.relu(first)
        for weights, bias in self.hidden:
            layer = tf.nn.relu(tf.tensordot(layer, weights, axes=1) + bias)
        return tf.tensordot(layer, self.output, axes=1)


class EncoderModule(ScoringModule):
    """f(u, i) = μ + b_i + b_u + h · w_i + a_i, with u = (h, b_u) and h encoded from the ratings.

    U-AutoRec (Sedhain et al., 2015): h = sigmoid(Σ_i (r_i − b_ui) v_i + m).
    """

    def __init__(
        self,
        encoder: Float32,
        encoder_bias: Float32,
        decoder: Float32,
        decoder_bias: Float32,
        data: ReleaseData,
    ) -> None:
        """Takes v (items × h), m (h), w (items × h), a (items), and the baseline's data."""
        super().__init__(decoder.shape[1] + 1, len(decoder))
        ones = np.ones((len(decoder), 1), dtype=np.float32)
        self.encoder = tf.constant(encoder)
        self.encoder_bias = tf.constant(encoder_bias)
        self.decoder = tf.constant(np.hstack([decoder, ones]))
        item_mean = data.baseline.item_bias + np.float32(data.baseline.mean)
        self.item_mean = tf.constant(item_mean.astype(np.float32))
        self.offsets = tf.constant((item_mean + decoder_bias).astype(np.float32))
        self.damping = data.baseline.user_damping

    def pairs(self, vectors: Any, items: Any) -> Any:
        """As `ScoringModule.pairs`."""
        products = tf.reduce_sum(vectors * tf.gather(self.decoder, items), axis=1)
        return products + tf.gather(self.offsets, items)

    def matrix(self, vectors: Any, items: Any) -> Any:
        """As `ScoringModule.matrix`."""
        decoder = self.decoder if items is None else tf.gather(self.decoder, items)
        offsets = self.offsets if items is None else tf.gather(self.offsets, items)
        return tf.matmul(vectors, decoder, transpose_b=True) + offsets

    def products(self) -> Any:
        """As `ScoringModule.products`."""
        return tf.concat([self.decoder, self.offsets[:, None]], axis=1)

    def fold(self, items: Any, ratings: Any) -> Any:
        """As `ScoringModule.fold`."""
        given = tf.cast(items != PADDING, tf.float32)
        safe = tf.maximum(items, 0)
        departures = (ratings - tf.gather(self.item_mean, safe)) * given
        count = tf.reduce_sum(given, axis=1, keepdims=True)
        bias = tf.reduce_sum(departures, axis=1, keepdims=True) / (count + self.damping)
        residuals = (departures - bias) * given
        total = tf.einsum("bl,blh->bh", residuals, tf.gather(self.encoder, safe))
        return tf.concat([tf.sigmoid(total + self.encoder_bias), bias], axis=1)

    def representation(self) -> Any:
        """As `ScoringModule.representation`."""
        return self.decoder[:, :-1]


def gauss_newton(pairs: Any, items: Any, ratings: Any, centre: Any, config: FoldInConfig) -> Any:
    """Folds users in: Gauss–Newton steps from the centre; see `FoldInConfig`.

    Args:
        pairs: Stars of pairs, float32[N, d] and int32[N] → float32[N].
        items: int32[B, L], padded with -1.
        ratings: float32[B, L].
        centre: float32[d].
        config: The ridge and the number of steps.

    Returns:
        float32[B, d].
    """
    batch, length = tf.shape(items)[0], tf.shape(items)[1]
    width = centre.shape[0]
    given = tf.cast(items != PADDING, tf.float32)
    safe = tf.reshape(tf.maximum(items, 0), (-1,))
    count = tf.reduce_sum(given, axis=1, keepdims=True)
    factor_ridge = config.ridge + config.ridge_per_rating * count
    ridge = tf.concat(
        [tf.repeat(factor_ridge, width - 1, axis=1), tf.fill((batch, 1), float(config.bias_ridge))],
        axis=1,
    )
    vectors = tf.tile(centre[None, :], (batch, 1))
    # A loop of the graph: unrolled, the steps would each be compiled.
    for _ in tf.range(config.steps):
        # A copy of the vector for each rating: one reverse pass gives all rows of the Jacobian.
        copies = tf.repeat(vectors, length, axis=0)
        with tf.GradientTape() as tape:
            tape.watch(copies)
            predicted = pairs(copies, safe)
        jacobian = tf.reshape(tape.gradient(predicted, copies), (batch, length, width))
        jacobian *= given[:, :, None]
        errors = (ratings - tf.reshape(predicted, (batch, length))) * given
        normal = tf.matmul(jacobian, jacobian, transpose_a=True) + tf.linalg.diag(ridge)
        right = tf.einsum("blk,bl->bk", jacobian, errors) - ridge * (vectors - centre)
        vectors += config.step_length * tf.squeeze(
            tf.linalg.cholesky_solve(tf.linalg.cholesky(normal), right[:, :, None]), axis=2
        )
    return vectors
