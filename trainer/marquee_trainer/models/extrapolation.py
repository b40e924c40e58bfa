"""Adapts tuned hyperparameters to data sets of very different size.

Up to three times as many or a third as many ratings, they are used unchanged. Beyond that:

| hyperparameters | with r times the ratings |
|---|---|
| `factors`, `hidden_units` | × r^¼ for fewer ratings; unchanged for more |
| `l2` of AutoRec | × r^0.4 |
| `epochs`, `patience`, `horizon` of AutoRec | × r^−¼ for more ratings; unchanged for fewer |
| all others | unchanged |

Hyperparameters that `marquee tune` searches stay within their search spaces. Fewer ratings
determine fewer parameters; more ratings would allow more, but at a higher cost per rating.
AutoRec's penalty applies to the whole loss, which is a sum over all ratings, and its tuned values
for MovieLens 100K and 1M grow with this power. An epoch of AutoRec has more steps on more ratings,
so fewer epochs are needed. In all other models, penalties and learning rates are per rating or
relative to counts, and early stopping chooses the number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TypeVar

from marquee_core.scorers.hyperparameters import ModelConfig, searched_hyperparameters

UNCHANGED = 3.0
"""The ratio of sizes up to which tuned hyperparameters are used unchanged."""

_CAPACITIES = ("factors", "hidden_units")
_CAPACITY_POWER = 0.25
# For AutoRec: the penalty grows with the number of ratings, and the numbers of epochs shrink.
_AUTORECS = ("autorec", "user_autorec")
_PENALTY_POWER = 0.4
_EPOCHS = ("epochs", "patience", "horizon")
_EPOCH_POWER = -0.25
_FEWEST_EPOCHS = 5

ConfigT = TypeVar("ConfigT", bound=ModelConfig)


def extrapolated(model: str, config: ModelConfig, ratio: float) -> dict[str, float]:
    """Returns the hyperparameters that change for another number of ratings, with their new values.

    Args:
        model: The name of the model.
        config: Its tuned configuration.
        ratio: r, the number of ratings relative to the number that it was tuned on, positive.
    """
    if 1 / UNCHANGED <= ratio <= UNCHANGED:
        return {}
    changes: dict[str, float] = {}
    for name, value in _numbers(config).items():
        if name in _CAPACITIES and ratio < 1:
            changes[name] = value * ratio**_CAPACITY_POWER
        elif model in _AUTORECS and name == "l2":
            changes[name] = value * ratio**_PENALTY_POWER
        elif model in _AUTORECS and name in _EPOCHS and ratio > 1:
            changes[name] = max(_FEWEST_EPOCHS, value * ratio**_EPOCH_POWER)
        else:
            continue
        searched = searched_hyperparameters(type(config)).get(name)
        if searched is not None and searched.search is not None:
            space = searched.search
            # A value that was set outside the search space is not moved further away from it.
            low, high = min(space.low, value), max(space.high, value)
            changes[name] = min(max(changes[name], low), high)
        if isinstance(value, int):
            changes[name] = round(changes[name])
    return changes


def _numbers(config: ModelConfig) -> Mapping[str, float]:
    """The hyperparameters that are numbers, by name."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
