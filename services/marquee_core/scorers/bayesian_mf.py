"""Bayesian matrix factorization: the mean prediction of many samples of its posterior."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.posterior import Posterior
from marquee_core.scorers.scorer import ReleaseData

_USERS = "users.npy"


@dataclass(frozen=True)
class BayesianMFConfig:
    """Bayesian matrix factorization.

    Attributes:
        rank: k, latent factors beside the bias.
        user_noise_shape: a of α_u ~ Gamma(a, b), the precision of a user's noise, with b learned;
            1/√a is by how much users differ.
        item_noise_shape: c of γ_i ~ Gamma(c, c), by which an item's noise is more precise.
        sweeps: Gibbs sweeps in all.
        burn_in: First sweeps, which are not sampled.
        samples: S, samples kept of the sweeps after those, evenly spaced. They take
            4 S (k + 1) (2 items + users) bytes to serve.
        max_linked: Users or items, the most active or most rated, whose ratings tell of a vector
            by being there, where both are more than that. A dense matrix of that many rows and
            columns is decomposed once.
    """

    rank: int = 16
    user_noise_shape: float = 8.0
    item_noise_shape: float = 16.0
    sweeps: int = 240
    burn_in: int = 60
    samples: int = 60
    max_linked: int = 4_000

    def __post_init__(self) -> None:
        for name in ("rank", "samples", "max_linked"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is below 1")
        for name in ("user_noise_shape", "item_noise_shape"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is not finite and above 0")
        if self.burn_in < 0:
            raise ValueError(f"burn_in: {self.burn_in} is below 0")
        if self.sweeps < self.burn_in + self.samples:
            raise ValueError(f"sweeps: {self.sweeps} are fewer than burn-in and samples")

    def keeps(self, sweep: int) -> bool:
        """Whether the posterior is sampled after a sweep, counted from 0; the last always is."""
        spacing = (self.sweeps - self.burn_in) // self.samples
        until_last = self.sweeps - 1 - sweep
        return until_last % spacing == 0 and until_last // spacing < self.samples


class BayesianMFScorer:
    """Predicts the mean over samples of μ + b_is + b_us + p_us · q_is.

    In each sample a user's factors and bias are their expectation given the user's ratings and the
    sample's other parameters, so that fewer samples do than if these were sampled as well
    (Rao–Blackwell). All samples' factors side by side make one dot product.
    """

    output = Output.STARS

    def __init__(self, config: BayesianMFConfig, posterior: Posterior, users: Float32) -> None:
        """Takes what was learned.

        Args:
            config: The configuration.
            posterior: The samples of all but the users.
            users: The vector of each known user, as `Posterior.fold` gives it
                (float32, users × (S k + 1)).
        """
        self.config = config
        self._posterior = posterior
        self._users = users
        self._offsets = posterior.offsets()
        self._factors = posterior.item_factors.reshape(len(self._offsets), -1)

    @classmethod
    def of(cls, config: BayesianMFConfig, posterior: Posterior, data: ReleaseData) -> Self:
        """Folds the known users in, so that each is what a visitor with the same ratings is."""
        return cls(config, posterior, posterior.fold(data.matrix.all_profiles()))

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Maps what `save` wrote.

        Raises:
            ArtifactError: A file is not what it should be.
        """
        config = load_config(folder, BayesianMFConfig)
        shape = data.matrix.item_count, config.samples, config.rank
        posterior = Posterior.load(folder, *shape)
        width = config.samples * config.rank + 1
        users = load_array(folder / _USERS, np.float32, (data.matrix.user_count, width))
        return cls(config, posterior, users)

    def save(self, folder: Path) -> None:
        """Writes the configuration, the samples and the known users' vectors to a folder."""
        save_config(folder, self.config)
        self._posterior.save(folder)
        save_array(folder / _USERS, self._users)

    def vectors(self, profiles: Profiles) -> Float32:
        """The vector of each user, folded in where it is not known (float32, B × (S k + 1))."""
        found = np.empty((len(profiles), self._users.shape[1]), dtype=np.float32)
        known = ~profiles.folded
        found[known] = self._users[profiles.user_index[known]]
        if not known.all():
            found[~known] = self._posterior.fold(profiles.take(np.flatnonzero(~known)))
        return found

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        factors, offsets = self._factors, self._offsets
        if items is not None:
            factors, offsets = factors[items], offsets[items]
        vectors = self.vectors(profiles)
        scores: Float32 = vectors[:, :-1] @ factors.T
        scores += vectors[:, -1:]
        scores += offsets
        return scores

    def similarities(self, item: int) -> Float32 | None:
        """As `Posterior.correlations`."""
        row = self._posterior.correlations(item)
        row[item] = 1.0
        return row
