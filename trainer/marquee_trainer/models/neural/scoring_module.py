"""The TensorFlow modules that are exported and served: plain operations, no Keras.

The signatures are those of `marquee_core.scorers.saved_model`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles
from marquee_core.scorers.saved_model import MAX_BATCH, PADDING, PRODUCTS, SavedModelScorer
from marquee_core.scorers.scorer import ReleaseData


@dataclass(frozen=True)
class FoldInConfig:
    """How a user's vector is found from ratings, with the item side frozen.

    minimise Σ (r − f(u, i))² + Σ_k d_k u_k², d = ridge + ridge_per_rating · n for factors and
    bias_ridge for the bias, which is the last component; f is linear in u, so this is exact.

    Attributes:
        ridge: Of each factor.
        ridge_per_rating: Of each factor, for each rating.
        bias_ridge: Of the bias.
    """

    ridge: float
    ridge_per_rating: float
    bias_ridge: float


class ScoringModule(tf.Module):  # type: ignore[misc]
    """A user vector, an item side, and a score of the two."""

    def __init__(self, width: int, items: int, kept: int | None = None) -> None:
        """Takes the length of user vectors, the number of items, and how much of each is kept."""
        super().__init__()
        self.width = width
        self.items = items
        self.kept = width if kept is None else kept
        empty = tf.zeros((1, self.kept))
        self.users = tf.Variable(empty, shape=(None, self.kept), trainable=False)

    def known(self, users: Any) -> Any:
        """Vectors of known users, or what is kept of them: int32[B] → float32[B, d]."""
        return tf.gather(self.users, users)

    def remember(self, profiles: Profiles, fold: Callable[[Profiles], Float32]) -> None:
        """Keeps what `known` needs of all users, who are folded in as visitors are.

        Args:
            profiles: All users.
            fold: Vectors of at most `MAX_BATCH` users, or what is kept of them (float32, B × d).
        """
        table = np.zeros((len(profiles), self.kept), dtype=np.float32)
        # By number of ratings, so that little is padded.
        order = np.argsort(profiles.counts, kind="stable")
        for first in range(0, len(order), MAX_BATCH):
            part = order[first : first + MAX_BATCH]
            table[part] = fold(profiles.take(part))
        self.users.assign(table)

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
            "user_vectors": concrete(lambda users: {"r": self.known(users)}, users=index),
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
        module.remember(data.matrix.all_profiles(), self.scorer.fold)

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

    def matrix(self, vectors: Any, items: Any) -> Any:
        """As `ScoringModule.matrix`."""
        if items is None:
            return tf.matmul(vectors, self.factors, transpose_b=True) + self.offsets
        factors, offsets = tf.gather(self.factors, items), tf.gather(self.offsets, items)
        return tf.matmul(vectors, factors, transpose_b=True) + offsets

    def fold(self, items: Any, ratings: Any) -> Any:
        """As `ScoringModule.fold`."""
        given = tf.cast(items != PADDING, tf.float32)
        safe = tf.maximum(items, 0)
        count = tf.reduce_sum(given, axis=1, keepdims=True)
        own = self.fold_in.ridge + self.fold_in.ridge_per_rating * count
        ridge = tf.concat(
            [
                tf.repeat(own, self.width - 1, axis=1),
                tf.fill(tf.shape(own), float(self.fold_in.bias_ridge)),
            ],
            axis=1,
        )
        targets = (ratings - tf.gather(self.offsets, safe)) * given
        return ridge_solution(tf.gather(self.factors, safe) * given[:, :, None], targets, ridge)

    def representation(self) -> Any:
        """As `ScoringModule.representation`."""
        return self.factors[:, :-1]

    def products(self) -> Any:
        """As `ScoringModule.products`."""
        return tf.concat([self.factors, self.offsets[:, None]], axis=1)


@dataclass(frozen=True)
class InputScale:
    """The scale of an autoencoder's inputs.

    Attributes:
        mean_count: n̄, the mean number of ratings of an input.
        damping: c, in ratings.
        set_scale: t, what says that a cell is rated, in stars.
    """

    mean_count: float
    damping: float
    set_scale: float

    def of(self, counts: Any) -> Any:
        """g = √((n̄ + c) / (n + c)) of inputs with n ratings, of the shape of n."""
        return tf.sqrt((self.mean_count + self.damping) / (counts + self.damping))


class EncoderModule(ScoringModule):
    """f(u, i) = μ + b_i + b_u + h · w_i + a_i, with u = (h, b_u) and h encoded from the ratings.

    U-AutoRec (Sedhain et al., 2015): h = sigmoid(g Σ_i ((r_i − b_ui) v_i + t v'_i) + m), where i
    are the rated items, g and t the scales of `InputScale`, and v' encodes that an item is rated.
    """

    def __init__(
        self,
        encoder: Float32,
        encoder_bias: Float32,
        decoder: Float32,
        decoder_bias: Float32,
        scale: InputScale,
        data: ReleaseData,
    ) -> None:
        """Takes v and v' (2 items × h), m (h), w (items × h), a (items), scales and the data."""
        super().__init__(decoder.shape[1] + 1, len(decoder))
        ones = np.ones((len(decoder), 1), dtype=np.float32)
        items = len(decoder)
        self.encoder = tf.constant(encoder[:items])
        self.set_encoder = tf.constant(encoder[items:] * np.float32(scale.set_scale))
        self.encoder_bias = tf.constant(encoder_bias)
        self.decoder = tf.constant(np.hstack([decoder, ones]))
        item_mean = data.baseline.item_bias + np.float32(data.baseline.mean)
        self.item_mean = tf.constant(item_mean.astype(np.float32))
        self.offsets = tf.constant((item_mean + decoder_bias).astype(np.float32))
        self.damping = data.baseline.user_damping
        self.scale = scale

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
        total += tf.einsum("bl,blh->bh", given, tf.gather(self.set_encoder, safe))
        total *= self.scale.of(count)
        return tf.concat([tf.sigmoid(total + self.encoder_bias), bias], axis=1)

    def representation(self) -> Any:
        """As `ScoringModule.representation`."""
        return self.decoder[:, :-1]


def ridge_solution(design: Any, targets: Any, ridge: Any) -> Any:
    """x minimising |targets − design x|² + Σ_k ridge_k x_k², for each of a batch.

    Args:
        design: float32[B, L, d]; rows of 0 for padding.
        targets: float32[B, L]; 0 for padding.
        ridge: float32[B, d].

    Returns:
        float32[B, d].
    """
    normal = tf.matmul(design, design, transpose_a=True) + tf.linalg.diag(ridge)
    right = tf.einsum("blk,bl->bk", design, targets)
    solved = tf.linalg.cholesky_solve(tf.linalg.cholesky(normal), right[:, :, None])
    return tf.squeeze(solved, axis=2)
