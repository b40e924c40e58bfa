"""The served form of deep and residual matrix factorization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles
from marquee_core.scorers.saved_model import PADDING
from marquee_trainer.models.neural.neighbour_part import NeighbourPart
from marquee_trainer.models.neural.scoring_module import ScoringModule, ridge_solution

# With neighbourhoods, user vectors are as long as the catalogue. A table of all known users' may
# have so many numbers (64 MB); beyond, the neighbourhoods' part, which is nearly all of it, is made
# from their ratings when they are asked for.
_TABLE_CELLS = 16_000_000


@dataclass(frozen=True)
class Layers:
    """A multi-layer perceptron on (p, s) and q, as it serves: batch normalisation is folded in.

    Attributes:
        user_weights: Weights of (p, s) in the first layer (float32, (k + e) × h).
        item_part: W_q q_i + bias of the first layer, for each item (float32, items × h).
        product_weights: Weights of p ⊙ q in the first layer (float32, k × h); None without.
        hidden: Weights and biases of the further hidden layers.
        output: Weights of the last layer (float32, h').
    """

    user_weights: Float32
    item_part: Float32
    product_weights: Float32 | None
    hidden: tuple[tuple[Float32, Float32], ...]
    output: Float32


@dataclass(frozen=True)
class ItemSide:
    """What is fixed of the items.

    Attributes:
        factors: q (float32, items × k).
        variances: Posterior variance of q (float32, items × k).
        offsets: c in stars (float32, items).
        set_inputs: y (float32, items × e).
        set_outputs: z (float32, items × e).
        ridge: Prior precision of the user's factors and, last, bias (float32, k + 1).
    """

    factors: Float32
    variances: Float32
    offsets: Float32
    set_inputs: Float32
    set_outputs: Float32
    ridge: Float32


class PerceptronModule(ScoringModule):
    """f(u, i) = c_i + b + w_f (p · q_i + s · z_i + MLP(p, s, q_i)) + w_n n_i, u = (p, b, s, n).

    (p, b) is the ridge solution on the user's ratings, where the uncertainty of q is part of the
    ridge; s = Σ_j y_j / √(n + 1) encodes the set of rated items (Koren, 2008, equation 15); n is
    what neighbourhoods add to the baseline, where they take part.
    """

    def __init__(
        self,
        side: ItemSide,
        layers: Layers,
        factor_weight: float,
        neighbours: NeighbourPart | None,
        neighbour_weight: float,
        users: int,
    ) -> None:
        """Takes the item side, the perceptron, w_f, the neighbourhoods, w_n, and how many users."""
        items, self.dimensions = side.factors.shape
        self.set_end = self.dimensions + 1 + side.set_inputs.shape[1]
        width = self.set_end + (items if neighbours else 0)
        self.has_table = users * width <= _TABLE_CELLS or neighbours is None
        super().__init__(width, items, width if self.has_table else self.set_end)
        self.factors = tf.constant(side.factors)
        self.variances = tf.constant(side.variances)
        self.offsets = tf.constant(side.offsets)
        self.set_inputs = tf.constant(side.set_inputs)
        self.set_outputs = tf.constant(side.set_outputs)
        self.ridge = tf.constant(side.ridge)
        self.user_weights = tf.constant(layers.user_weights)
        self.item_part = tf.constant(layers.item_part)
        self.product_weights = (
            None if layers.product_weights is None else tf.constant(layers.product_weights)
        )
        self.hidden = [(tf.constant(w), tf.constant(b)) for w, b in layers.hidden]
        self.output = tf.constant(layers.output)
        self.factor_weight = factor_weight
        self.neighbours = neighbours
        self.neighbour_weight = neighbour_weight

    def matrix(self, vectors: Any, items: Any) -> Any:
        """As `ScoringModule.matrix`."""

        def of(table: Any) -> Any:
            return table if items is None else tf.gather(table, items)

        p, bias = vectors[:, : self.dimensions], vectors[:, self.dimensions, None]
        s = vectors[:, self.dimensions + 1 : self.set_end]
        q = of(self.factors)
        user = tf.matmul(tf.concat([p, s], axis=1), self.user_weights)
        layer = user[:, None, :] + of(self.item_part)
        if self.product_weights is not None:
            # (p ⊙ q) W for all pairs: a product of q with each user's own weights.
            layer += tf.matmul(q[None], p[:, :, None] * self.product_weights)
        layer = tf.nn.relu(layer)
        for weights, start in self.hidden:
            layer = tf.nn.relu(tf.tensordot(layer, weights, axes=1) + start)
        found = tf.tensordot(layer, self.output, axes=1) + tf.matmul(p, q, transpose_b=True)
        found += tf.matmul(s, of(self.set_outputs), transpose_b=True)
        scores = of(self.offsets) + bias + self.factor_weight * found
        if self.neighbours is not None:
            added = vectors[:, self.set_end :]
            added = added if items is None else tf.gather(added, items, axis=1)
            scores += self.neighbour_weight * added
        return scores

    def fold(self, items: Any, ratings: Any) -> Any:
        """As `ScoringModule.fold`."""
        own = self._own(items, ratings)
        if self.neighbours is None:
            return own
        return tf.concat([own, self._added(self.neighbours, items, ratings)], axis=1)

    def _own(self, items: Any, ratings: Any) -> Any:
        """(p, b, s) of padded ratings: as `fold`, less the neighbourhoods' part."""
        given = tf.cast(items != PADDING, tf.float32)
        safe = tf.maximum(items, 0)
        design = tf.gather(self.factors, safe) * given[:, :, None]
        design = tf.concat([design, given[:, :, None]], axis=2)
        targets = (ratings - tf.gather(self.offsets, safe)) * given
        own = tf.einsum("blk,bl->bk", tf.gather(self.variances, safe), given)
        ridge = self.ridge + tf.pad(own, [[0, 0], [0, 1]])
        total = tf.einsum("ble,bl->be", tf.gather(self.set_inputs, safe), given)
        encoded = total / tf.sqrt(tf.reduce_sum(given, axis=1, keepdims=True) + 1.0)
        return tf.concat([ridge_solution(design, targets, ridge), encoded], axis=1)

    def _added(self, neighbours: NeighbourPart, items: Any, ratings: Any) -> Any:
        """n of padded ratings: float32[B, items]."""
        given = tf.cast(items != PADDING, tf.float32)
        return neighbours.added(tf.maximum(items, 0), ratings, given)

    def known(self, users: Any) -> Any:
        """As `ScoringModule.known`."""
        kept = super().known(users)
        if self.has_table or self.neighbours is None:
            return kept
        added = self._added(self.neighbours, *self.neighbours.ratings_of(users))
        return tf.concat([kept, added], axis=1)

    def remember(self, profiles: Profiles, fold: Callable[[Profiles], Float32]) -> None:
        """As `ScoringModule.remember`."""
        neighbours = self.neighbours
        if self.has_table or neighbours is None:
            super().remember(profiles, fold)
            return
        neighbours.remember(profiles)

        def own(part: Profiles) -> Float32:
            vectors: Float32 = self._own(*neighbours.ratings_of(part.user_index)).numpy()
            return vectors

        super().remember(profiles, own)

    def representation(self) -> Any:
        """As `ScoringModule.representation`."""
        return self.factors
