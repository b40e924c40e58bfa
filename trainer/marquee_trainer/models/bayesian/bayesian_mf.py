"""Fits Bayesian matrix factorization by Gibbs sampling."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from marquee_core.arrays import Float64
from marquee_core.scorers.bayesian_mf import BayesianMFConfig, BayesianMFScorer
from marquee_core.scorers.posterior import Posterior
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.bayesian.continuation import chain_parameters, continue_chain
from marquee_trainer.models.bayesian.gibbs import GibbsSampler
from marquee_trainer.models.cf_model import CFModel
from marquee_trainer.models.model import Epoch, Fit, Training


class BayesianMF(CFModel[BayesianMFConfig, BayesianMFScorer]):
    """Samples all parameters, keeps those of the items and the priors, and folds users in.

    An epoch is a Gibbs sweep. The number of sweeps is configured and not chosen on validation
    ratings, because more samples only make their mean more precise.

    Attributes:
        refit_burn_in: The share of the burn-in that a refit needs, which continues the chain of the
            earlier fit.
    """

    name = "bayesian_mf"
    config_type = BayesianMFConfig
    refit_burn_in: ClassVar[float] = 0.3

    @property
    def max_epochs(self) -> int:
        """See `Model.max_epochs`: the number of sweeps."""
        return self._config.sweeps - self._skipped_sweeps

    @property
    def _skipped_sweeps(self) -> int:
        """The sweeps of the burn-in that are omitted, because the chain continues another one."""
        burn_in = self._config.burn_in
        return burn_in - math.ceil(self.refit_burn_in * burn_in) if self.start else 0

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`; the learning curve is that of the mean over the samples so far."""
        config, data = self._config, training.data
        chain = GibbsSampler(
            data.matrix,
            data.baseline.mean,
            config.factors,
            (config.user_noise_shape, config.item_noise_shape),
            config.max_linked,
            training.seed,
        )
        if self.start:
            continue_chain(chain, self.start)
        samples = _Samples(data, config)
        curve = _Curve(training)
        for sweep in range(self._skipped_sweeps, config.sweeps):
            chain.sweep()
            if sweep == config.burn_in:
                curve.restart()
            curve.add(chain)
            if config.takes_sample(sweep):
                samples.add(chain)
        self.learned = chain_parameters(chain)
        self._scorer = BayesianMFScorer.of(config, samples.posterior(), data)
        return Fit(tuple(curve.epochs))


class _Samples:
    """Collects the samples of a chain that represent the posterior."""

    def __init__(self, data: ReleaseData, config: BayesianMFConfig) -> None:
        items, samples, factors = data.matrix.item_count, config.samples, config.factors
        self._mean = data.baseline.mean
        self._factors = np.empty((items, samples, factors), dtype=np.float32)
        self._biases = np.empty((items, samples), dtype=np.float32)
        # Items beyond the limit of `Links` have links of 0.
        self._links = np.zeros((items, samples, factors + 1), dtype=np.float32)
        self._user_means: list[Float64] = []
        self._user_precisions: list[Float64] = []
        self._noise_shape = config.user_noise_shape
        self._noise: list[float] = []
        self._item_noise = np.empty((items, samples), dtype=np.float32)

    def add(self, chain: GibbsSampler) -> None:
        """Copies the current sample of a chain."""
        position = len(self._noise)
        vectors, users = chain.items.vectors, chain.users
        self._factors[:, position] = vectors[:, :-1]
        self._biases[:, position] = vectors[:, -1] + self._mean
        self._item_noise[:, position] = chain.items.noise
        self._links[users.links.columns, position] = users.weights
        self._user_means.append(users.mean)
        self._user_precisions.append(users.precision)
        self._noise.append(self._noise_shape / chain.noise_rate)

    def posterior(self) -> Posterior:
        """Returns the posterior of all collected samples."""
        return Posterior(
            self._factors,
            self._biases,
            self._item_noise,
            self._links,
            np.stack(self._user_means),
            np.stack(self._user_precisions),
            np.array(self._noise),
        )


class _Curve:
    """The learning curve: errors of the mean prediction over the samples so far.

    Unlike in serving, the users' parameters are sampled too.
    """

    def __init__(self, training: Training) -> None:
        self.epochs: list[Epoch] = []
        self._training = training
        held_out = training.validation
        self._count = 0
        self._train: Float64 = np.zeros(training.data.matrix.rating_count)
        self._validation: Float64 = np.zeros(0 if held_out is None else len(held_out))

    def restart(self) -> None:
        """Discards the samples so far; called at the end of the burn-in."""
        self._count = 0
        self._train[:] = 0.0
        self._validation[:] = 0.0

    def add(self, chain: GibbsSampler) -> None:
        """Adds the current sample of a chain, and reports the epoch."""
        self._count += 1
        self._train += chain.residuals
        held_out = self._training.validation
        validation_mse = None
        if held_out is not None:
            predicted = chain.predict(held_out.users, held_out.items)
            self._validation += held_out.ratings - self._training.data.baseline.mean - predicted
            validation_mse = self._mse(self._validation)
        self.epochs.append(Epoch(self._mse(self._train), validation_mse))
        self._training.on_epoch(self.epochs[-1])

    def _mse(self, sums: Float64) -> float:
        return float(np.mean(np.square(sums / self._count))) if len(sums) else 0.0
