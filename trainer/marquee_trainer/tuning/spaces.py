"""What `marquee tune` varies of each model, and between which bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Range:
    """Values of a parameter.

    Attributes:
        low: The lowest.
        high: The highest.
        log: Whether their logarithm is uniform.
        whole: Whether they are whole numbers.
    """

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def draw(self, random: np.random.Generator) -> float:
        """A value at random."""
        return self._value(random.random())

    def near(self, value: float, spread: float, random: np.random.Generator) -> float:
        """A value near another.

        Args:
            value: The other.
            spread: Standard deviation, as a share of the range.
            random: The generator.
        """
        if self.log:
            place = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return self._value(float(np.clip(place + spread * random.standard_normal(), 0.0, 1.0)))

    def _value(self, place: float) -> float:
        """The value at a share of the range, in three digits: more would be noise."""
        if self.log:
            value = self.low * (self.high / self.low) ** place
        else:
            value = self.low + (self.high - self.low) * place
        return round(value) if self.whole else float(f"{value:.3g}")


_LEAVE_ONE_OUT = {
    "dimensions": Range(16, 48, whole=True),
    "learning_rate": Range(0.003, 0.012),
    "noise_variance": Range(0.5, 1.0),
    "set_l2": Range(1.0, 10.0),
    "audience_l2": Range(10.0, 300.0),
    "audience_dropout": Range(0.2, 0.8, log=False),
    "dropout": Range(0.0, 0.5, log=False),
}
_AUTOREC = {
    "hidden": Range(50, 500, whole=True),
    "l2": Range(30.0, 600.0),
    "input_dropout": Range(0.1, 0.7, log=False),
    "learning_rate": Range(0.005, 0.02),
    "count_damping": Range(2.0, 100.0),
    "set_scale": Range(0.3, 10.0),
}
_FOLD_IN = {
    "fold_in.ridge": Range(0.3, 40.0),
    "fold_in.ridge_per_rating": Range(0.005, 0.3),
    "fold_in.bias_ridge": Range(1.0, 20.0),
}
_NEIGHBOURS = {
    "neighbours": Range(40, 300, whole=True),
    "shrinkage": Range(5.0, 200.0),
    "overlap_power": Range(0.3, 3.0, log=False),
    "damping": Range(0.005, 0.1),
}

# By model, the parameters that are varied; a dot leads into a configuration within.
SPACES: Mapping[str, Mapping[str, Range]] = {
    "user_cf": _NEIGHBOURS,
    "item_cf": _NEIGHBOURS,
    "ease": {"regularisation": Range(20.0, 300.0), "minimum_stars": Range(1.0, 4.0, log=False)},
    "slit": {
        "history_decay": Range(0.1, 1.5, log=False),
        "target_decay": Range(0.0, 1.0, log=False),
        "regularisation": Range(0.5, 30.0),
        "indifference": Range(0.0, 1.0, log=False),
    },
    "ials": {
        "dimensions": Range(16, 256, whole=True),
        "unobserved_weight": Range(0.1, 1.5),
        "regularisation": Range(0.002, 0.03),
    },
    "mf": {
        "dimensions": Range(16, 128, whole=True),
        "learning_rate": Range(0.0007, 0.004),
        "decay": Range(0.8, 1.0, log=False),
        "l2": Range(0.04, 0.12),
        **_FOLD_IN,
    },
    "deep_mf": _LEAVE_ONE_OUT,
    "residual_mf": {
        **_LEAVE_ONE_OUT,
        "factor_weight": Range(0.4, 1.0, log=False),
        "neighbour_weight": Range(0.1, 0.8, log=False),
    },
    "autorec": {
        **_AUTOREC,
        "fold_in.ridge": Range(10.0, 200.0),
        "fold_in.bias_ridge": Range(1.0, 20.0),
    },
    "user_autorec": _AUTOREC,
}
