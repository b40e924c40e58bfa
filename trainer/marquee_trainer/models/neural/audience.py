"""The sum of the embeddings of each item's audience, the users who rated it.

Every training step needs this product of a sparse matrix and the embeddings, and its gradient, so
it dominates the cost of training on large data. TensorFlow's product takes several times as long as
the compiled loops here: it reads two 64-bit positions for each rating, and ratings of weight 0 too.
On a GPU, TensorFlow's product is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.cores import usable_cores
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.threads import map_blocks

# Number of columns that a thread computes at a time: those of one cache line. From 32 columns on,
# TensorFlow's product uses another algorithm, which takes four to seven times as long.
_COLUMNS = 16
# With several blocks for each core, all cores finish at about the same time.
_BLOCKS_PER_CORE = 4


class AudienceSums:
    """Computes Σ_u w_ui t_u / √(n_i + c) over the audience u of each item i of n_i ratings.

    Attributes:
        weights_count: The number of weights w, one for each rating, ordered by item and user.
    """

    def __init__(self, matrix: RatingsMatrix, damping: float) -> None:
        """Orders the ratings by item.

        Args:
            matrix: The ratings.
            damping: c.
        """
        order = np.argsort(matrix.items, kind="stable")
        counts = matrix.item_counts
        self.weights_count = matrix.rating_count
        self._users = matrix.users[order]
        self._starts = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=self._starts[1:])
        self._scales = (1.0 / np.sqrt(counts + damping)).astype(np.float32)
        self._on_gpu = bool(tf.config.list_physical_devices("GPU"))
        if self._on_gpu:
            items = np.repeat(np.arange(len(counts)), counts)
            self._cells = tf.constant(np.stack([items, self._users], axis=1).astype(np.int64))
            self._cell_scales = tf.constant(self._scales[items])
            self._shape = len(counts), matrix.user_count

    def __call__(self, embeddings: Any, weights: Any) -> Any:
        """Computes the sums; differentiable with respect to the embeddings.

        Args:
            embeddings: t: float32[users, k].
            weights: w: float32[ratings].

        Returns:
            float32[items, k].
        """
        if self._on_gpu:
            return self._sparse_product(embeddings, weights)

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def product(table: Any) -> Any:
            found = tf.numpy_function(self.sums, [table, weights], tf.float32)
            found.set_shape((len(self._scales), table.shape[1]))

            def gradient(upstream: Any) -> Any:
                back = tf.numpy_function(self.gradient, [upstream, weights, table], tf.float32)
                back.set_shape(table.shape)
                return back

            return found, gradient

        return product(embeddings)

    def sums(self, embeddings: Float32, weights: Float32) -> Float32:
        """The sums; see `__call__` (float32, items × k)."""
        items = len(self._scales)
        found = np.empty((items, embeddings.shape[1]), dtype=np.float32)

        def block(first: int, last: int) -> None:
            _add_users(
                self._starts, self._users, self._scales, weights, embeddings, found, first, last
            )

        map_blocks(block, items, -(-items // (_BLOCKS_PER_CORE * usable_cores())))
        return found

    def gradient(self, upstream: Float32, weights: Float32, embeddings: Float32) -> Float32:
        """The gradient with respect to the embeddings (float32, users × k).

        Args:
            upstream: The gradient with respect to the sums (float32, items × k).
            weights: w (float32, ratings).
            embeddings: t, only for its shape (float32, users × k).
        """
        found = np.zeros_like(embeddings)

        # Threads compute different columns, so the result does not depend on their number.
        def block(first: int, last: int) -> None:
            _add_items(
                self._starts, self._users, self._scales, weights, upstream, found, first, last
            )

        map_blocks(block, embeddings.shape[1], _COLUMNS)
        return found

    def _sparse_product(self, embeddings: Any, weights: Any) -> Any:
        """The sums by TensorFlow's product."""
        cells = tf.SparseTensor(self._cells, self._cell_scales * weights, self._shape)
        parts = [
            tf.sparse.sparse_dense_matmul(cells, embeddings[:, first : first + _COLUMNS])
            for first in range(0, embeddings.shape[1], _COLUMNS)
        ]
        return tf.concat(parts, axis=1)


@njit(nogil=True)
def _add_users(
    starts: Int64,
    users: Int32,
    scales: Float32,
    weights: Float32,
    embeddings: Float32,
    sums: Float32,
    first: int,
    last: int,
) -> None:
    """Computes the sums of the items from `first` to `last`.

    Args:
        starts: The start of each item's ratings, then the end of the last one's (int64, items + 1).
        users: The user of each rating (int32, ratings).
        scales: The factor of each item (float32, items).
        weights: The weight of each rating (float32, ratings).
        embeddings: The embeddings of the users (float32, users × k).
        sums: The sums (float32, items × k); written.
        first: The first item.
        last: The end of the items.
    """
    width = embeddings.shape[1]
    for item in range(first, last):
        total = sums[item]
        for column in range(width):
            total[column] = 0.0
        for cell in range(starts[item], starts[item + 1]):
            if weights[cell] == 0.0:
                continue
            weight = scales[item] * weights[cell]
            embedding = embeddings[users[cell]]
            for column in range(width):
                total[column] += weight * embedding[column]


@njit(nogil=True)
def _add_items(
    starts: Int64,
    users: Int32,
    scales: Float32,
    weights: Float32,
    upstream: Float32,
    gradients: Float32,
    first: int,
    last: int,
) -> None:
    """Adds the gradients of the embeddings in the columns from `first` to `last`.

    For the other arguments, see `_add_users` and `AudienceSums.gradient`.
    """
    for item in range(len(scales)):
        own = upstream[item, first:last]
        for cell in range(starts[item], starts[item + 1]):
            if weights[cell] == 0.0:
                continue
            weight = scales[item] * weights[cell]
            gradient = gradients[users[cell], first:last]
            for column in range(last - first):
                gradient[column] += weight * own[column]
