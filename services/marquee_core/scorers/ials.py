"""iALS: matrix factorization of implicit feedback (Hu, Koren and Volinsky, 2008).

A like is a preference of 1, and an unobserved item is a preference of 0 with a lower confidence.
As an extension, a dislike is a preference of −1 with a separate confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from scipy.linalg.lapack import dposv

from marquee_core.arrays import Float32, Float64, Int32, load_array, save_array, transposed
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.fold_in_cache import FoldInCache
from marquee_core.scorers.hyperparameters import (
    FiniteFloat,
    ModelConfig,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Search,
)
from marquee_core.scorers.item_weights import (
    feedback_values,
    histories,
    prior_weights,
    recency_weights,
)
from marquee_core.scorers.scorer import RatedEvidence, ReleaseData
from marquee_core.scorers.sparse import RowMatrix, SparseRows

_FACTORS = "factors.npy"
# Number of users whose factors are cached: a few batches.
_MAX_FOLDED = 256


@dataclass(frozen=True)
class IALSConfig(ModelConfig):
    """The hyperparameters of iALS, in the form of Rendle, Krichene, Zhang and Koren (2022).

    Attributes:
        factors: k, the number of latent factors.
        minimum_stars: The lowest rating that is a like, in stars. Dislikes take precedence.
        dislike_weight: d, the confidence in a dislike when users are scored, relative to that in a
            like. The rating scale determines which ratings are dislikes; see
            `marquee_core.ratings.dislike_limit`.
        dislike_decay: g; when users are scored, the confidence in a dislike with n later ratings of
            the same user is d (1 + n / 2)^−g.
        fitted_dislike_weight: The confidence in a dislike during fitting; with 0 a dislike is
            treated as unobserved.
        unobserved_weight: α, the weight of the squared score of every (user, item) pair, relative
            to the squared error of a like.
        regularisation: λ; a row of m columns whose likes and dislikes have the total confidence n
            has the L2 penalty λ (n + α m).
        sweeps: The number of times that both sides are solved for.
    """

    factors: Annotated[PositiveInt, Search(16, 256)] = 32
    minimum_stars: FiniteFloat = 4.0
    dislike_weight: PositiveFloat = 0.1
    dislike_decay: NonNegativeFloat = 1.0
    fitted_dislike_weight: NonNegativeFloat = 0.0
    unobserved_weight: Annotated[PositiveFloat, Search(0.1, 1.5)] = 0.6
    regularisation: Annotated[PositiveFloat, Search(0.002, 0.03)] = 0.01
    sweeps: PositiveInt = 8


@dataclass(frozen=True)
class Prior:
    """The average like of the training users, a substitute for missing likes of a user.

    It has the same purpose as the prior of `HistoryScorer`.

    Attributes:
        normal: Σ_i p̄_i y_i y_iᵀ, where p̄_i is the share of item i in all likes (float64, k × k).
        right: Σ_i p̄_i y_i (float64, k).
    """

    normal: Float64
    right: Float64

    @classmethod
    def of(cls, shares: Float64, factors: Float64) -> Self:
        """Computes the sums.

        Args:
            shares: p̄ (float64, items).
            factors: y (float64, items × k).
        """
        weighted = factors * shares[:, None]
        return cls(factors.T @ weighted, weighted.sum(axis=0))


def normal_equations(
    columns: Int32, values: Float32, factors: Float32, gram: Float64, config: IALSConfig
) -> tuple[Float64, Float64]:
    """Computes the linear system A x = b of one row, given the factors of the columns.

    A = α YᵀY + Σ_i |v_i| y_i y_iᵀ + λ (Σ_i |v_i| + α m) I and b = Σ_i v_i y_i over the observed
    columns i: a preference sign(v_i) with the confidence |v_i| (Rendle et al., 2022, equation 3
    with ν = 1, where all v_i are 1).

    Args:
        columns: The observed columns (int32, n).
        values: v, the value of each: 1 for a like, negative for a dislike (float32, n).
        factors: Y, the factors of the columns (float32, m × k).
        gram: YᵀY (float64, k × k).
        config: The configuration with α and λ.

    Returns:
        A (float64, k × k) and b (float64, k).
    """
    # In double precision, because a small penalty would vanish in the rounding error of float32.
    observed_factors = factors[columns].astype(np.float64)
    confidences = np.abs(values).astype(np.float64)
    normal = config.unobserved_weight * gram + (observed_factors.T * confidences) @ observed_factors
    likes = float(confidences.sum()) + config.unobserved_weight * len(factors)
    normal.flat[:: len(normal) + 1] += config.regularisation * likes
    return normal, values.astype(np.float64) @ observed_factors


def solve_rows(
    feedback: RowMatrix | SparseRows,
    factors: Float32,
    gram: Float64,
    config: IALSConfig,
    prior: tuple[Prior, Float32] | None = None,
) -> Float32:
    """Solves for the factors of rows, given those of the columns; 0 for a row without feedback.

    Args:
        feedback: The value of each like and dislike: see `normal_equations` (float32, B × m).
        factors: Y, the factors of the columns (float32, m × k).
        gram: YᵀY (float64, k × k).
        config: The configuration with α and λ.
        prior: The average like, and its weight in each row (float32, B); None for no prior.

    Returns:
        x, the factors of the rows (float32, B × k).

    Raises:
        LinAlgError: A matrix is not positive definite, or a solution is not finite.
    """
    solved = np.zeros((len(feedback.indptr) - 1, factors.shape[1]), dtype=np.float32)
    for row, (start, end) in enumerate(pairwise(feedback.indptr.tolist())):
        if start == end:
            continue
        observed = slice(start, end)
        normal, right = normal_equations(
            feedback.indices[observed], feedback.data[observed], factors, gram, config
        )
        if prior is not None and prior[1][row]:
            _add_prior(normal, right, prior[0], float(prior[1][row]), config)
        # The transpose is the same matrix in LAPACK's column-major order.
        _, solved[row], failed = dposv(normal.T, right, overwrite_a=True, overwrite_b=True)
        if failed:
            raise np.linalg.LinAlgError(f"row {row}: the matrix is not positive definite")
    if not np.isfinite(solved).all():
        raise np.linalg.LinAlgError("a factor is not finite")
    return solved


def _add_prior(
    normal: Float64, right: Float64, prior: Prior, weight: float, config: IALSConfig
) -> None:
    """Adds a weighted prior to a linear system, in place."""
    normal += weight * prior.normal
    normal.flat[:: len(normal) + 1] += config.regularisation * weight
    right += weight * prior.right


def preference_values(
    ratings: Float32, config: IALSConfig, dislike_weight: float, dislike_limit: float
) -> Float32:
    """Converts ratings to preferences: 1 for a like, −d for a dislike, 0 otherwise.

    Args:
        ratings: Ratings in stars (float32, any shape).
        config: The configuration, which defines a like.
        dislike_weight: d, the confidence in a dislike.
        dislike_limit: The highest rating that is a dislike, in stars; −∞ if there are none.

    Returns:
        The preferences (float32, the shape of `ratings`).
    """
    return feedback_values(ratings, config.minimum_stars, 0.0, -dislike_weight, dislike_limit)


class IALSScorer:
    """Scores x_u · y_i.

    Every user's factors are solved for from the user's profile, so known users and visitors are
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
        self._transposed = transposed(factors)
        self._item_count = data.matrix.item_count
        factors64 = factors.astype(np.float64)
        self._gram: Float64 = factors64.T @ factors64
        self._dislike_limit = data.dislike_limit
        likes = self._values(data.matrix.all_profiles()) > 0
        counts = np.bincount(data.matrix.items[likes], minlength=self._item_count)
        self._prior = Prior.of(counts / max(1, counts.sum()), factors64)
        # In a large catalogue, candidates are retrieved by one call and ranked by another.
        self._folded = FoldInCache(_MAX_FOLDED)
        norms = np.linalg.norm(factors, axis=1, keepdims=True)
        self._unit: Float32 = (factors / np.where(norms > 0, norms, 1.0)).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads a scorer written by `save`.

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
        if items is None:
            # All items are scored by one call, so that nothing is gained by caching the factors.
            whole: Float32 = self._solve(profiles) @ self._transposed
            return whole
        scores: Float32 = self._user_factors(profiles) @ self._factors.take(items, axis=0).T
        return scores

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        scores: Float32 = self._factors[items] @ self._user_factors(profiles)[:, :, None]
        return scores[:, :, 0]

    def item_products(self) -> Float32 | None:
        """See `ScoresByProduct.item_products`."""
        return self._factors

    def user_products(self, profiles: Profiles) -> Float32:
        """See `ScoresByProduct.user_products`."""
        return self._user_factors(profiles)

    def _user_factors(self, profiles: Profiles) -> Float32:
        """Returns x of each user (float32, B × k)."""
        return self._folded.get(profiles, self._solve)

    def _solve(self, profiles: Profiles) -> Float32:
        """Solves for x of each user (float32, B × k)."""
        values = self._values(profiles)
        rows = histories(profiles, values, self._item_count)
        prior = self._prior, prior_weights(profiles, values)
        return solve_rows(rows, self._factors, self._gram, self.config, prior)

    def similarities(self, item: int) -> Float32:
        """See `ComparesItems.similarities`; the cosine similarity of the factors."""
        row: Float32 = np.clip(self._unit @ self._unit[item], -1.0, 1.0)
        row[item] = 1.0
        return row

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """See `ExplainsByItems.rated_evidence`.

        The score y_iᵀ A⁻¹ b is linear in b: each rated item j contributes v_j y_iᵀ A⁻¹ y_j, and
        the remainder is the contribution of the prior.
        """
        values = self._values(profile)
        rated, rated_values = profile.items[values != 0], values[values != 0]
        if not len(rated):
            nothing = np.empty(0, np.float32)
            return [RatedEvidence.largest(rated, None, nothing, 0.0, count) for _ in items]
        normal, right = normal_equations(
            rated, rated_values, self._factors, self._gram, self.config
        )
        prior = np.zeros_like(right)
        share = float(prior_weights(profile, values)[0])
        _add_prior(normal, prior, self._prior, share, self.config)
        # y_iᵀ A⁻¹ of all explained items (n × k).
        projected = np.linalg.solve(normal, self._factors[items].astype(np.float64).T).T
        contributions = (projected @ self._factors[rated].astype(np.float64).T) * rated_values
        remainders = projected @ prior
        return [
            RatedEvidence.largest(
                rated,
                np.clip(self._unit[rated] @ self._unit[item], -1.0, 1.0),
                contributions[row],
                float(remainders[row]),
                count,
            )
            for row, item in enumerate(items.tolist())
        ]

    def _values(self, profiles: Profiles) -> Float32:
        """Returns the preference value of each rating for scoring (float32, nnz)."""
        config = self.config
        values = preference_values(
            profiles.ratings, config, config.dislike_weight, self._dislike_limit
        )
        decay = recency_weights(profiles.later_counts, config.dislike_decay)
        return np.where(values < 0, values * decay, values)
