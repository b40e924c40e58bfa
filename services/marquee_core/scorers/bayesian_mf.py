"""Bayesian matrix factorization: predictions averaged over many posterior samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import (
    folds_on_request,
    load_config,
    mark_folds_on_request,
    save_config,
)
from marquee_core.scorers.fold_in_cache import FoldInCache
from marquee_core.scorers.hyperparameters import (
    ModelConfig,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from marquee_core.scorers.posterior import Posterior
from marquee_core.scorers.scorer import RatedEvidence, ReleaseData
from marquee_core.scorers.sketch import Sketch
from marquee_core.scorers.user_vectors import user_vectors

_USERS = "users.npy"
# Number of folded-in users whose vectors are cached: a few batches.
_MAX_FOLDED = 256
# Rank of the sketch. On MovieLens 100K and 1M, half of this rank suffices for the best 20 items to
# be among the best 64 of the sketch.
_SKETCH_RANK = 48


@dataclass(frozen=True)
class BayesianMFConfig(ModelConfig):
    """The hyperparameters of Bayesian matrix factorization.

    Attributes:
        factors: k, the number of latent factors, not counting the bias.
        user_noise_shape: a in α_u ~ Gamma(a, b), the noise precision of a user in 1 / stars²; b
            is learned. The relative standard deviation of α_u over the users is 1/√a.
        item_noise_shape: c in γ_i ~ Gamma(c, c), the relative noise precision of an item.
        sweeps: The number of Gibbs sweeps, including the burn-in.
        burn_in: The number of sweeps at the start from which no samples are taken.
        samples: S, the number of samples taken after the burn-in, evenly spaced. Serving them
            takes 4 S (k + 1) (2 items + users) bytes.
        max_linked: The maximum number of users or items used as implicit feedback. If there are
            more of both, only the users and the items with the most ratings are used. Fitting
            decomposes a dense matrix with at most this many rows and columns.
    """

    factors: PositiveInt = 16
    user_noise_shape: PositiveFloat = 8.0
    item_noise_shape: PositiveFloat = 16.0
    sweeps: PositiveInt = 240
    burn_in: NonNegativeInt = 60
    samples: PositiveInt = 60
    max_linked: PositiveInt = 4_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sweeps < self.burn_in + self.samples:
            raise ValueError(f"sweeps: {self.sweeps} is less than the sum of burn_in and samples")

    def takes_sample(self, sweep: int) -> bool:
        """Returns whether a sample is taken after a sweep. The last sweep always yields a sample.

        Args:
            sweep: The number of the sweep, counted from 0.
        """
        spacing = (self.sweeps - self.burn_in) // self.samples
        until_last = self.sweeps - 1 - sweep
        return until_last % spacing == 0 and until_last // spacing < self.samples


class BayesianMFScorer:
    """Predicts the mean of μ + b_is + b_us + p_us · q_is over the samples s.

    In each sample, a user's factors and bias are replaced by their expectation given the user's
    ratings and the sample's other parameters. This needs fewer samples than drawing them
    (Rao–Blackwellisation). With the factors of all samples concatenated, the sum over the samples
    is a single dot product.
    """

    output = Output.STARS

    def __init__(
        self,
        config: BayesianMFConfig,
        posterior: Posterior,
        users: Float32 | None,
        sketch: Sketch | None = None,
    ) -> None:
        """Creates a scorer from posterior samples; `of` also folds in the known users.

        Args:
            config: The configuration.
            posterior: The samples of all parameters except those of the users.
            users: The vector of each known user, computed by `Posterior.fold`
                (float32, users × (S k + 1)); None to fold them in when they are scored.
            sketch: Approximates the products of users and items; None to compute all scores
                exactly.
        """
        self.config = config
        self._posterior = posterior
        self._users = users
        self._offsets = posterior.offsets()
        self._factors = posterior.item_factors.reshape(len(self._offsets), -1)
        self._sketch = sketch
        # Ranking and predicting the stars of a page may be two calls for the same user.
        self._folded = FoldInCache(_MAX_FOLDED)

    @classmethod
    def of(cls, config: BayesianMFConfig, posterior: Posterior, data: ReleaseData) -> Self:
        """Creates a scorer, and folds in all known users in the same way as visitors."""
        users = posterior.fold(data.matrix.all_profiles())
        factors = posterior.item_factors.reshape(data.matrix.item_count, -1)
        return cls(config, posterior, users, Sketch.of(factors, users[:, :-1], _SKETCH_RANK))

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads a scorer written by `save`; the arrays are memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        config = load_config(folder, BayesianMFConfig)
        shape = data.matrix.item_count, config.samples, config.factors
        posterior = Posterior.load(folder, *shape)
        width = config.samples * config.factors + 1
        users = None
        if not folds_on_request(folder):
            users = load_array(folder / _USERS, np.float32, (data.matrix.user_count, width))
        is_sketched = Sketch.is_saved(folder)
        sketch = Sketch.load(folder, data.matrix.item_count, width - 1) if is_sketched else None
        return cls(config, posterior, users, sketch)

    def save(self, folder: Path) -> None:
        """Writes the configuration, the samples and the known users' vectors to a folder."""
        save_config(folder, self.config)
        self._posterior.save(folder)
        if self._users is None:
            mark_folds_on_request(folder)
        else:
            save_array(folder / _USERS, self._users)
        if self._sketch is not None:
            self._sketch.save(folder)

    def without_users(self) -> Self:
        """See `FoldsOnRequest.without_users`; drops the vectors of the known users."""
        return type(self)(self.config, self._posterior, None, self._sketch)

    def vectors(self, profiles: Profiles) -> Float32:
        """Returns the vector of each user: looked up if it was trained, otherwise folded in.

        Args:
            profiles: The profiles of B users.

        Returns:
            The vectors, as from `Posterior.fold` (float32, B × (S k + 1); read-only).
        """

        def fold(folded: Profiles) -> Float32:
            return self._folded.get(folded, self._posterior.fold)

        users = self._users

        def all_vectors() -> Float32:
            return fold(profiles) if users is None else user_vectors(users, profiles, fold)

        return profiles.cached(self, "vectors", all_vectors)

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        vectors = self.vectors(profiles)
        scores = np.empty(items.shape, dtype=np.float32)
        # One user at a time, because the gathered factors of one user fit in a core's cache.
        for row, row_items in enumerate(items):
            np.matmul(self._factors.take(row_items, axis=0), vectors[row, :-1], out=scores[row])
        scores += vectors[:, -1:]
        scores += self._offsets[items]
        return scores

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        factors, offsets = self._factors, self._offsets
        if items is not None:
            factors, offsets = factors.take(items, axis=0), offsets[items]
        vectors = self.vectors(profiles)
        # In this order BLAS reads the long matrix by rows, which is up to twice as fast.
        scores: Float32 = np.ascontiguousarray((factors @ vectors[:, :-1].T).T)
        scores += vectors[:, -1:]
        scores += offsets
        return scores

    def approximate(self, profiles: Profiles, items: Int32 | None = None) -> Float32 | None:
        """See `Approximates.approximate`; None for a release without a sketch."""
        if self._sketch is None:
            return None
        vectors = self.vectors(profiles)
        scores = self._sketch.products(vectors[:, :-1], items)
        scores += vectors[:, -1:]
        scores += self._offsets if items is None else self._offsets[items]
        return scores

    def item_products(self) -> Float32 | None:
        """See `ScoresByProduct.item_products`; the vectors of the sketch, which approximates."""
        if self._sketch is None:
            return None
        return np.hstack([self._sketch.basis, self._offsets[:, None]])

    def user_products(self, profiles: Profiles) -> Float32:
        """See `ScoresByProduct.user_products`; the last column is 1."""
        assert self._sketch is not None  # noqa: S101 - `item_products` did not return None
        projected = self.vectors(profiles)[:, :-1] @ self._sketch.projection
        return np.hstack([projected, np.ones((len(profiles), 1), np.float32)])

    def similarities(self, item: int) -> Float32:
        """See `ComparesItems.similarities`; the correlations of `Posterior.correlations`."""
        row = self._posterior.correlations(item)
        row[item] = 1.0
        return row

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """See `ExplainsByItems.rated_evidence`; the formula is in `Posterior.contributions`."""
        rated = profile.items
        contributions, remainders = self._posterior.contributions(rated, profile.ratings, items)
        similarities = self._posterior.correlations_between(items, rated)
        return [
            RatedEvidence.largest(rated, similarity, contribution, remainder, count)
            for similarity, contribution, remainder in zip(
                similarities, contributions, remainders.tolist(), strict=True
            )
        ]
