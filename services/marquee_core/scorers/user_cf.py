"""User-based collaborative filtering: predicts from the ratings of users with similar taste."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.hyperparameters import PositiveFloat
from marquee_core.scorers.neighbours import (
    CommonSums,
    CoRatings,
    NeighbourConfig,
    Neighbours,
    column_sums,
    csr_matrix,
    nearest,
)
from marquee_core.scorers.scorer import NeighbourEvidence, ReleaseData


@dataclass(frozen=True)
class UserCFConfig(NeighbourConfig):
    """The hyperparameters of user-based collaborative filtering; see also `NeighbourConfig`.

    Attributes:
        deviation_damping: λ_σ, the number of ratings at which a user's own standard deviation
            counts as much as that of all users.
    """

    neighbours: int = 200
    shrinkage: float = 30.0
    overlap_power: float = 1.0
    damping: float = 0.02
    deviation_damping: PositiveFloat = 20.0


class UserResiduals:
    """Standardised residuals z = (r − b_ui) / σ_u of all users.

    Users differ in the spread of their ratings; z makes them comparable (Herlocker et al., 1999).
    σ_u² = (Σ e² + λ_σ σ²) / (n_u + λ_σ), where σ is the root mean square of all residuals e.

    Attributes:
        data: The training ratings and their baseline.
        config: The configuration.
        ratings: z; rows are users, columns are items.
        deviations: σ_u in stars (float32, users).
    """

    def __init__(self, data: ReleaseData, config: UserCFConfig) -> None:
        """Standardises the training ratings."""
        self.data = data
        self.config = config
        matrix = data.matrix
        profiles = matrix.all_profiles()
        residuals = data.baseline.residuals(profiles)
        self._variance = float(np.mean(np.square(residuals))) if len(residuals) else 1.0
        values, self.deviations = self.standardise(profiles)
        self.ratings = CoRatings.of(
            csr_matrix(matrix.indptr, matrix.items, values, matrix.item_count)
        )

    def standardise(self, profiles: Profiles) -> tuple[Float32, Float32]:
        """Computes z of each rating (float32, nnz) and σ_u of each user in stars (float32, B)."""
        residuals = self.data.baseline.residuals(profiles)
        rows, damping = profiles.rows, self.config.deviation_damping
        squares = np.bincount(rows, np.square(residuals), minlength=len(profiles))
        variances = (squares + damping * self._variance) / (profiles.counts + damping)
        # If all residuals are 0, the variance is too; dividing by 1 leaves them 0.
        deviations = np.sqrt(np.where(variances > 0, variances, 1.0)).astype(np.float32)
        return residuals / deviations[rows], deviations

    def similarities(self, sizes: Float32, sums: CommonSums) -> Float32:
        """Computes the similarities of profiles and users.

        The similarity is 0 for a user who rated no item outside the profile: such a user cannot
        help to predict another item. A user is therefore never a neighbour of the user's own
        profile, whether that comes from the matrix or from a visitor with the same ratings.

        Args:
            sizes: The number of items in the profile, or in each profile (float32, 1 or n).
            sums: The sums of z over the common items of profiles and users.

        Returns:
            The similarities (float32, n).
        """
        similarities = self.ratings.similarities(sizes, sums, self.config)
        similarities[sums.counts == self.ratings.counts[sums.rows]] = 0.0
        return similarities


class UserCFScorer:
    """Predicts b_ui + σ_u · Σ_v s_uv z_vi / (Σ_v s_uv + δ S_u).

    The sum runs over the user's neighbours v who rated the item; s_uv is the similarity, z_vi the
    neighbour's standardised residual, S_u the total similarity of all the user's neighbours, and
    δ the damping.
    """

    output = Output.STARS

    def __init__(self, users: UserResiduals, neighbours: Neighbours) -> None:
        """Prepares the neighbours for scoring.

        Args:
            users: The standardised residuals of all users.
            neighbours: The neighbours of each known user.
        """
        self.config = users.config
        self._users = users
        self._neighbours = neighbours
        matrix = users.data.matrix
        # z as items × users, stored by user; and ones at the same places.
        self._residuals = users.ratings.rows.T
        self._ones = np.ones_like(self._residuals.data)
        self._stars = csr_matrix(matrix.indptr, matrix.items, matrix.ratings, matrix.item_count).T

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads what `save` wrote.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        neighbours = Neighbours.load(folder, data.matrix.user_count)
        return cls(UserResiduals(data, load_config(folder, UserCFConfig)), neighbours)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the neighbours to a folder."""
        save_config(folder, self.config)
        self._neighbours.save(folder)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        scores = self._users.data.baseline.score(profiles)
        for place in range(len(profiles)):
            neighbours, similarities, deviation = self._nearest(profiles, place)
            if len(neighbours):
                scores[place] += deviation * self._mean_residual(neighbours, similarities)
        return scores if items is None else scores[:, items]

    def similarities(self, item: int) -> Float32 | None:  # noqa: ARG002 - the protocol's
        """None: the model compares users, not items."""
        return None

    def neighbour_evidence(self, profile: Profiles, items: Int32) -> list[NeighbourEvidence]:
        """See `ExplainsByNeighbours.neighbour_evidence`; for a single user."""
        neighbours, similarities, deviation = self._nearest(profile, 0)
        if not len(neighbours):
            return [NeighbourEvidence(0, 0.0, 0.0) for _ in items]
        shifts = (deviation * self._mean_residual(neighbours, similarities))[items]
        part = self._stars[:, neighbours]
        totals = (part @ similarities)[items]
        part.data = np.ones_like(part.data)
        weights = (part @ similarities)[items]
        counts = (part @ np.ones_like(similarities))[items]
        means = np.divide(totals, weights, out=np.zeros_like(totals), where=weights > 0)
        rows = zip(counts.tolist(), means.tolist(), shifts.tolist(), strict=True)
        return [NeighbourEvidence(int(count), mean, shift) for count, mean, shift in rows]

    def _nearest(self, profiles: Profiles, place: int) -> tuple[Int32, Float32, np.float32]:
        """A user's neighbours, their similarities, and σ_u in stars.

        Those of a known user are looked up; for a folded-in profile they are computed.
        """
        if not profiles.needs_fold_in[place]:
            user = int(profiles.user_index[place])
            return *self._neighbours.row(user), self._users.deviations[user]
        alone = profiles.take(np.array([place]))
        values, deviations = self._users.standardise(alone)
        sums = self._users.ratings.sums(alone.items, values)
        similarities = self._users.similarities(alone.counts.astype(np.float32), sums)
        return *nearest(sums.rows, similarities, self.config.neighbours), deviations[0]

    def _mean_residual(self, neighbours: Int32, similarities: Float32) -> Float32:
        """The damped mean of the neighbours' z for each item (float32, items)."""
        weights = column_sums(self._residuals, neighbours, similarities, self._ones)
        weights += self.config.damping * similarities.sum()
        mean = column_sums(self._residuals, neighbours, similarities)
        mean /= weights
        return mean
