"""The served form of deep and residual matrix factorization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from marquee_core.arrays import Float32
from marquee_core.ratings import Profiles
from marquee_core.scorers.perceptron import ItemParameters, Layers, PerceptronScorer
from marquee_core.scorers.saved_model import PADDING
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.neural.dot_product_modules import ridge_solution
from marquee_trainer.models.neural.item_neighbourhoods import ItemNeighbourhoods
from marquee_trainer.models.neural.scoring_module import ScoringModule

# With neighbourhoods, a user vector has more components than there are items. The vectors of all
# known users are stored in a table of at most this many values (64 MB). If that is not enough, the
# neighbourhoods' part, which is most of a vector, is computed from the user's ratings on request.
_TABLE_CELLS = 16_000_000


class PerceptronModule(ScoringModule):
    """f(u, i) = c_i + b + w_f (p · q_i + s · z_i + MLP(p, s, q_i)) + w_n n_i, u = (p, b, s, n).

    (p, b) is the solution of a ridge regression on the user's ratings, where the uncertainty of q
    adds to the ridge. s = Σ_j y_j / √(n + 1) encodes the set of rated items (Koren, 2008, equation
    15). n is the term that item neighbourhoods add to the baseline; without neighbourhoods, it is
    not part of u.
    """

    has_pairs = True

    def __init__(
        self,
        side: ItemParameters,
        layers: Layers,
        users: int,
        factor_weight: float = 1.0,
        neighbours: ItemNeighbourhoods | None = None,
        neighbour_weight: float = 0.0,
    ) -> None:
        """Creates a module from trained weights.

        Args:
            side: The parameters of the items.
            layers: The perceptron.
            users: The number of known users.
            factor_weight: w_f.
            neighbours: The item neighbourhoods; None to omit them.
            neighbour_weight: w_n.
        """
        items, self.factor_count = side.factors.shape
        self.set_end = self.factor_count + 1 + side.set_inputs.shape[1]
        width = self.set_end + (items if neighbours else 0)
        self.has_table = users * width <= _TABLE_CELLS or neighbours is None
        super().__init__(width, items, width if self.has_table else self.set_end)
        self.side, self.layers = side, layers
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

    def score(self, vectors: Any, items: Any) -> Any:
        """See `ScoringModule.score`."""

        def of(table: Any) -> Any:
            return table if items is None else tf.gather(table, items)

        p, bias = vectors[:, : self.factor_count], vectors[:, self.factor_count, None]
        s = vectors[:, self.factor_count + 1 : self.set_end]
        q = of(self.factors)
        user = tf.matmul(tf.concat([p, s], axis=1), self.user_weights)
        layer = user[:, None, :] + of(self.item_part)
        if self.product_weights is not None:
            # (p ⊙ q) W for all pairs, as a product of q with diag(p) W for each user.
            layer += tf.matmul(q[None], p[:, :, None] * self.product_weights)
        additions = self._perceptron(layer) + tf.matmul(p, q, transpose_b=True)
        additions += tf.matmul(s, of(self.set_outputs), transpose_b=True)
        scores = of(self.offsets) + bias + self.factor_weight * additions
        if self.neighbours is not None:
            part = vectors[:, self.set_end :]
            part = part if items is None else tf.gather(part, items, axis=1)
            scores += self.neighbour_weight * part
        return scores

    def known_pairs(self, users: Any, candidates: Any) -> Any:
        """See `ScoringModule.known_pairs`."""
        stored = super().known_vectors(users)
        scores = self._factor_pairs(stored, candidates)
        if self.neighbours is None:
            return scores
        if self.has_table:
            part = tf.gather(stored[:, self.set_end :], candidates, batch_dims=1)
        else:
            part = self._neighbour_pairs(*self.neighbours.ratings_of(users), candidates)
        return scores + self.neighbour_weight * part

    def folded_pairs(self, items: Any, ratings: Any, candidates: Any) -> Any:
        """See `ScoringModule.folded_pairs`."""
        scores = self._factor_pairs(self._factor_part(items, ratings), candidates)
        if self.neighbours is not None:
            part = self._neighbour_pairs(items, ratings, candidates)
            scores += self.neighbour_weight * part
        return scores

    def _factor_pairs(self, vectors: Any, candidates: Any) -> Any:
        """The scores without n: (p, b, s) float32[B, …], int32[B, C] → float32[B, C]."""
        p, bias = vectors[:, : self.factor_count], vectors[:, self.factor_count, None]
        s = vectors[:, self.factor_count + 1 : self.set_end]
        q = tf.gather(self.factors, candidates)
        user = tf.matmul(tf.concat([p, s], axis=1), self.user_weights)
        layer = user[:, None, :] + tf.gather(self.item_part, candidates)
        if self.product_weights is not None:
            layer += tf.tensordot(q * p[:, None, :], self.product_weights, axes=1)
        additions = self._perceptron(layer) + tf.reduce_sum(q * p[:, None, :], axis=2)
        set_outputs = tf.gather(self.set_outputs, candidates)
        additions += tf.reduce_sum(set_outputs * s[:, None, :], axis=2)
        return tf.gather(self.offsets, candidates) + bias + self.factor_weight * additions

    def _neighbour_pairs(self, items: Any, ratings: Any, candidates: Any) -> Any:
        """n of a few items: int32[B, L], float32[B, L], int32[B, C] → float32[B, C]."""
        assert self.neighbours is not None  # noqa: S101 - the callers have checked
        given = tf.cast(items != PADDING, tf.float32)
        return self.neighbours.pairs(tf.maximum(items, 0), ratings, given, candidates)

    def _perceptron(self, layer: Any) -> Any:
        """The MLP from the first layer before its activation: float32[B, C, h] → float32[B, C]."""
        layer = tf.nn.relu(layer)
        for weights, start in self.hidden:
            layer = tf.nn.relu(tf.tensordot(layer, weights, axes=1) + start)
        return tf.tensordot(layer, self.output, axes=1)

    def fold_in(self, items: Any, ratings: Any) -> Any:
        """See `ScoringModule.fold_in`."""
        factor_part = self._factor_part(items, ratings)
        if self.neighbours is None:
            return factor_part
        neighbour_part = self._neighbour_part(self.neighbours, items, ratings)
        return tf.concat([factor_part, neighbour_part], axis=1)

    def _factor_part(self, items: Any, ratings: Any) -> Any:
        """(p, b, s) of users with padded ratings: int32[B, L], float32[B, L] → float32[B, …]."""
        given = tf.cast(items != PADDING, tf.float32)
        safe = tf.maximum(items, 0)
        design = tf.gather(self.factors, safe) * given[:, :, None]
        design = tf.concat([design, given[:, :, None]], axis=2)
        targets = (ratings - tf.gather(self.offsets, safe)) * given
        uncertainty = tf.einsum("blk,bl->bk", tf.gather(self.variances, safe), given)
        ridge = self.ridge + tf.pad(uncertainty, [[0, 0], [0, 1]])
        total = tf.einsum("ble,bl->be", tf.gather(self.set_inputs, safe), given)
        encoded = total / tf.sqrt(tf.reduce_sum(given, axis=1, keepdims=True) + 1.0)
        return tf.concat([ridge_solution(design, targets, ridge), encoded], axis=1)

    def _neighbour_part(self, neighbours: ItemNeighbourhoods, items: Any, ratings: Any) -> Any:
        """n of users with padded ratings: int32[B, L], float32[B, L] → float32[B, items]."""
        given = tf.cast(items != PADDING, tf.float32)
        return neighbours.contributions(tf.maximum(items, 0), ratings, given)

    def known_vectors(self, users: Any) -> Any:
        """See `ScoringModule.known_vectors`."""
        stored = super().known_vectors(users)
        if self.has_table or self.neighbours is None:
            return stored
        neighbour_part = self._neighbour_part(self.neighbours, *self.neighbours.ratings_of(users))
        return tf.concat([stored, neighbour_part], axis=1)

    def store_users(self, profiles: Profiles, fold_in: Callable[[Profiles], Float32]) -> None:
        """See `ScoringModule.store_users`."""
        neighbours = self.neighbours
        if self.has_table or neighbours is None:
            super().store_users(profiles, fold_in)
            return
        neighbours.store_ratings(profiles)

        def factor_part(part: Profiles) -> Float32:
            vectors: Float32 = self._factor_part(*neighbours.ratings_of(part.user_index)).numpy()
            return vectors

        super().store_users(profiles, factor_part)

    def item_vectors(self) -> Any:
        """See `ScoringModule.item_vectors`."""
        return self.factors

    def array_scorer(self, data: ReleaseData) -> PerceptronScorer:
        """See `ScoringModule.array_scorer`."""
        neighbours = self.neighbours
        return PerceptronScorer(
            data,
            self.side,
            self.layers,
            self.factor_weight,
            None if neighbours is None else neighbours.term(data.baseline, self.neighbour_weight),
            self.users.numpy()[:, : self.set_end],
        )
