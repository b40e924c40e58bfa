"""User-based collaborative filtering: what users of similar taste think of an item."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
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
    """User-based collaborative filtering; fitting and folding in use the same values.

    Attributes:
        deviation_damping: λ_σ, ratings at which a user's own deviation counts as much as that of
            all users.
    """

    neighbours: int = 200
    shrinkage: float = 30.0
    overlap_power: float = 1.0
    damping: float = 0.02
    deviation_damping: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.deviation_damping < np.inf:
            raise ValueError(f"deviation_damping: {self.deviation_damping} is not finite, above 0")


class UserResiduals:
    """Standardised residuals z = (r − b_ui) / σ_u of all users.

    Users differ in how far their ratings spread; z makes them comparable (Herlocker et al., 1999).
    σ_u² = (Σ e² + λ_σ σ²) / (n_u + λ_σ), where σ is the root mean square of all residuals e.

    Attributes:
        data: The training ratings.
        config: The configuration.
        ratings: z: rows are users, columns items.
        deviations: σ_u in stars (float32, users).
    """

    def __init__(self, data: ReleaseData, config: UserCFConfig) -> None:
        """Takes the training ratings and the configuration."""
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
        """z of each rating (float32, nnz), and σ_u of each user in stars (float32, B)."""
        residuals = self.data.baseline.residuals(profiles)
        rows, damping = profiles.rows, self.config.deviation_damping
        squares = np.bincount(rows, np.square(residuals), minlength=len(profiles))
        variances = (squares + damping * self._variance) / (profiles.counts + damping)
        # Residuals that are all 0 have no scale, and need none.
        deviations = np.sqrt(np.where(variances > 0, variances, 1.0)).astype(np.float32)
        return residuals / deviations[rows], deviations

    def similarities(self, sizes: Float32, sums: CommonSums) -> Float32:
        """Similarities of profiles and users, 0 for users who rated only the profile's items.

        Such users have nothing to say of any other item, and take no place among neighbours. So
        known users are no neighbours of themselves, whether their ratings come from the matrix or
        from a visitor.

        Args:
            sizes: How many items the profile has, or each profile (float32, 1 or n).
            sums: Of z of profiles and of users.

        Returns:
            Similarities (float32, n).
        """
        found = self.ratings.similarities(sizes, sums, self.config)
        found[sums.counts == self.ratings.counts[sums.rows]] = 0.0
        return found


class UserCFScorer:
    """Predicts b_ui + σ_u · Σ_v s_uv z_vi / (Σ_v s_uv + δ S_u).

    v are the user's neighbours who rated the item, s similarities, z standardised residuals, S_u
    the total similarity of all the user's neighbours and δ the damping.
    """

    output = Output.STARS

    def __init__(self, users: UserResiduals, neighbours: Neighbours) -> None:
        """Takes the residuals, and the neighbours of each known user."""
        self.config = users.config
        self._users = users
        self._neighbours = neighbours
        matrix = users.data.matrix
        # By column, which is to say by user: items × users.
        self._opinions = users.ratings.rows.T
        self._rated = np.ones_like(self._opinions.data)
        self._stars = csr_matrix(matrix.indptr, matrix.items, matrix.ratings, matrix.item_count).T

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Reads what `save` wrote.

        Raises:
            ArtifactError: A file is not what it should be.
        """
        neighbours = Neighbours.load(folder, data.matrix.user_count)
        return cls(UserResiduals(data, load_config(folder, UserCFConfig)), neighbours)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the neighbours to a folder."""
        save_config(folder, self.config)
        self._neighbours.save(folder)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        scores = self._users.data.baseline.score(profiles)
        for place in range(len(profiles)):
            neighbours, similarities, deviation = self._nearest(profiles, place)
            if len(neighbours):
                scores[place] += deviation * self._opinion(neighbours, similarities)
        return scores if items is None else scores[:, items]

    def similarities(self, item: int) -> Float32 | None:  # noqa: ARG002 - the protocol's
        """None: the model represents users only."""
        return None

    def neighbour_evidence(self, profile: Profiles, items: Int32) -> list[NeighbourEvidence]:
        """As `ExplainsByNeighbours.neighbour_evidence`, of one user."""
        neighbours, similarities, deviation = self._nearest(profile, 0)
        if not len(neighbours):
            return [NeighbourEvidence(0, 0.0, 0.0) for _ in items]
        shifts = (deviation * self._opinion(neighbours, similarities))[items]
        part = self._stars[:, neighbours]
        totals = (part @ similarities)[items]
        part.data = np.ones_like(part.data)
        weights = (part @ similarities)[items]
        counts = (part @ np.ones_like(similarities))[items]
        means = np.divide(totals, weights, out=np.zeros_like(totals), where=weights > 0)
        rows = zip(counts.tolist(), means.tolist(), shifts.tolist(), strict=True)
        return [NeighbourEvidence(int(count), mean, shift) for count, mean, shift in rows]

    def _nearest(self, profiles: Profiles, place: int) -> tuple[Int32, Float32, np.float32]:
        """A user's neighbours, their similarities, and σ_u; found anew for a folded profile."""
        if not profiles.folded[place]:
            user = int(profiles.user_index[place])
            return *self._neighbours.row(user), self._users.deviations[user]
        alone = profiles.take(np.array([place]))
        values, deviations = self._users.standardise(alone)
        sums = self._users.ratings.sums(alone.items, values)
        similarities = self._users.similarities(alone.counts.astype(np.float32), sums)
        return *nearest(sums.rows, similarities, self.config.neighbours), deviations[0]

    def _opinion(self, neighbours: Int32, similarities: Float32) -> Float32:
        """What neighbours think of each item, in standard deviations (float32, items)."""
        weights = column_sums(self._opinions, neighbours, similarities, self._rated)
        weights += self.config.damping * similarities.sum()
        opinion = column_sums(self._opinions, neighbours, similarities)
        opinion /= weights
        return opinion
