"""The modules whose scores are dot products of vectors, and the parameters of their fold-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.scorers.dot_product import (
    DotProductScorer,
    EncoderFoldIn,
    EncoderScale,
    RidgeFoldIn,
    RidgePenalties,
)
from marquee_core.scorers.hyperparameters import ModelConfig, NonNegativeFloat, PositiveFloat
from marquee_core.scorers.saved_model import PADDING
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.neural.scoring_module import ScoringModule


@dataclass(frozen=True)
class FoldInConfig(ModelConfig):
    """The hyperparameters of a fold-in by ridge regression, with the items' parameters fixed.

    The user vector u minimises Σ (r − f(u, i))² + Σ_k d_k u_k² over the user's n ratings, where
    d = ridge + ridge_per_rating · n for a factor and d = bias_ridge for the bias, the last
    component. f is linear in u, so the solution is exact.

    Attributes:
        ridge: The L2 penalty of each factor.
        ridge_per_rating: The increase of the L2 penalty of each factor per rating.
        bias_ridge: The L2 penalty of the bias.
    """

    ridge: PositiveFloat
    ridge_per_rating: NonNegativeFloat
    bias_ridge: PositiveFloat


class LinearModule(ScoringModule):
    """f(u, i) = c_i + p · q_i + b, with u = (p, b); the fold-in is a ridge regression."""

    def __init__(self, factors: Float32, offsets: Float32, fold_in_config: FoldInConfig) -> None:
        """Creates a module from the items' parameters.

        Args:
            factors: q (float32, items × k).
            offsets: c in stars (float32, items).
            fold_in_config: The penalties of the fold-in.
        """
        super().__init__(factors.shape[1] + 1, len(factors))
        ones = np.ones((len(factors), 1), dtype=np.float32)
        self.factors = tf.constant(np.hstack([factors, ones]))
        self.offsets = tf.constant(offsets)
        self.fold_in_config = fold_in_config

    def score(self, vectors: Any, items: Any) -> Any:
        """See `ScoringModule.score`."""
        if items is None:
            return tf.matmul(vectors, self.factors, transpose_b=True) + self.offsets
        factors, offsets = tf.gather(self.factors, items), tf.gather(self.offsets, items)
        return tf.matmul(vectors, factors, transpose_b=True) + offsets

    def fold_in(self, items: Any, ratings: Any) -> Any:
        """See `ScoringModule.fold_in`."""
        config = self.fold_in_config
        given = tf.cast(items != PADDING, tf.float32)
        safe = tf.maximum(items, 0)
        count = tf.reduce_sum(given, axis=1, keepdims=True)
        factor_ridge = config.ridge + config.ridge_per_rating * count
        ridge = tf.concat(
            [
                tf.repeat(factor_ridge, self.width - 1, axis=1),
                tf.fill(tf.shape(factor_ridge), float(config.bias_ridge)),
            ],
            axis=1,
        )
        targets = (ratings - tf.gather(self.offsets, safe)) * given
        return ridge_solution(tf.gather(self.factors, safe) * given[:, :, None], targets, ridge)

    def array_scorer(self, data: ReleaseData) -> DotProductScorer:
        """See `ScoringModule.array_scorer`."""
        factors, offsets = self.factors.numpy(), self.offsets.numpy()
        config = self.fold_in_config
        penalties = RidgePenalties(config.ridge, config.ridge_per_rating, config.bias_ridge)
        fold_in = RidgeFoldIn(factors, offsets, penalties)
        return DotProductScorer(data, factors, offsets, fold_in, self.users.numpy())

    def item_vectors(self) -> Any:
        """See `ScoringModule.item_vectors`."""
        return self.factors[:, :-1]

    def item_products(self) -> Any:
        """See `ScoringModule.item_products`."""
        return tf.concat([self.factors, self.offsets[:, None]], axis=1)


@dataclass(frozen=True)
class InputScale:
    """The scaling of an autoencoder's inputs.

    Attributes:
        mean_count: n̄, the mean number of ratings in an input.
        damping: c, in ratings.
        set_scale: t, the input that marks a cell as rated, in stars.
    """

    mean_count: float
    damping: float
    set_scale: float

    def of(self, counts: Any) -> Any:
        """Computes g = √((n̄ + c) / (n + c)) for inputs with n ratings, in the shape of n."""
        return tf.sqrt((self.mean_count + self.damping) / (counts + self.damping))


class EncoderModule(ScoringModule):
    """f(u, i) = μ + b_i + b_u + h · w_i + a_i, with u = (h, b_u) and h encoded from the ratings.

    U-AutoRec (Sedhain et al., 2015): h = sigmoid(g Σ_i ((r_i − b_ui) v_i + t v'_i) + m), summed
    over the rated items i. g and t are the scales of `InputScale`, and v' encodes which items are
    rated.
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
        """Creates a module from the trained weights.

        Args:
            encoder: v, then v' (float32, 2 items × h).
            encoder_bias: m (float32, h).
            decoder: w (float32, items × h).
            decoder_bias: a in stars (float32, items).
            scale: g and t.
            data: The training ratings and their baseline.
        """
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

    def score(self, vectors: Any, items: Any) -> Any:
        """See `ScoringModule.score`."""
        decoder = self.decoder if items is None else tf.gather(self.decoder, items)
        offsets = self.offsets if items is None else tf.gather(self.offsets, items)
        return tf.matmul(vectors, decoder, transpose_b=True) + offsets

    def fold_in(self, items: Any, ratings: Any) -> Any:
        """See `ScoringModule.fold_in`."""
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

    def array_scorer(self, data: ReleaseData) -> DotProductScorer:
        """See `ScoringModule.array_scorer`."""
        decoder, offsets = self.decoder.numpy(), self.offsets.numpy()
        fold_in = EncoderFoldIn(
            self.encoder.numpy(),
            self.set_encoder.numpy(),
            self.encoder_bias.numpy(),
            self.item_mean.numpy(),
            EncoderScale(self.scale.mean_count, self.scale.damping, self.damping),
        )
        return DotProductScorer(data, decoder, offsets, fold_in, self.users.numpy())

    def item_vectors(self) -> Any:
        """See `ScoringModule.item_vectors`."""
        return self.decoder[:, :-1]

    def item_products(self) -> Any:
        """See `ScoringModule.item_products`."""
        return tf.concat([self.decoder, self.offsets[:, None]], axis=1)


def ridge_solution(design: Any, targets: Any, ridge: Any) -> Any:
    """Solves a batch of ridge regressions: x minimising |targets − design x|² + Σ_k ridge_k x_k².

    Args:
        design: float32[B, L, d]; rows of 0 for padding.
        targets: float32[B, L]; 0 for padding.
        ridge: float32[B, d].

    Returns:
        x: float32[B, d].
    """
    normal = tf.matmul(design, design, transpose_a=True) + tf.linalg.diag(ridge)
    right = tf.einsum("blk,bl->bk", design, targets)
    solved = tf.linalg.cholesky_solve(tf.linalg.cholesky(normal), right[:, :, None])
    return tf.squeeze(solved, axis=2)
