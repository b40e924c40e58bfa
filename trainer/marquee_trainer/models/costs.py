"""What fitting each model costs, and in which order models are worth that time.

The costs are fitted to measurements: the CPU seconds of fits on 2,900, 12,500 and 38,000 ratings of
MovieLens 100K with the hyperparameters that training uses for so many ratings, the seconds of a
training run on MovieLens 100K, and for the exponents one on MovieLens 1M, on two cores. Half of
the 87 times at up to 100,000 ratings are met within 17 %, and 97 % within a factor of 2; early
stopping alone makes fits of a neural model differ by as much. How fast a machine is at present,
`measured_slowdown` measures. In a run, the time of the fits so far corrects both; nothing but
estimates and budgets depends on them.
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

# The number of ratings that `Cost.fit_s` is for.
_RATINGS = 72_000
# The seconds of a probe on the machine that the costs were measured on.
_PROBE_S = 0.07
_PROBES = 5


class FitSeconds(NamedTuple):
    """How long the fits of a model take.

    Attributes:
        fit_s: Seconds of a fit that chooses epochs or hyperparameters on validation ratings.
        refit_s: Seconds of a refit, which keeps what was chosen.
    """

    fit_s: float
    refit_s: float


@dataclass(frozen=True)
class Cost:
    """The cost of a model: setup + fit · (ratings / 72,000)^exponent.

    Attributes:
        setup_s: Seconds of a fit that do not depend on the ratings, such as for compiling.
        fit_s: Further seconds of a fit on 72,000 ratings, which is that of MovieLens 100K.
        refit_share: The seconds of a refit, as a share of those of a fit.
        exponent: How the further seconds grow with the number of ratings.
    """

    setup_s: float
    fit_s: float
    refit_share: float
    exponent: float

    def at(self, ratings: int) -> FitSeconds:
        """The seconds on a number of ratings."""
        fit_s = self.setup_s + self.fit_s * (ratings / _RATINGS) ** self.exponent
        return FitSeconds(fit_s, fit_s * self.refit_share)


COSTS: Mapping[str, Cost] = {
    "ease": Cost(1.2, 6.0, 0.07, 0.8),
    "ials": Cost(0.3, 9.0, 0.12, 0.75),
    "item_cf": Cost(0.02, 0.1, 1.0, 1.0),
    "bayesian_mf": Cost(1.2, 5.5, 0.9, 1.05),
    "slit": Cost(1.0, 5.5, 0.1, 0.8),
    "mf": Cost(0.5, 6.5, 1.0, 0.65),
    "autorec": Cost(1.5, 1.6, 0.6, 1.05),
    "residual_mf": Cost(2.8, 6.5, 0.75, 1.2),
    "deep_mf": Cost(3.5, 8.0, 0.85, 1.0),
    "user_cf": Cost(0.3, 0.05, 0.2, 1.3),
    "user_autorec": Cost(0.4, 1.2, 0.55, 1.0),
}
"""The cost of each registered model, the most useful first: with little time, the first are fitted.

The order puts the best rankers and the best rating predictors on MovieLens first, then what adds
most to the ensemble for its time.
"""

SCORING = Cost(0.05, 0.5, 0.4, 1.0)
"""The cost of learning the ensemble, for each model; its `refit_s` is that of the evaluation."""


@cache
def measured_slowdown() -> float:
    """How many times the seconds of `COSTS` this machine takes; about 0.4 s of work.

    A process measures it once.
    """
    with blas_threads(1):
        return statistics.median(_probe() for _ in range(_PROBES)) / _PROBE_S


def _probe() -> float:
    """The seconds of a little of the work that fits consist of.

    It multiplies matrices, sorts, gathers rows, and interprets Python.
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
