"""The search spaces of all models, from the declarations in their configuration classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from marquee_core.scorers.hyperparameters import ModelConfig, searched_hyperparameters
from marquee_trainer.models.registry import MODELS


@dataclass(frozen=True)
class Range:
    """The values of a hyperparameter to search.

    Attributes:
        low: The lowest value.
        high: The highest value.
        log: Whether the logarithm of the value is searched evenly, rather than the value.
        whole: Whether the values are whole numbers.
    """

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def draw(self, random: np.random.Generator) -> float:
        """Draws a value from the whole range."""
        return self._value(random.random())

    def near(self, value: float, spread: float, random: np.random.Generator) -> float:
        """Draws a value near another one.

        Args:
            value: The other value.
            spread: The standard deviation, as a share of the range.
            random: The random generator.
        """
        if self.log:
            place = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return self._value(float(np.clip(place + spread * random.standard_normal(), 0.0, 1.0)))

    def _value(self, place: float) -> float:
        """The value at a share of the range, rounded to three significant digits."""
        if self.log:
            value = self.low * (self.high / self.low) ** place
        else:
            value = self.low + (self.high - self.low) * place
        return round(value) if self.whole else float(f"{value:.3g}")


def search_space(config_type: type[ModelConfig]) -> dict[str, Range]:
    """The search space of a configuration class, by name of the hyperparameter.

    The name of a hyperparameter in a nested configuration is a path, for example `fold_in.ridge`.
    """
    return {
        name: Range(declared.search.low, declared.search.high, declared.search.log, declared.whole)
        for name, declared in searched_hyperparameters(config_type).items()
        if declared.search is not None
    }


# The search spaces of the models that have one, by model name.
SPACES: Mapping[str, Mapping[str, Range]] = {
    model_class.name: space
    for model_class in MODELS
    if (space := search_space(model_class.config_type))
}
