"""Posterior samples of Bayesian matrix factorization, and the fold-in of users.

The model is BPMF (Salakhutdinov and Mnih, 2008) with biases, r = μ + b_u + b_i + p_u · q_i + noise,
and with implicit feedback as side information as in Macau (Simm et al., 2017): the prior mean of
x_u = (p_u, b_u) is m + Σ_j β_j / √n_u over all items j that the user rated, regardless of the
stars. The noise has the precision α γ_i. During fitting, α differs between users; the fold-in uses
its expectation for a new user.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.ratings import Profiles
from marquee_core.scorers.small_systems import solve_positive_definite
from marquee_core.scorers.sparse import SparseRows

# The design matrices of all items are cached up to this size, which is that of 16,000 items with
# 60 samples.
_MAX_DESIGN_BYTES = 64 * 1024 * 1024
# Number of users folded in together, so that their linear systems fit in a core's cache.
_FOLD_USERS = 16


@dataclass(frozen=True)
class Posterior:
    """S posterior samples of all parameters except those of the users, with k factors.

    Attributes:
        item_factors: q_i (float32, items × S × k).
        item_biases: μ + b_i in stars (float32, items × S).
        item_noise: γ_i, the relative precision of an item's noise (float32, items × S).
        links: β_j, the contribution of a rated item to the user's prior mean (float32,
            items × S × (k + 1)).
        user_means: m, the prior mean of a user without ratings (float64, S × (k + 1)).
        user_precisions: Λ, the precision of the users' prior (float64, S × (k + 1) × (k + 1)).
        noise_precisions: α, the expected noise precision of a new user, in 1 / stars²
            (float64, S).
    """

    item_factors: Float32
    item_biases: Float32
    item_noise: Float32
    links: Float32
    user_means: Float64
    user_precisions: Float64
    noise_precisions: Float64

    @classmethod
    def load(cls, folder: Path, items: int, samples: int, factors: int) -> Self:
        """Loads samples written by `save`; the arrays are memory-mapped.

        Args:
            folder: The folder.
            items: The number of items in the catalogue.
            samples: S.
            factors: k.

        Raises:
            ArtifactError: A file is missing, has an unexpected shape, or contains an invalid value.
        """
        width = factors + 1
        shapes: dict[str, tuple[type[np.floating], tuple[int, ...]]] = {
            "item_factors": (np.float32, (items, samples, factors)),
            "item_biases": (np.float32, (items, samples)),
            "item_noise": (np.float32, (items, samples)),
            "links": (np.float32, (items, samples, width)),
            "user_means": (np.float64, (samples, width)),
            "user_precisions": (np.float64, (samples, width, width)),
            "noise_precisions": (np.float64, (samples,)),
        }
        arrays = {}
        for name, (dtype, shape) in shapes.items():
            arrays[name] = load_array(folder / f"{name}.npy", dtype, shape)
            if not np.isfinite(arrays[name]).all():
                raise ArtifactError(f"{name}.npy: a value is not finite")
        for name in ("item_noise", "noise_precisions"):
            if not (arrays[name] > 0).all():
                raise ArtifactError(f"{name}.npy: a value is not positive")
        if not (np.linalg.eigvalsh(arrays["user_precisions"])[:, 0] > 0).all():
            raise ArtifactError("user_precisions.npy: a matrix is not positive definite")
        return cls(**arrays)

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder.

        Raises:
            ArrayError: A value is not finite.
        """
        for field in fields(self):
            save_array(folder / f"{field.name}.npy", getattr(self, field.name))

    def offsets(self) -> Float32:
        """Returns the mean of μ + b_i over the samples, in stars (float32, items)."""
        offsets: Float32 = self.item_biases.mean(axis=1, dtype=np.float64).astype(np.float32)
        return offsets

    def fold(self, profiles: Profiles) -> Float32:
        """Folds in users: computes their vectors from their ratings.

        In each sample E[x_u] = A⁻¹ (Λ (m + Σ_j β_j / √n) + α Σ z_i y_i), A = Λ + α Σ z_i z_iᵀ,
        with z_i = √γ_i (q_i, 1) and y_i = √γ_i (r_i − μ − b_i) over the rated items. This is the
        mean of the conditional distribution that the Gibbs sampler draws users from
        (Salakhutdinov and Mnih, 2008, equations 11 to 13); without ratings, it is the prior mean.
        α is the same for all users, because inferring it from each user's ratings does not improve
        the predictions.

        Args:
            profiles: The profiles of B users.

        Returns:
            The concatenated p_u of all samples, followed by the sum of all b_u, all divided by S
            (float32, B × (S k + 1)).
        """
        samples, factors = self.item_factors.shape[1:]
        vectors = np.empty((len(profiles), samples * factors + 1), dtype=np.float32)
        for first in range(0, len(profiles), _FOLD_USERS):
            part = slice(first, first + _FOLD_USERS)
            means = self._conditional_means(profiles, part) / samples
            users = means.shape[1]
            vectors[part, :-1] = means[:-1].transpose(1, 2, 0).reshape(users, -1)
            vectors[part, -1] = means[-1].sum(axis=1)
        return vectors

    def contributions(
        self, rated: Int32, ratings: Float32, items: Int32
    ) -> tuple[Float64, Float64]:
        """Decomposes a user's predictions into the contributions of the rated items.

        A prediction is linear in E[x_u], which is linear in the terms of `fold`: rated item j
        contributes the mean over the samples of (q_i, 1)ᵀ A⁻¹ (α z_j y_j + Λ β_j / √n).

        Args:
            rated: The items that the user rated (int32, n).
            ratings: Their ratings in stars (float32, n).
            items: The predicted items (int32, t).

        Returns:
            The contributions in stars (float64, t × n), and the remainder of each prediction: the
            prediction for a user without ratings but with the same A (float64, t).
        """
        samples, factors = self.item_factors.shape[1:]
        observed = self._observed(rated, ratings)
        design = observed[:, :, :-1]
        precisions = self.user_precisions + design.transpose(0, 2, 1) @ design
        links = self.links[rated].transpose(1, 0, 2) / np.sqrt(max(1, len(rated)))
        terms = observed[:, :, -1:] * design
        terms = terms + links @ self.user_precisions
        prior = self.user_precisions @ self.user_means[:, :, None]
        targets = np.ones((samples, factors + 1, len(items)))
        targets[:, :factors] = self.item_factors[items].transpose(1, 2, 0)
        # A is symmetric, so these are (q_i, 1)ᵀ A⁻¹ of all items, transposed.
        projected = np.linalg.solve(precisions, targets).transpose(0, 2, 1) / samples
        contributions: Float64 = (projected @ terms.transpose(0, 2, 1)).sum(axis=0)
        remainders: Float64 = (projected @ prior).sum(axis=0)[:, 0]
        return contributions, remainders + self.offsets()[items]

    def correlations(self, item: int) -> Float32:
        """Returns the correlation of p_u · q_i and p_u · q_j over users drawn from the prior.

        The correlation of items i and j is Σ_s q_i Σ q_j, normalised to 1 for i = j, where Σ is the
        prior covariance of p_u in sample s. It does not depend on the basis of a sample's factors.

        Args:
            item: i, the index of the item.

        Returns:
            The correlations with all items j, from -1 to 1 (float32, items).
        """
        weighted, norms = self._weighted_factors
        row = weighted @ self.item_factors[item].ravel()
        row /= norms * norms[item]
        clipped: Float32 = np.clip(row, -1.0, 1.0)
        return clipped

    def correlations_between(self, items: Int32, others: Int32) -> Float32:
        """Returns the correlations of some items with others; see `correlations`.

        Args:
            items: The indexes of n items (int32, n).
            others: The indexes of m items (int32, m).

        Returns:
            The correlations, from -1 to 1 (float32, n × m).
        """
        weighted, norms = self._weighted_factors
        rows = self.item_factors[items].reshape(len(items), -1) @ weighted[others].T
        rows /= norms[items, None] * norms[others]
        clipped: Float32 = np.clip(rows, -1.0, 1.0)
        return clipped

    @cached_property
    def _weighted_factors(self) -> tuple[Float32, Float32]:
        """q_i Σ of all samples (float32, items × S k), and √Σ_s q_i Σ q_i (float32, items)."""
        factors = self.item_factors.shape[2]
        covariances = np.linalg.inv(self.user_precisions)[:, :factors, :factors]
        covariances = covariances.astype(np.float32)
        weighted = np.einsum("isk,skl->isl", self.item_factors, covariances, optimize=True)
        squares = np.einsum("isl,isl->i", weighted, self.item_factors)
        # An item whose factors are all 0 is uncorrelated with every other item.
        norms = np.sqrt(np.where(squares > 0, squares, 1.0)).astype(np.float32)
        return weighted.reshape(len(squares), -1), norms

    def _conditional_means(self, profiles: Profiles, part: slice) -> Float64:
        """Computes E[x_u] of some users in each sample (float64, (k + 1) × users × S)."""
        bounds = list(pairwise(profiles.indptr.tolist()))[part]
        samples, width = self.user_means.shape
        systems = np.empty((len(bounds), samples, width, width + 1), dtype=np.float32)
        for user, (start, end) in enumerate(bounds):
            observed = self._observed(profiles.items[start:end], profiles.ratings[start:end])
            np.matmul(observed[:, :, :-1].transpose(0, 2, 1), observed, out=systems[user])
        means = self._prior_means(profiles, part)
        systems[..., -1] += (self.user_precisions @ means.transpose(1, 2, 0)).transpose(2, 0, 1)
        solved = solve_positive_definite(systems, self.user_precisions)
        for user, (start, end) in enumerate(bounds):
            if start == end:
                # Exactly the prior mean, without the rounding errors of the solution.
                solved[:, user] = self.user_means.T
        return solved

    def _prior_means(self, profiles: Profiles, part: slice) -> Float32:
        """Computes m + Σ_j β_j / √n of some users in each sample (float32, users × S × (k + 1))."""
        counts = profiles.counts[part]
        first = part.start or 0
        indptr = profiles.indptr[first : first + len(counts) + 1]
        roots = np.sqrt(np.maximum(counts, 1)).astype(np.float32)
        rated = SparseRows(
            indptr - indptr[0],
            profiles.items[indptr[0] : indptr[-1]],
            np.repeat(1 / roots, counts),
            len(self.links),
        )
        means = rated.times(self.links.reshape(len(self.links), -1))
        means += self.user_means.astype(np.float32).ravel()
        return means.reshape(len(counts), *self.user_means.shape)

    def _observed(self, items: Int32, ratings: Float32) -> Float32:
        """Returns √α z and √α y of `fold` for a user's n ratings (float32, S × n × (k + 2)).

        The array is stored by item, like the factors. BLAS multiplies the transposed views without
        a copy.
        """
        design = self._design(items) if self._designs is None else self._designs.take(items, axis=0)
        design[:, :, -1] += design[:, :, -2] * ratings[:, None]
        return design.transpose(1, 0, 2)

    def _design(self, items: Int32 | slice) -> Float32:
        """Computes √(α γ_i) (q_i, 1, −μ − b_i) of items (float32, n × S × (k + 2))."""
        factors = self.item_factors[items]
        roots = np.sqrt(self.item_noise[items] * self.noise_precisions.astype(np.float32))
        design = np.empty((*roots.shape, factors.shape[2] + 2), dtype=np.float32)
        np.multiply(factors, roots[:, :, None], out=design[:, :, :-2])
        design[:, :, -2] = roots
        np.multiply(roots, -self.item_biases[items], out=design[:, :, -1])
        return design

    @cached_property
    def _designs(self) -> Float32 | None:
        """The cached `_design` of all items; None in a large catalogue."""
        return self._design(slice(None)) if self.links.nbytes <= _MAX_DESIGN_BYTES else None
