"""How hyperparameters that were tuned on some ratings are adapted to many more or far fewer.

Up to three times more or fewer ratings, they are used as they are. Beyond that:

| hyperparameters | with r times the ratings |
|---|---|
| `factors`, `hidden_units` | r^¼ times for fewer ratings; the same for more |
| `l2` of AutoRec | r^0.4 times |
| `epochs`, `patience`, `horizon` of AutoRec | r^−¼ times for more ratings; the same for fewer |
| all others | the same |

What is searched by `marquee tune` stays within its search space. Fewer ratings determine fewer
parameters; more ratings would allow more, but these would cost more for each rating. The penalty of
AutoRec is one for the whole loss, a sum over all ratings, against which it grew from MovieLens 100K
to 1M with this power. AutoRec takes more steps in an epoch on more ratings, and so needs fewer
epochs. FitWorkers penalties and learning rates are for each rating or relative to counts, and early
stopping chooses the number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TypeVar

from marquee_core.scorers.hyperparameters import ModelConfig, searched_hyperparameters

UNCHANGED = 3.0
"""The ratio of sizes up to which tuned hyperparameters are used as they are."""

_CAPACITIES = ("factors", "hidden_units")
_CAPACITY_POWER = 0.25
# By model: hyperparameters that grow with the ratings, and numbers of epochs that shrink.
_AUTORECS = ("autorec", "user_autorec")
_PENALTY_POWER = 0.4
_EPOCHS = ("epochs", "patience", "horizon")
_EPOCH_POWER = -0.25
_FEWEST_EPOCHS = 5

ConfigT = TypeVar("ConfigT", bound=ModelConfig)


def extrapolated(model: str, config: ModelConfig, ratio: float) -> dict[str, float]:
    """The hyperparameters to change for another number of ratings.

    Args:
        model: The name of the model.
        config: Its tuned configuration.
        ratio: r, the number of ratings as a multiple of those that it was tuned on, positive.
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
            # A value that was set outside of the space is not moved further away from it.
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
