"""A random effect of groups of ratings, drawn alternately with the Gibbs sampler's factors."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float64, Int64
from marquee_trainer.models.bayesian.gibbs import gamma


class RandomEffect:
    """An effect from N(0, 1/λ) for each cell of ratings, for example a user's ratings on one day.

    Attributes:
        values: The effect of each cell in stars; 0 for a cell without ratings (float64, cells).
        precision: λ, in 1 / stars².
    """

    def __init__(self, cells: Int64, count: int, random: np.random.Generator) -> None:
        """Initialises all effects to 0.

        Args:
            cells: The cell of each rating (int64, n).
            count: The number of cells.
            random: The random generator.
        """
        self.values: Float64 = np.zeros(count)
        self.precision = 1.0
        self._cells = cells
        self._rated = np.bincount(cells, minlength=count) > 0
        self._random = random

    def part(self) -> Float64:
        """The effect on each rating, in stars (float64, n)."""
        return self.values.take(self._cells)

    def draw(self, residuals: Float64, precisions: Float64) -> None:
        """Draws the values, then λ, from their conditional distributions; both are conjugate.

        Args:
            residuals: The ratings minus everything except this effect, in stars (float64, n).
            precisions: The noise precision of each rating, in 1 / stars² (float64, n).
        """
        count = len(self.values)
        total = self.precision + np.bincount(self._cells, precisions, minlength=count)
        pulls = np.bincount(self._cells, precisions * residuals, minlength=count)
        noise = self._random.standard_normal(count) / np.sqrt(total)
        self.values = np.where(self._rated, pulls / total + noise, 0.0)
        squares = float(self.values @ self.values)
        self.precision = gamma(self._random, float(self._rated.sum()), squares)
