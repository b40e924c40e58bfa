"""iALS: matrix factorization of implicit feedback (Hu, Koren and Volinsky, 2008)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from scipy.linalg.lapack import dposv

from marquee_core.arrays import Float32, Float64, Int32, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.hyperparameters import (
    FiniteFloat,
    ModelConfig,
    PositiveFloat,
    PositiveInt,
    Search,
)
from marquee_core.scorers.item_weights import feedback_weights, history_rows
from marquee_core.scorers.neighbours import RowMatrix
from marquee_core.scorers.scorer import ReleaseData

_FACTORS = "factors.npy"


@dataclass(frozen=True)
class IALSConfig(ModelConfig):
    """The hyperparameters of iALS, in the form of Rendle, Krichene, Zhang and Koren (2022).

    Attributes:
        factors: k, the number of latent factors.
        minimum_stars: The lowest rating that counts as a like, in stars.
        unobserved_weight: α, the weight of the squared score of every (user, item) pair, relative
            to the squared error of a like.
        regularisation: λ; a row with n likes among m columns has the L2 penalty λ (n + α m).
        sweeps: The number of times both sides are solved for.
    """

    factors: Annotated[PositiveInt, Search(16, 256)] = 32
    minimum_stars: FiniteFloat = 4.0
    unobserved_weight: Annotated[PositiveFloat, Search(0.1, 1.5)] = 0.6
    regularisation: Annotated[PositiveFloat, Search(0.002, 0.03)] = 0.01
    sweeps: PositiveInt = 8


def solve_rows(liked: RowMatrix, factors: Float32, gram: Float64, config: IALSConfig) -> Float32:
    """Solves for the factors of rows, given those of the columns; 0 for a row without likes.

    x_u = (α YᵀY + Σ_{i liked} y_i y_iᵀ + λ (n_u + α m) I)⁻¹ Σ_{i liked} y_i, where Y are the
    factors of the m columns (Rendle et al., 2022, equation 3 with ν = 1).

    Args:
        liked: 1 for each like (float32, B × m).
        factors: Y, the factors of the columns (float32, m × k).
        gram: YᵀY (float64, k × k).
        config: The configuration with α and λ.

    Returns:
        x, the factors of the rows (float32, B × k).

    Raises:
        LinAlgError: A matrix is not positive definite, or a solution is not finite.
    """
    solved = np.zeros((liked.shape[0], factors.shape[1]), dtype=np.float32)
    shared = config.unobserved_weight * gram
    unobserved = config.unobserved_weight * len(factors)
    for row, (start, end) in enumerate(pairwise(liked.indptr.tolist())):
        if start == end:
            continue
        # In double precision, because a small penalty is below the rounding error of float32.
        own = factors[liked.indices[start:end]].astype(np.float64)
        normal = shared + own.T @ own
        normal.flat[:: len(normal) + 1] += config.regularisation * (end - start + unobserved)
        right = own.sum(axis=0)
        # The transpose is the same matrix in LAPACK's column-major order.
        _, solved[row], failed = dposv(normal.T, right, overwrite_a=True, overwrite_b=True)
        if failed:
            raise np.linalg.LinAlgError(f"row {row}: the matrix is not positive definite")
    if not np.isfinite(solved).all():
        raise np.linalg.LinAlgError("a factor is not finite")
    return solved


def liked_items(profiles: Profiles, item_count: int, minimum_stars: float) -> RowMatrix:
    """The likes of each user: 1 for a rating of at least `minimum_stars` (float32, B × items)."""
    weights = feedback_weights(profiles.ratings, minimum_stars, indifference=0.0)
    return history_rows(profiles, weights, item_count)


class IALSScorer:
    """Scores x_u · y_i.

    The factors of every user are solved for from the profile, so known users and visitors are
    scored by the same code.
    """

    output = Output.AFFINITY

    def __init__(self, data: ReleaseData, config: IALSConfig, factors: Float32) -> None:
        """Creates a scorer from fitted item factors.

        Args:
            data: The training ratings.
            config: The configuration.
            factors: y, the factors of the items (float32, items × k).
        """
        self.config = config
        self._factors = factors
        self._item_count = data.matrix.item_count
        wide = factors.astype(np.float64)
        self._gram: Float64 = wide.T @ wide
        lengths = np.linalg.norm(factors, axis=1, keepdims=True)
        self._unit: Float32 = (factors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads what `save` wrote.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        config = load_config(folder, IALSConfig)
        shape = (data.matrix.item_count, config.factors)
        factors = load_array(folder / _FACTORS, np.float32, shape)
        if not np.isfinite(factors).all():
            raise ArtifactError(f"{_FACTORS}: a value is not finite")
        return cls(data, config, factors)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the factors to a folder."""
        save_config(folder, self.config)
        save_array(folder / _FACTORS, self._factors)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        factors = self._factors if items is None else self._factors[items]
        scores: Float32 = self._user_factors(profiles) @ factors.T
        return scores

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        scores: Float32 = self._factors[items] @ self._user_factors(profiles)[:, :, None]
        return scores[:, :, 0]

    def _user_factors(self, profiles: Profiles) -> Float32:
        """x of each user (float32, B × k)."""
        liked = liked_items(profiles, self._item_count, self.config.minimum_stars)
        return solve_rows(liked, self._factors, self._gram, self.config)

    def similarities(self, item: int) -> Float32 | None:
        """See `Scorer.similarities`: the cosines of the factors."""
        row: Float32 = np.clip(self._unit @ self._unit[item], -1.0, 1.0)
        row[item] = 1.0
        return row
