"""Numbers that ratings share, drawn in turn with the factors of a Gibbs sampler."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float64, Int64
from marquee_trainer.models.bayesian.gibbs import gamma


class RandomEffect:
    """A number for each cell of ratings, such as a user's on one day, from N(0, 1/λ).

    Attributes:
        values: In stars; 0 for cells without ratings (float64, cells).
        precision: λ, in 1 / stars².
    """

    def __init__(self, cells: Int64, count: int, random: np.random.Generator) -> None:
        """Starts from 0.

        Args:
            cells: The cell of each rating (int64, n).
            count: How many cells there are.
            random: The source of randomness.
        """
        self.values: Float64 = np.zeros(count)
        self.precision = 1.0
        self._cells = cells
        self._rated = np.bincount(cells, minlength=count) > 0
        self._random = random

    def part(self) -> Float64:
        """What it adds to each rating, in stars (float64, n)."""
        return self.values.take(self._cells)

    def draw(self, residuals: Float64, precisions: Float64) -> None:
        """Draws the values, then λ; both are conjugate.

        Args:
            residuals: The ratings less all but this effect, in stars (float64, n).
            precisions: Of the ratings' noise, in 1 / stars² (float64, n).
        """
        count = len(self.values)
        total = self.precision + np.bincount(self._cells, precisions, minlength=count)
        pulls = np.bincount(self._cells, precisions * residuals, minlength=count)
        noise = self._random.standard_normal(count) / np.sqrt(total)
        self.values = np.where(self._rated, pulls / total + noise, 0.0)
        squares = float(self.values @ self.values)
        self.precision = gamma(self._random, float(self._rated.sum()), squares)
