"""The TensorFlow modules that are saved and served: plain operations, without Keras.

Their signatures are those of `marquee_core.scorers.saved_model`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles
from marquee_core.scorers.dot_product import (
    DotProductScorer,
    EncoderFoldIn,
    EncoderScale,
    RidgeFoldIn,
    RidgePenalties,
)
from marquee_core.scorers.hyperparameters import ModelConfig, NonNegativeFloat, PositiveFloat
from marquee_core.scorers.perceptron import PerceptronScorer
from marquee_core.scorers.saved_model import (
    FOLDED_PAIRS,
    KNOWN_PAIRS,
    MAX_BATCH,
    PADDING,
    PRODUCTS,
    SavedModelScorer,
)
from marquee_core.scorers.scorer import ReleaseData

MAX_GRAPH_BYTES = 2**31 - 2**26
"""The most bytes of constants in a SavedModel: 2 GiB, with room for everything else in it."""

ArrayScorer: TypeAlias = DotProductScorer | PerceptronScorer
"""The scorers that serve a trained model from its arrays, without TensorFlow."""


@dataclass(frozen=True)
class FoldInConfig(ModelConfig):
    """The hyperparameters of a fold-in by ridge regression, with the items' parameters fixed.

    The user vector u minimises Σ (r − f(u, i))² + Σ_k d_k u_k² over the user's n ratings, where
    d = ridge + ridge_per_rating · n for a factor and d = bias_ridge for the bias, the last
    component. f is linear in u, so the solution is exact.

    Attributes:
        ridge: The L2 penalty of each factor.
        ridge_per_rating: The L2 penalty of each factor that is added for each rating.
        bias_ridge: The L2 penalty of the bias.
    """

    ridge: PositiveFloat
    ridge_per_rating: NonNegativeFloat
    bias_ridge: PositiveFloat


class ScoringModule(tf.Module):  # type: ignore[misc]
    """A model in its served form: user vectors, and scores from a user vector and the items.

    Attributes:
        width: d, the length of a user vector.
        items: The number of items.
        stored_width: The number of values stored for each known user.
        users: The stored values of all known users (float32, users × stored width).
        has_pairs: Whether the module predicts a few items for each user without scoring all; if
            so, it implements `known_pairs` and `folded_pairs`.
    """

    has_pairs = False

    def __init__(self, width: int, items: int, stored_width: int | None = None) -> None:
        """Creates a module without known users.

        Args:
            width: The length of a user vector.
            items: The number of items.
            stored_width: The number of values to store for each known user; None for the whole
                vector.
        """
        super().__init__()
        self.width = width
        self.items = items
        self.stored_width = width if stored_width is None else stored_width
        empty = tf.zeros((1, self.stored_width))
        self.users = tf.Variable(empty, shape=(None, self.stored_width), trainable=False)

    def known_vectors(self, users: Any) -> Any:
        """Returns the vectors of known users: int32[B] → float32[B, d]."""
        return tf.gather(self.users, users)

    def store_users(self, profiles: Profiles, fold_in: Callable[[Profiles], Float32]) -> None:
        """Computes and stores the values of all known users, who are folded in as visitors are.

        Args:
            profiles: The profiles of all users.
            fold_in: A function that computes the vectors of at most `MAX_BATCH` users, or the part
                of them that is stored (float32, B × stored width).
        """
        table = np.zeros((len(profiles), self.stored_width), dtype=np.float32)
        # Ordered by the number of ratings, so that batches need little padding.
        order = np.argsort(profiles.counts, kind="stable")
        for first in range(0, len(order), MAX_BATCH):
            part = order[first : first + MAX_BATCH]
            table[part] = fold_in(profiles.take(part))
        self.users.assign(table)

    @abstractmethod
    def score(self, vectors: Any, items: Any) -> Any:
        """Predicts stars for all pairs: float32[B, d], int32[C] → float32[B, C].

        `items` is None for all items.
        """

    @abstractmethod
    def fold_in(self, items: Any, ratings: Any) -> Any:
        """Computes user vectors from padded ratings: int32[B, L], float32[B, L] → float32[B, d]."""

    @abstractmethod
    def item_vectors(self) -> Any:
        """Returns item vectors for similarities: float32[items, e]."""

    def item_products(self) -> Any:
        """Returns item vectors whose product with (u, 1) is the score: float32[items, d + 1].

        None if the scores are not dot products.
        """
        return None

    def array_scorer(self, data: ReleaseData) -> ArrayScorer | None:  # noqa: ARG002
        """Returns the scorer in NumPy that serves the model; None to serve the SavedModel."""
        return None

    def known_pairs(self, users: Any, candidates: Any) -> Any:
        """Predicts a few items for each known user: int32[B], int32[B, C] → float32[B, C]."""
        raise NotImplementedError

    def folded_pairs(self, items: Any, ratings: Any, candidates: Any) -> Any:
        """Predicts a few items for each user from padded ratings.

        int32[B, L], float32[B, L], int32[B, C] → float32[B, C].
        """
        raise NotImplementedError

    def make_signatures(self) -> dict[str, Any]:
        """Traces the signatures as concrete functions, by name."""
        vectors = tf.TensorSpec((None, self.width), tf.float32)
        index = tf.TensorSpec((None,), tf.int32)
        grid, stars = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.float32)

        def concrete(function: Any, **specs: Any) -> Any:
            return tf.function(function).get_concrete_function(**specs)

        signatures = {
            "user_vectors": concrete(lambda users: {"r": self.known_vectors(users)}, users=index),
            "fold_in": concrete(
                lambda items, ratings: {"r": self.fold_in(items, ratings)},
                items=grid,
                ratings=stars,
            ),
            "score_all": concrete(
                lambda user_vectors: {"r": self.score(user_vectors, None)}, user_vectors=vectors
            ),
            "score": concrete(
                lambda user_vectors, items: {"r": self.score(user_vectors, items)},
                user_vectors=vectors,
                items=index,
            ),
            "item_vectors": concrete(lambda: {"r": self.item_vectors()}),
        }
        products = self.item_products()
        if products is not None:
            signatures[PRODUCTS] = concrete(lambda: {"r": self.item_products()})
        if self.has_pairs:
            signatures[KNOWN_PAIRS] = concrete(
                lambda users, candidates: {"r": self.known_pairs(users, candidates)},
                users=index,
                candidates=grid,
            )
            signatures[FOLDED_PAIRS] = concrete(
                lambda items, ratings, candidates: {
                    "r": self.folded_pairs(items, ratings, candidates)
                },
                items=grid,
                ratings=stars,
                candidates=grid,
            )
        return signatures


class FittedScorer:
    """A fitted module with its signatures, before it is saved.

    It scores with the code that serves it.

    Attributes:
        module: The module.
        signatures: The signatures of the module, by name.
        scorer: The scorer that serves the model: in NumPy if the model has one, otherwise on these
            signatures.
    """

    def __init__(self, module: ScoringModule, data: ReleaseData) -> None:
        """Traces the signatures and folds all known users in.

        Args:
            module: The module; the known users are stored in it.
            data: The data that it was fitted on.
        """
        self.module = module
        self.signatures = module.make_signatures()
        saved_model_scorer = SavedModelScorer(self, data)
        module.store_users(data.matrix.all_profiles(), saved_model_scorer.fold)
        self._arrays = module.array_scorer(data)
        self.scorer: SavedModelScorer | ArrayScorer = (
            saved_model_scorer if self._arrays is None else self._arrays
        )

    def save(self, folder: Path) -> None:
        """Writes a SavedModel, and the arrays of the scorer in NumPy if the model has one.

        TensorFlow writes the parameters of the items into one message, which cannot exceed 2 GiB.
        Larger models are written as arrays alone, which servers map into memory.

        Raises:
            ValueError: The model is larger, and has no scorer in NumPy.
        """
        if self.graph_bytes <= MAX_GRAPH_BYTES:
            tf.saved_model.save(self.module, str(folder), signatures=self.signatures)
        elif self._arrays is None:
            raise ValueError(
                f"the parameters take {self.graph_bytes:,} bytes, and a SavedModel holds at most "
                f"{MAX_GRAPH_BYTES:,}"
            )
        if self._arrays is not None:
            self._arrays.save(folder)

    @property
    def graph_bytes(self) -> int:
        """The bytes of the constants that a SavedModel holds in its graph."""
        constants = {
            id(tensor): tensor.dtype.size * int(np.prod(tensor.shape, dtype=np.int64))
            for function in self.signatures.values()
            for tensor in function.captured_inputs
            if tensor.dtype != tf.resource
        }
        return sum(constants.values())


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
