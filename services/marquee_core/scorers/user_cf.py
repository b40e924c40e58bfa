"""User-based collaborative filtering: predicts from the ratings of users with similar taste."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import (
    folds_on_request,
    load_config,
    mark_folds_on_request,
    save_config,
)
from marquee_core.scorers.hyperparameters import PositiveFloat
from marquee_core.scorers.neighbours import (
    CommonSums,
    CoRatings,
    NeighbourConfig,
    Neighbours,
    nearest,
)
from marquee_core.scorers.packed_sums import OwnSquares, integers_to_weights, weights_to_integers
from marquee_core.scorers.scorer import NeighbourEvidence, ReleaseData
from marquee_core.scorers.sparse import (
    SelectedColumns,
    csr_matrix,
)

# Up to this number of items, scoring reads only the ratings of these items.
_MAX_PAIRS = 64
# The cost of an additional rating by a neighbour, as a multiple of that of a rating of an item.
_ROW_COST = 3


@dataclass(frozen=True)
class UserCFConfig(NeighbourConfig):
    """The hyperparameters of user-based collaborative filtering; see also `NeighbourConfig`.

    Attributes:
        deviation_damping: λ_σ, the number of ratings at which a user's own variance has the same
            weight as that of all users.
    """

    neighbours: int = 200
    shrinkage: float = 30.0
    overlap_power: float = 1.0
    damping: float = 0.02
    deviation_damping: PositiveFloat = 20.0


class UserResiduals:
    """Standardised residuals z = (r − b_ui) / σ_u of all users.

    Standardising makes users with different spreads comparable (Herlocker et al., 1999).
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
        # If all residuals are 0, so is the variance; dividing by 1 leaves the residuals 0.
        deviations = np.sqrt(np.where(variances > 0, variances, 1.0)).astype(np.float32)
        return residuals / deviations[rows], deviations

    def similarities(self, sizes: Float32, sums: CommonSums) -> Float32:
        """Computes the similarities of profiles and users.

        The similarity is 0 for a user who rated no item outside the profile, because such a user
        contributes to no prediction. A user is therefore never a neighbour of the user's own
        profile, nor of a visitor with the same ratings.

        Args:
            sizes: The number of items in the profile, or in each profile (float32, 1 or n).
            sums: The sums of z over the common items of profiles and users.

        Returns:
            The similarities (float32, n).
        """
        similarities = self.ratings.similarities(sizes, sums, self.config)
        similarities[sums.counts == self.ratings.counts[sums.rows]] = 0.0
        return similarities


@dataclass(frozen=True)
class _Nearest:
    """The neighbours of one user.

    Attributes:
        users: The neighbours, ascending (int32, n).
        similarities: Their similarities, positive (float32, n).
        deviation: σ_u of the user, in stars.
    """

    users: Int32
    similarities: Float32
    deviation: np.float32


class UserCFScorer:
    """Predicts b_ui + σ_u · Σ_v s_uv z_vi / (Σ_v s_uv + δ S_u).

    The sum runs over the user's neighbours v who rated the item; s_uv is the similarity, z_vi the
    neighbour's standardised residual, S_u the total similarity of all the user's neighbours, and
    δ the damping.
    """

    output = Output.STARS

    def __init__(self, users: UserResiduals, neighbours: Neighbours | None) -> None:
        """Prepares the neighbours for scoring.

        Args:
            users: The standardised residuals of all users.
            neighbours: The neighbours of each known user; None to find them when a user is scored.
        """
        self.config = users.config
        self._users = users
        self._neighbours = neighbours
        matrix = users.data.matrix
        # z as items × users, stored by user.
        self._residuals = users.ratings.rows.T
        # Computed here, so that no request has to.
        self._packed = users.ratings.packed
        self._stars = csr_matrix(matrix.indptr, matrix.items, matrix.ratings, matrix.item_count).T

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads a scorer written by `save`.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        neighbours = None
        if not folds_on_request(folder):
            neighbours = Neighbours.load(folder, data.matrix.user_count)
        return cls(UserResiduals(data, load_config(folder, UserCFConfig)), neighbours)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the neighbours to a folder."""
        save_config(folder, self.config)
        if self._neighbours is None:
            mark_folds_on_request(folder)
        else:
            self._neighbours.save(folder)

    def without_users(self) -> Self:
        """See `FoldsOnRequest.without_users`; drops the neighbours of the known users."""
        return type(self)(self._users, None)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        if items is not None and len(items) <= _MAX_PAIRS:
            return self.score_pairs(profiles, np.tile(items, (len(profiles), 1)))
        scores = self._users.data.baseline.score(profiles)
        for row, found in enumerate(self._nearest(profiles)):
            if len(found.users):
                scores[row] += self._shifts(found)
        return scores if items is None else scores[:, items]

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        scores = self._users.data.baseline.score_pairs(profiles, items)
        if not items.size:
            return scores
        ratings = self._users.ratings
        weights = np.zeros(len(self._users.deviations), dtype=np.float32)
        integers = np.zeros(len(weights), dtype=np.uint64)
        orders = np.argsort(items, axis=1, kind="stable")
        for row, found in enumerate(self._nearest(profiles)):
            if not len(found.users):
                continue
            row_items = items[row]
            rows_size = ratings.rows_size(found.users) + ratings.width
            if ratings.columns_size(row_items) > _ROW_COST * rows_size:
                scores[row] += self._shifts(found)[row_items]
                continue
            order = orders[row]
            selected = SelectedColumns(ratings.columns, row_items[order])
            weights[found.users] = found.similarities
            integers[found.users] = weights_to_integers(found.similarities)
            totals = integers_to_weights(selected.products(integers, self._packed))
            totals += self.config.damping * found.similarities.sum()
            shifts = selected.products(weights, ratings.columns.data)
            scores[row, order] += found.deviation * shifts / totals
            weights[found.users], integers[found.users] = 0.0, 0
        return scores

    def neighbour_evidence(self, profile: Profiles, items: Int32) -> list[NeighbourEvidence]:
        """See `ExplainsByNeighbours.neighbour_evidence`."""
        (found,) = self._nearest(profile)
        neighbours, similarities = found.users, found.similarities
        if not len(neighbours):
            return [NeighbourEvidence(0, 0.0, 0.0) for _ in items]
        shifts = self._shifts(found)[items]
        part = self._stars[:, neighbours]
        totals = (part @ similarities)[items]
        part.data = np.ones_like(part.data)
        weights = (part @ similarities)[items]
        counts = (part @ np.ones_like(similarities))[items]
        means = np.divide(totals, weights, out=np.zeros_like(totals), where=weights > 0)
        rows = zip(counts.tolist(), means.tolist(), shifts.tolist(), strict=True)
        return [NeighbourEvidence(int(count), mean, shift) for count, mean, shift in rows]

    def _nearest(self, profiles: Profiles) -> list[_Nearest]:
        """Returns the neighbours of each user.

        The neighbours of a known user are looked up; those of a folded-in profile are computed.
        """
        neighbours = self._neighbours
        is_folded = profiles.needs_fold_in | (neighbours is None)
        known = np.where(is_folded, -1, profiles.user_index).tolist()
        users, sizes = self._users, profiles.counts.astype(np.float32)
        if is_folded.any():
            values, deviations = users.standardise(profiles)
            own = OwnSquares.of(values, profiles.counts)
        found = []
        for row, (start, end) in enumerate(pairwise(profiles.indptr.tolist())):
            user = known[row]
            if user >= 0 and neighbours is not None:
                found.append(_Nearest(*neighbours.row(user), users.deviations[user]))
                continue
            part = slice(start, end)
            sums = users.ratings.sums(profiles.items[part], values[part], own.vector(row, part))
            similarities = users.similarities(sizes[row : row + 1], sums)
            rows = nearest(sums.rows, similarities, self.config.neighbours)
            found.append(_Nearest(*rows, deviations[row]))
        return found

    def _shifts(self, found: _Nearest) -> Float32:
        """Returns the neighbours' contribution to the prediction of each item (float32, items)."""
        similarities = found.similarities
        selected = SelectedColumns(self._residuals, found.users)
        integers = weights_to_integers(similarities)
        weights = integers_to_weights(selected.sums(integers, self._packed))
        weights += self.config.damping * similarities.sum()
        shifts = selected.sums(similarities, self._residuals.data)
        shifts /= weights
        shifts *= found.deviation
        return shifts
