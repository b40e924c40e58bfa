"""What fitting each model costs, and in which order models are worth that time.

The rates are measured with the packaged hyperparameters on MovieLens 100K, the exponents by
comparison with MovieLens 1M, both on two cores. They are for planning within a budget, where the
time of the first fits corrects them; nothing else depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from marquee_core.ratings import RatingsMatrix

# The number of ratings that the rates were measured with.
_MEASURED_RATINGS = 72_000


@dataclass(frozen=True)
class Cost:
    """The cost of a model.

    Attributes:
        fit_s: Seconds of a fit that chooses epochs or hyperparameters on validation ratings.
        refit_s: Seconds of a refit, which keeps what was chosen.
        exponent: How both grow with the number of ratings.
    """

    fit_s: float
    refit_s: float
    exponent: float

    def at(self, matrix: RatingsMatrix) -> Cost:
        """The cost of fitting on the given ratings."""
        factor = (matrix.rating_count / _MEASURED_RATINGS) ** self.exponent
        return Cost(self.fit_s * factor, self.refit_s * factor, self.exponent)


COSTS: Mapping[str, Cost] = {
    "ease": Cost(9.0, 0.4, 1.3),
    "ials": Cost(7.0, 1.2, 0.7),
    "item_cf": Cost(0.3, 0.3, 1.3),
    "bayesian_mf": Cost(12.0, 12.0, 1.1),
    "slit": Cost(8.0, 2.0, 1.3),
    "mf": Cost(11.0, 8.0, 1.4),
    "autorec": Cost(4.0, 3.0, 1.4),
    "residual_mf": Cost(8.0, 6.0, 1.3),
    "deep_mf": Cost(12.0, 9.0, 1.3),
    "user_cf": Cost(0.3, 0.3, 1.5),
    "user_autorec": Cost(5.0, 4.0, 1.3),
}
"""The cost of each registered model, the most useful first: with little time, the first are fitted.

The order puts the best rankers and the best rating predictors on MovieLens first, then what adds
most to the ensemble for its time.
"""
