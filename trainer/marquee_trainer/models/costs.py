"""The cost of fitting each model, and the order in which models are worth that time.

The costs are fitted to core-seconds measured on two cores: on MovieLens 100K, with the
hyperparameters that training uses for that many ratings, and on 1 and 10 million synthetic ratings.
`tests/trainer/models/test_costs.py` has the measurements. Early stopping alone makes fits of a
neural model differ by a factor of 1.5. Models that do not use validation ratings are refitted at
the cost of a fit, and refits that continue the first fit (`Model.start`) cost less. User- and
item-based CF also compile their kernels once per process, in about a second that is not included.
`measured_slowdown` measures the current speed of a machine. During a run, the times of the fits so
far correct the estimates, which only affect the displayed remaining time and budgets.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from marquee_trainer.threads import blas_threads

# The number of ratings to which `Cost.fit_s` refers.
_RATINGS = 72_000
# The seconds of a probe on the machine on which the costs were measured.
_PROBE_S = 0.07
_PROBES = 5


class FitSeconds(NamedTuple):
    """The durations of a model's fits.

    Attributes:
        fit_s: Seconds of a fit that chooses epochs or hyperparameters on validation ratings.
        refit_s: Seconds of a refit, which keeps these choices.
    """

    fit_s: float
    refit_s: float


@dataclass(frozen=True)
class Cost:
    """The cost of a model: setup + fit · (ratings / 72,000)^exponent.

    Attributes:
        setup_s: Seconds of a fit that do not depend on the number of ratings, such as for
            compilation.
        fit_s: Further seconds of a fit on 72,000 ratings, about as many as a first fit on MovieLens
            100K has.
        refit_share: The seconds of a refit, as a share of those of a fit.
        exponent: The exponent with which the further seconds grow with the number of ratings.
    """

    setup_s: float
    fit_s: float
    refit_share: float
    exponent: float

    def at(self, ratings: int) -> FitSeconds:
        """The durations on a number of ratings."""
        fit_s = self.setup_s + self.fit_s * (ratings / _RATINGS) ** self.exponent
        return FitSeconds(fit_s, fit_s * self.refit_share)


COSTS: Mapping[str, Cost] = {
    "ease": Cost(1.2, 6.0, 0.07, 0.8),
    "ials": Cost(0.3, 7.5, 0.085, 0.85),
    "item_cf": Cost(0.02, 0.032, 1.0, 1.0),
    "bayesian_mf": Cost(1.2, 6.5, 0.82, 0.96),
    "slit": Cost(1.0, 5.5, 0.14, 0.8),
    "mf": Cost(0.5, 8.5, 1.0, 0.92),
    "autorec": Cost(1.0, 1.8, 0.4, 1.1),
    "residual_mf": Cost(2.8, 9.0, 0.45, 1.05),
    "deep_mf": Cost(3.5, 9.0, 0.4, 1.0),
    "user_cf": Cost(0.02, 0.07, 1.0, 1.25),
    "user_autorec": Cost(0.3, 1.1, 0.45, 0.95),
}
"""The cost of each registered model, the most useful first; a small budget fits only the first
ones.

The best rankers and the best rating predictors on MovieLens come first, followed by the models that
improve the ensemble most for their time.
"""

_TYPICAL = Cost(
    statistics.median(cost.setup_s for cost in COSTS.values()),
    statistics.median(cost.fit_s for cost in COSTS.values()),
    statistics.median(cost.refit_share for cost in COSTS.values()),
    statistics.median(cost.exponent for cost in COSTS.values()),
)

SCORING = Cost(0.05, 0.5, 0.4, 1.0)
"""The cost per model of learning the ensemble; `refit_s` is that of the evaluation."""


def estimated_cost(name: str) -> Cost:
    """Returns the cost of a model; for a model without a measured cost, the median of `COSTS`."""
    return COSTS.get(name, _TYPICAL)


@cache
def measured_slowdown() -> float:
    """Measures how many times longer than in `COSTS` this machine takes, in about 0.4 s.

    The result is cached for the process.
    """
    with blas_threads(1):
        return statistics.median(_probe() for _ in range(_PROBES)) / _PROBE_S


def _probe() -> float:
    """Times a small amount of the work that fits consist of.

    It multiplies matrices, sorts, gathers rows and interprets Python code.
    """
    random = np.random.default_rng(0)
    left = random.random((384, 384), dtype=np.float32)
    values = random.random(200_000, dtype=np.float32)
    rows = random.integers(0, len(left), 40_000)
    start = time.perf_counter()
    for _ in range(12):
        left = left @ left
        left /= np.abs(left).max()
    np.argsort(values, kind="stable")
    for _ in range(2):
        left[rows].sum(axis=1)
    total = 0
    for number in range(250_000):
        total += number & 7
    return time.perf_counter() - start
