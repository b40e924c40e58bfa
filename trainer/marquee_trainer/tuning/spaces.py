"""Collects the search spaces that the models' configuration classes declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from marquee_core.scorers.hyperparameters import ModelConfig, searched_hyperparameters
from marquee_trainer.models.registry import MODELS


@dataclass(frozen=True)
class Range:
    """The range of values of a hyperparameter that is searched.

    Attributes:
        low: The lowest value.
        high: The highest value.
        log: Whether values are searched on a logarithmic scale.
        whole: Whether the values are whole numbers.
    """

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def distribution(self, *tried: float) -> BaseDistribution:
        """The range as an Optuna distribution, widened to include given values.

        Args:
            tried: The values, such as that of the first trial; positive if `log`.
        """
        low, high = min(self.low, *tried), max(self.high, *tried)
        if self.whole:
            return IntDistribution(int(low), int(high), log=self.log)
        return FloatDistribution(low, high, log=self.log)

    def start(self, value: float) -> float:
        """The value to start from: `value`, or the lowest of the range if it has no logarithm."""
        return self.low if self.log and value <= 0 else value

    def near(self, value: float, spread: float, random: np.random.Generator) -> float:
        """Draws a value of the range near another one.

        Args:
            value: The other value.
            spread: The standard deviation, as a share of the range.
            random: The random generator.
        """
        step = spread * random.standard_normal()
        if self.log:
            drawn = max(value, self.low) * (self.high / self.low) ** step
        else:
            drawn = value + step * (self.high - self.low)
        return min(max(self.rounded(drawn), self.low), self.high)

    def rounded(self, value: float) -> float:
        """Rounds a drawn value to a whole number or to three significant digits."""
        return round(value) if self.whole else float(f"{value:.3g}")


def search_space(config_type: type[ModelConfig]) -> dict[str, Range]:
    """The search space of a configuration class, by the names of the hyperparameters.

    The name of a hyperparameter in a nested configuration is a path, for example `fold_in.ridge`.
    """
    return {
        name: Range(
            declared.search.low, declared.search.high, declared.search.log, declared.is_integer
        )
        for name, declared in searched_hyperparameters(config_type).items()
        if declared.search is not None
    }


# The search spaces of the models that have one, by model name.
SPACES: Mapping[str, Mapping[str, Range]] = {
    model_class.name: space
    for model_class in MODELS
    if (space := search_space(model_class.config_type))
}
