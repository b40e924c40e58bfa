"""A low-rank sketch of high-dimensional dot products, which finds the best items cheaply.

The vectors of Bayesian MF have about a thousand components, because they concatenate the factors of
all posterior samples. The samples largely agree on what distinguishes users, so the scores of the
whole catalogue lie close to a subspace of a few dozen dimensions. The sketch scores the catalogue
in that subspace; only the best items are then scored exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array, transposed
from marquee_core.errors import ArtifactError

_BASIS, _PROJECTION = "sketch_basis.npy", "sketch_projection.npy"
# The maximum number of users to whose scores the subspace is fitted.
_MAX_USERS = 2_000
# Random directions beyond the rank, and power iterations (Halko, Martinsson and Tropp, 2011).
_OVERSAMPLING, _ITERATIONS = 16, 2


@dataclass(frozen=True, eq=False)
class Sketch:
    """Approximates the products v · f_i of vectors v with the vectors f_i of all items.

    Attributes:
        basis: Q, with orthonormal columns (float32, items × r).
        projection: Fᵀ Q (float32, d × r).
    """

    basis: Float32
    projection: Float32

    @classmethod
    def of(cls, items: Float32, users: Float32, rank: int, seed: int = 0) -> Self:
        """Fits the subspace to users' scores: the leading left singular vectors of F Uᵀ.

        Args:
            items: F, the vectors of the items (float32, items × d).
            users: U, the vectors of typical users (float32, users × d).
            rank: r, the maximum number of dimensions.
            seed: The seed of the random initial directions.
        """
        step = max(1, -(-len(users) // _MAX_USERS))
        sample = users[::step]
        rank = min(rank, len(items), len(sample), items.shape[1])
        width = min(rank + _OVERSAMPLING, len(items), len(sample))
        random = np.random.default_rng(seed)
        start = random.standard_normal((len(sample), width)).astype(np.float32)
        directions: Float32 = items @ (sample.T @ start)
        basis, _ = np.linalg.qr(directions)
        for _ in range(_ITERATIONS):
            basis, _ = np.linalg.qr(items @ (sample.T @ (sample @ (items.T @ basis))))
        left, _, _ = np.linalg.svd((basis.T @ items) @ sample.T, full_matrices=False)
        basis = np.ascontiguousarray(basis @ left[:, :rank], dtype=np.float32)
        return cls(basis, (items.T @ basis).astype(np.float32))

    @classmethod
    def is_saved(cls, folder: Path) -> bool:
        """Returns whether a folder contains a sketch; releases of older versions do not."""
        return any((folder / name).exists() for name in (_BASIS, _PROJECTION))

    @classmethod
    def load(cls, folder: Path, items: int, width: int) -> Self:
        """Loads a sketch written by `save`; the arrays are memory-mapped.

        Args:
            folder: The folder.
            items: The number of items.
            width: d.

        Raises:
            ArtifactError: A file is missing or damaged, or a value is not finite.
        """
        basis = load_array(folder / _BASIS, np.float32, (items, None))
        projection = load_array(folder / _PROJECTION, np.float32, (width, basis.shape[1]))
        for name, array in ((_BASIS, basis), (_PROJECTION, projection)):
            if not np.isfinite(array).all():
                raise ArtifactError(f"{name}: a value is not finite")
        return cls(basis, projection)

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder."""
        save_array(folder / _BASIS, self.basis)
        save_array(folder / _PROJECTION, self.projection)

    def products(self, vectors: Float32, items: Int32 | None = None) -> Float32:
        """Returns the approximate products of vectors with items (float32, B × C).

        Args:
            vectors: The vectors (float32, B × d).
            items: The indexes of the items (int32, C); None for all.
        """
        projected: Float32 = vectors @ self.projection
        basis = self._transposed if items is None else self.basis.take(items, axis=0).T
        products: Float32 = projected @ basis
        return products

    @cached_property
    def _transposed(self) -> Float32:
        return transposed(self.basis)
