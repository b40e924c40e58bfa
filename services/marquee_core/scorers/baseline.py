"""The bias baseline: b_ui = μ + b_u + b_i (Koren, 2010, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.ratings import Profiles, RatingsMatrix


@dataclass(frozen=True)
class Baseline:
    """Damped biases of items and users.

    A user's bias is computed from the user's profile, so it is also defined for visitors.

    Attributes:
        mean: μ, the mean rating in stars.
        item_bias: b_i in stars (float32, items).
        user_damping: λ_u in b_u = Σ(r − μ − b_i) / (n_u + λ_u), in ratings.
    """

    mean: float
    item_bias: Float32
    user_damping: float

    @classmethod
    def fit(
        cls, matrix: RatingsMatrix, user_damping: float, item_damping: float, sweeps: int
    ) -> Baseline:
        """Fits the item biases and the user biases by alternating least squares.

        Args:
            matrix: The training ratings.
            user_damping: λ_u, in ratings.
            item_damping: λ_i, in ratings.
            sweeps: The number of times that both are refitted; at least 1.
        """
        mean = float(matrix.ratings.mean(dtype=np.float64)) if matrix.rating_count else 0.0
        users, items = matrix.users, matrix.items
        residual = matrix.ratings.astype(np.float64) - mean
        user_count = np.bincount(users, minlength=matrix.user_count) + user_damping
        item_count = matrix.item_counts + item_damping
        user_bias = np.zeros(matrix.user_count)
        item_bias = np.zeros(matrix.item_count)
        for _ in range(sweeps):
            total = np.bincount(items, residual - user_bias[users], minlength=matrix.item_count)
            item_bias = total / item_count
            total = np.bincount(users, residual - item_bias[items], minlength=matrix.user_count)
            user_bias = total / user_count
        return cls(mean, item_bias.astype(np.float32), user_damping)

    def user_bias(self, profiles: Profiles) -> Float32:
        """Returns b_u of each user (float32, B; read-only); 0 for a user without ratings."""
        return self._deviations(profiles)[0]

    def residuals(self, profiles: Profiles) -> Float32:
        """Returns r − b_ui of each rating in the profiles, in stars (float32, nnz; read-only)."""

        def compute() -> Float32:
            bias, deviations = self._deviations(profiles)
            residuals: Float32 = deviations - bias[profiles.rows]
            return residuals

        return profiles.cached(self, "residuals", compute)

    def _deviations(self, profiles: Profiles) -> tuple[Float32, Float32]:
        """Returns b_u of each user (float32, B), and r − μ − b_i of each rating (float32, nnz)."""

        def compute() -> tuple[Float32, Float32]:
            deviations: Float32 = profiles.ratings - np.float32(self.mean)
            deviations -= self.item_bias[profiles.items]
            total = np.bincount(profiles.rows, deviations, minlength=len(profiles))
            return (total / (profiles.counts + self.user_damping)).astype(np.float32), deviations

        return profiles.cached(self, "deviations", compute)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Returns b_ui in stars (float32, B × C); see `Scorer.score` for the arguments."""
        item_bias = self.item_bias if items is None else self.item_bias[items]
        scores: Float32 = self.user_bias(profiles)[:, None] + (item_bias + np.float32(self.mean))
        return scores

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """Returns b_ui of different items for each user, in stars (float32, B × C).

        Args:
            profiles: The profiles of B users.
            items: The indexes of each user's items (int32, B × C).
        """
        scores: Float32 = self.item_bias[items] + np.float32(self.mean)
        scores += self.user_bias(profiles)[:, None]
        return scores

    def save(self, folder: Path) -> None:
        """Writes the baseline to a folder."""
        save_array(folder / "item_bias.npy", self.item_bias)
        save_array(folder / "scalars.npy", np.array([self.mean, self.user_damping]))

    @classmethod
    def load(cls, folder: Path, item_count: int) -> Baseline:
        """Loads a baseline written by `save`; the array is memory-mapped.

        Raises:
            ArrayError: A file is missing or damaged, or does not have one bias per item.
        """
        mean, user_damping = load_array(folder / "scalars.npy", np.float64, (2,)).tolist()
        return cls(
            mean, load_array(folder / "item_bias.npy", np.float32, (item_count,)), user_damping
        )
