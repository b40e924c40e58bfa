"""Bayesian matrix factorization, fitted: samples of the posterior by Gibbs sampling."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float64
from marquee_core.scorers.bayesian_mf import BayesianMFConfig, BayesianMFScorer
from marquee_core.scorers.posterior import Posterior
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.bayesian.gibbs import GibbsSampler
from marquee_trainer.models.closed_form import ClosedFormModel
from marquee_trainer.models.model import Epoch, Fit, Training


class BayesianMF(ClosedFormModel[BayesianMFConfig, BayesianMFScorer]):
    """Samples all parameters; keeps those of the items and the priors, and folds users in.

    An epoch is a sweep. The number of sweeps is the configuration's: more of them only make the
    mean over samples more exact, so validation has nothing to choose.
    """

    name = "bayesian_mf"
    config_type = BayesianMFConfig
    scorer_type = BayesianMFScorer

    @property
    def max_epochs(self) -> int:
        """As `Model.max_epochs`: sweeps."""
        return self._config.sweeps

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`; the curve is of the mean of the samples so far."""
        config, data = self._config, training.data
        chain = GibbsSampler(
            data.matrix,
            data.baseline.mean,
            config.rank,
            (config.user_noise_shape, config.item_noise_shape),
            config.max_linked,
            training.seed,
        )
        samples = _Samples(data, config)
        curve = _Curve(training)
        for sweep in range(config.sweeps):
            chain.sweep()
            if sweep == config.burn_in:
                curve.restart()
            curve.add(chain)
            if config.keeps(sweep):
                samples.add(chain)
        self._scorer = BayesianMFScorer.of(config, samples.posterior(), data)
        return Fit(tuple(curve.epochs))

    def learn(self, data: ReleaseData) -> BayesianMFScorer:
        """As `ClosedFormModel.learn`, with the seed 0."""
        self.fit(Training(data))
        return self.scorer


class _Samples:
    """What is kept of a chain."""

    def __init__(self, data: ReleaseData, config: BayesianMFConfig) -> None:
        items, samples, rank = data.matrix.item_count, config.samples, config.rank
        self._mean = data.baseline.mean
        self._factors = np.empty((items, samples, rank), dtype=np.float32)
        self._biases = np.empty((items, samples), dtype=np.float32)
        # Items beyond the links' limit tell nothing by being rated.
        self._links = np.zeros((items, samples, rank + 1), dtype=np.float32)
        self._user_means: list[Float64] = []
        self._user_precisions: list[Float64] = []
        self._noise_shape = config.user_noise_shape
        self._noise: list[float] = []
        self._item_noise = np.empty((items, samples), dtype=np.float32)

    def add(self, chain: GibbsSampler) -> None:
        """Keeps the present sample."""
        place = len(self._noise)
        vectors, users = chain.items.vectors, chain.users
        self._factors[:, place] = vectors[:, :-1]
        self._biases[:, place] = vectors[:, -1] + self._mean
        self._item_noise[:, place] = chain.items.noise
        self._links[users.links.columns, place] = users.weights
        self._user_means.append(users.mean)
        self._user_precisions.append(users.precision)
        self._noise.append(self._noise_shape / chain.noise_rate)

    def posterior(self) -> Posterior:
        """All that was kept."""
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
    """Errors of the mean prediction of the samples so far, users' numbers sampled as well."""

    def __init__(self, training: Training) -> None:
        self.epochs: list[Epoch] = []
        self._training = training
        held_out = training.validation
        self._count = 0
        self._train: Float64 = np.zeros(training.data.matrix.rating_count)
        self._validation: Float64 = np.zeros(0 if held_out is None else len(held_out))

    def restart(self) -> None:
        """Forgets the samples so far, as the burn-in ends."""
        self._count = 0
        self._train[:] = 0.0
        self._validation[:] = 0.0

    def add(self, chain: GibbsSampler) -> None:
        """Takes a sample in, and tells of it."""
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
