"""iALS: matrix factorization of who likes what, every item counted (Hu, Koren, Volinsky, 2008)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from scipy.linalg.lapack import dposv

from marquee_core.arrays import Float32, Float64, Int32, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.item_weights import history, liking
from marquee_core.scorers.neighbours import RowMatrix
from marquee_core.scorers.scorer import ReleaseData

_FACTORS = "factors.npy"


@dataclass(frozen=True)
class IALSConfig:
    """iALS, in the form of Rendle, Krichene, Zhang and Koren (2022).

    Attributes:
        dimensions: k, length of the factors.
        minimum_stars: A rating of at least so many stars counts as liking.
        unobserved_weight: α, weight of each (user, item) that is not liked; a liked one weighs 1
            more.
        regularisation: λ; a row with n likes among m columns is penalised by λ (n + α m).
        sweeps: How often both sides are solved for.
    """

    dimensions: int = 32
    minimum_stars: float = 4.0
    unobserved_weight: float = 0.6
    regularisation: float = 0.01
    sweeps: int = 8

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ValueError(f"dimensions: {self.dimensions} is below 1")
        if self.sweeps < 1:
            raise ValueError(f"sweeps: {self.sweeps} is below 1")
        if not np.isfinite(self.minimum_stars):
            raise ValueError(f"minimum_stars: {self.minimum_stars} is not finite")
        for name in ("unobserved_weight", "regularisation"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is not finite and above 0")


def solve_rows(liked: RowMatrix, factors: Float32, gram: Float64, config: IALSConfig) -> Float32:
    """The factors of rows, given those of the columns; zero for a row without likes.

    x_u = (α YᵀY + Σ_{i liked} y_i y_iᵀ + λ (n_u + α m) I)⁻¹ Σ_{i liked} y_i, where Y are the
    factors of the m columns (Rendle et al., 2022, equation 3 with ν = 1).

    Args:
        liked: 1 for each like (float32, B × m).
        factors: Y (float32, m × k).
        gram: YᵀY (float64, k × k).
        config: α and λ.

    Returns:
        x (float32, B × k).

    Raises:
        LinAlgError: A matrix is not positive definite, or a number too large.
    """
    solved = np.zeros((liked.shape[0], factors.shape[1]), dtype=np.float32)
    shared = config.unobserved_weight * gram
    unobserved = config.unobserved_weight * len(factors)
    for row, (start, end) in enumerate(pairwise(liked.indptr.tolist())):
        if start == end:
            continue
        # In double precision, or rounding outweighs a small penalty.
        own = factors[liked.indices[start:end]].astype(np.float64)
        normal = shared + own.T @ own
        normal.flat[:: len(normal) + 1] += config.regularisation * (end - start + unobserved)
        right = own.sum(axis=0)
        # The transpose is the same matrix in the column order of LAPACK.
        _, solved[row], failed = dposv(normal.T, right, overwrite_a=True, overwrite_b=True)
        if failed:
            raise np.linalg.LinAlgError(f"row {row}: not positive definite")
    if not np.isfinite(solved).all():
        raise np.linalg.LinAlgError("not every factor is finite")
    return solved


def liked_items(profiles: Profiles, item_count: int, minimum_stars: float) -> RowMatrix:
    """Who likes what: 1 for each rating of at least `minimum_stars` (float32, B × items)."""
    return history(profiles, liking(profiles.ratings, minimum_stars, 0.0), item_count)


class IALSScorer:
    """Scores x_u · y_i. A user's factors are always solved for, so all users are one case."""

    output = Output.AFFINITY

    def __init__(self, data: ReleaseData, config: IALSConfig, factors: Float32) -> None:
        """Takes the training ratings, the configuration and y (float32, items × k)."""
        self.config = config
        self._factors = factors
        self._item_count = data.matrix.item_count
        wide = factors.astype(np.float64)
        self._gram: Float64 = wide.T @ wide
        lengths = np.linalg.norm(factors, axis=1, keepdims=True)
        self._unit: Float32 = (factors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Reads what `save` wrote.

        Raises:
            ArtifactError: A file is not what it should be.
        """
        config = load_config(folder, IALSConfig)
        shape = (data.matrix.item_count, config.dimensions)
        factors = load_array(folder / _FACTORS, np.float32, shape)
        if not np.isfinite(factors).all():
            raise ArtifactError(f"{_FACTORS}: not every value is finite")
        return cls(data, config, factors)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the factors to a folder."""
        save_config(folder, self.config)
        save_array(folder / _FACTORS, self._factors)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        liked = liked_items(profiles, self._item_count, self.config.minimum_stars)
        users = solve_rows(liked, self._factors, self._gram, self.config)
        factors = self._factors if items is None else self._factors[items]
        scores: Float32 = users @ factors.T
        return scores

    def similarities(self, item: int) -> Float32 | None:
        """Cosines of the factors; 1 to itself."""
        row: Float32 = np.clip(self._unit @ self._unit[item], -1.0, 1.0)
        row[item] = 1.0
        return row
