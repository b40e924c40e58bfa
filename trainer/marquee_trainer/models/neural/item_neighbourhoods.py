"""Item neighbourhoods in TensorFlow, a component of residual MF."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from marquee_core.ratings import Profiles
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.item_cf import ItemCFConfig
from marquee_core.scorers.neighbour_term import NeighbourTerm
from marquee_core.scorers.saved_model import PADDING
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.neighbours.item_cf import item_neighbours


class ItemNeighbourhoods(tf.Module):  # type: ignore[misc]
    """n_i = Σ_j s_ij e_uj / (Σ_j s_ij + δ S_i), the term that item CF adds to the baseline."""

    def __init__(self, data: ReleaseData, config: ItemCFConfig) -> None:
        """Finds the neighbours of each item.

        Args:
            data: The training ratings and their baseline.
            config: The hyperparameters of the neighbourhoods.
        """
        super().__init__()
        similar = item_neighbours(data, config)
        matrix = similar.matrix()
        totals = np.asarray(matrix.sum(axis=1), dtype=np.float32)
        damping = np.where(totals > 0, config.damping * totals, 1.0).astype(np.float32)
        rows = np.repeat(np.arange(len(similar)), np.diff(similar.indptr))
        self.cells = tf.constant(np.stack([rows, similar.indices], axis=1).astype(np.int64))
        self.similarities = tf.constant(similar.similarities)
        self.row_starts = tf.constant(similar.indptr)
        self.most_neighbours = int(np.diff(similar.indptr).max(initial=0))
        self.damping = tf.constant(damping)
        item_mean = data.baseline.item_bias + np.float32(data.baseline.mean)
        self.item_mean = tf.constant(item_mean.astype(np.float32))
        self.user_damping = data.baseline.user_damping
        self.items = data.matrix.item_count
        self.rated = tf.Variable([0], shape=(None,), dtype=tf.int32, trainable=False)
        self.stars = tf.Variable([0.0], shape=(None,), trainable=False)
        self.starts = tf.Variable([0], shape=(None,), dtype=tf.int64, trainable=False)

    def term(self, baseline: Baseline, weight: float) -> NeighbourTerm:
        """Converts the neighbourhoods to NumPy.

        Args:
            baseline: The baseline of the data.
            weight: The weight of n in the prediction.
        """
        return NeighbourTerm(
            self.row_starts.numpy(),
            self.cells.numpy()[:, 1].astype(np.int32),
            self.similarities.numpy(),
            self.damping.numpy(),
            baseline,
            weight,
        )

    def contributions(self, items: Any, ratings: Any, given: Any) -> Any:
        """Computes n of all items for users with padded ratings.

        Args:
            items: The rated items, with any item as padding: int32[B, L].
            ratings: The ratings in stars: float32[B, L].
            given: 1 for a rating, 0 for padding: float32[B, L].

        Returns:
            n in stars: float32[B, items].
        """
        residuals = self._residuals(items, ratings, given)
        batch = tf.shape(items)[0]
        users = tf.range(batch)[:, None] + tf.zeros_like(items)
        cells = tf.stack([items, users], axis=2)

        def weighted_sums(values: Any) -> Any:
            shape = (self.items, batch)
            similar = tf.SparseTensor(self.cells, self.similarities, (self.items, self.items))
            return tf.sparse.sparse_dense_matmul(similar, tf.scatter_nd(cells, values, shape))

        weights = weighted_sums(given) + self.damping[:, None]
        return tf.transpose(weighted_sums(residuals) / weights)

    def pairs(self, items: Any, ratings: Any, given: Any, candidates: Any) -> Any:
        """Computes n of a few items for each user with padded ratings.

        Args:
            items: The rated items, with any item as padding: int32[B, L].
            ratings: The ratings in stars: float32[B, L].
            given: 1 for a rating, 0 for padding: float32[B, L].
            candidates: The items of each user: int32[B, C].

        Returns:
            n in stars: float32[B, C].
        """
        if not self.most_neighbours:
            return tf.zeros(tf.shape(candidates))
        batch = tf.shape(items)[0]
        users = tf.range(batch)[:, None] + tf.zeros_like(items)
        cells, shape = tf.stack([users, items], axis=2), (batch, self.items)
        starts = tf.gather(self.row_starts, candidates)
        counts = tf.gather(self.row_starts, candidates + 1) - starts
        positions = tf.range(self.most_neighbours, dtype=tf.int64)
        exists = positions < counts[:, :, None]
        positions = tf.where(exists, starts[:, :, None] + positions, 0)
        similarities = tf.where(exists, tf.gather(self.similarities, positions), 0.0)
        near = tf.gather(self.cells[:, 1], positions)

        def weighted_sums(values: Any) -> Any:
            of_neighbours = tf.gather(tf.scatter_nd(cells, values, shape), near, batch_dims=1)
            return tf.reduce_sum(similarities * of_neighbours, axis=2)

        weights = weighted_sums(given) + tf.gather(self.damping, candidates)
        return weighted_sums(self._residuals(items, ratings, given)) / weights

    def _residuals(self, items: Any, ratings: Any, given: Any) -> Any:
        """The residuals from the baseline, 0 for padding: float32[B, L]."""
        departures = (ratings - tf.gather(self.item_mean, items)) * given
        count = tf.reduce_sum(given, axis=1, keepdims=True)
        bias = tf.reduce_sum(departures, axis=1, keepdims=True) / (count + self.user_damping)
        return (departures - bias) * given

    def store_ratings(self, profiles: Profiles) -> None:
        """Stores the ratings of all users, from which vectors are computed on request."""
        self.rated.assign(profiles.items)
        self.stars.assign(profiles.ratings)
        self.starts.assign(profiles.indptr)

    def ratings_of(self, users: Any) -> tuple[Any, Any]:
        """Looks up padded ratings of known users: int32[B] → int32[B, L], float32[B, L]."""
        first = tf.gather(self.starts, users)
        count = tf.gather(self.starts, users + 1) - first
        positions = tf.range(tf.maximum(tf.reduce_max(count), 1))[None]
        given = positions < count[:, None]
        positions = tf.where(given, first[:, None] + positions, 0)
        items = tf.where(given, tf.gather(self.rated, positions), PADDING)
        return items, tf.where(given, tf.gather(self.stars, positions), 0.0)
