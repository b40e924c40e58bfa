"""Reads files of tuned configurations, which `marquee tune` writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TypeVar

from marquee_core.errors import reason_of
from marquee_core.scorers.hyperparameters import ModelConfig
from marquee_trainer.models.extrapolation import extrapolated
from marquee_trainer.models.model import ConfiguredModel
from marquee_trainer.models.registry import MODELS, MODELS_BY_NAME

# Former names of hyperparameters in older files.
_FORMER_NAMES = {
    "dimensions": "factors",
    "hidden": "hidden_units",
    "rank": "factors",
    "set_dimensions": "set_factors",
}

ConfigT = TypeVar("ConfigT", bound=ModelConfig)


class ConfigurationError(RuntimeError):
    """A file of tuned configurations, or a selection of models or of a time budget, is invalid."""


def with_parameters(config: ConfigT, parameters: Mapping[str, float]) -> ConfigT:
    """Returns a configuration with some hyperparameters changed.

    Args:
        config: The configuration to start from.
        parameters: The new values. The name of a hyperparameter in a nested configuration is a
            path, for example `fold_in.ridge`.

    Raises:
        ConfigurationError: A hyperparameter does not exist, or a value has the wrong type.
        ValueError: A value is out of range.
    """
    changes: dict[str, float | ModelConfig] = {}
    for path, value in parameters.items():
        name, _, rest = path.partition(".")
        if not any(field.name == name for field in fields(config)):
            raise ConfigurationError(f"{type(config).__name__} has no hyperparameter {name!r}")
        current = changes.get(name, getattr(config, name))
        if rest and isinstance(current, ModelConfig):
            changes[name] = with_parameters(current, {rest: value})
            continue
        if rest or isinstance(current, bool) or not isinstance(current, (int, float)):
            raise ConfigurationError(f"{path}: not a number that can be tuned")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigurationError(f"{path}: {value!r} is not a number")
        if isinstance(current, int) and not isinstance(value, int):
            raise ConfigurationError(f"{path}: {value!r} is not an integer")
        changes[name] = value
    return replace(config, **changes)


def value_of(config: ModelConfig, path: str) -> float:
    """Returns the value of a hyperparameter, whose name may be a path; see `with_parameters`."""
    *nested, name = path.split(".")
    for outer in nested:
        config = getattr(config, outer)
    value: float = getattr(config, name)
    return value


@dataclass(frozen=True)
class SearchRecord:
    """The result of tuning a model.

    Attributes:
        parameters: The best values found, by name of the hyperparameter.
        trials: The number of configurations tried; 0 if the file does not say.
        first_loss: The validation loss of the configuration that the search started from: the MSE
            in squared stars, or 1 − NDCG@10 for a ranker. NaN if the file does not say.
        best_loss: The validation loss of the best configuration; NaN if the file does not say.
    """

    parameters: Mapping[str, float]
    trials: int
    first_loss: float
    best_loss: float


@dataclass(frozen=True)
class Searches:
    """The content of a file of tuned configurations.

    Attributes:
        split: A description of the split that was tuned on; empty if the file does not say.
        fingerprint: The fingerprint of the training ratings that were tuned on; empty if the file
            does not say.
        models: The result for each model, by name.
    """

    split: str
    fingerprint: str
    models: Mapping[str, SearchRecord]


def read_searches(path: Path) -> Searches:
    """Reads a file of tuned configurations. Former names of hyperparameters are replaced.

    Raises:
        ConfigurationError: The file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text())
        data = content.get("data", {})
        return Searches(
            str(data.get("split", "")),
            str(data.get("training_fingerprint", "")),
            {
                str(name): SearchRecord(
                    _current_names(entry["parameters"]),
                    int(entry.get("trials", 0)),
                    float(entry.get("first_loss", "nan")),
                    float(entry.get("validation_loss", "nan")),
                )
                for name, entry in content["models"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path}: {reason_of(error)}") from error


def read_parameters(path: Path) -> dict[str, dict[str, float]]:
    """Reads the tuned hyperparameters of each model from a file.

    Raises:
        ConfigurationError: The file is missing or damaged.
    """
    return {name: dict(record.parameters) for name, record in read_searches(path).models.items()}


@dataclass(frozen=True)
class PackagedConfiguration:
    """A file of tuned configurations in the package.

    Attributes:
        path: The file.
        ratio: The number of training ratings, relative to the number that it was tuned on.
    """

    path: Path
    ratio: float


def packaged_configuration(ratings: int) -> PackagedConfiguration:
    """Selects the packaged file that was tuned on the most similar number of training ratings.

    Args:
        ratings: The number of training ratings.

    Raises:
        ConfigurationError: A packaged file is damaged.
    """
    found: list[PackagedConfiguration] = []
    folder = Path(str(resources.files("marquee_trainer") / "models" / "tuned"))
    for path in sorted(folder.glob("*.json")):
        try:
            tuned_on = float(json.loads(path.read_text())["data"]["training_ratings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{path}: {reason_of(error)}") from error
        found.append(PackagedConfiguration(path, max(ratings, 1) / tuned_on))
    return min(found, key=lambda file: abs(math.log(file.ratio)))


def configuration_file(ratings: int, file: str = "") -> Path:
    """The file that configures the models; for the arguments, see `model_factories`."""
    return Path(file) if file else packaged_configuration(ratings).path


def model_factories(
    ratings: int, file: str = "", names: Collection[str] = tuple(MODELS_BY_NAME)
) -> tuple[Callable[[], ConfiguredModel[ModelConfig]], ...]:
    """Returns a function for each model that creates it unfitted, with its tuned configuration.

    A packaged configuration is adapted to the number of ratings; see `extrapolated`.

    Args:
        ratings: The number of training ratings.
        file: A file that `marquee tune` wrote; empty to select a packaged one.
        names: The names of the models; by default all.

    Raises:
        ConfigurationError: The file is missing or damaged, or has an unknown model, an unknown
            hyperparameter or a value that is out of range.
    """
    path = configuration_file(ratings, file)
    tuned = read_parameters(path)
    ratio = 1.0 if file else packaged_configuration(ratings).ratio
    unknown = sorted(set(tuned) - set(MODELS_BY_NAME))
    if unknown:
        raise ConfigurationError(f"{path}: there is no model {unknown[0]!r}")
    factories: list[Callable[[], ConfiguredModel[ModelConfig]]] = []
    for model_class in MODELS:
        if model_class.name not in names:
            continue
        parameters = tuned.get(model_class.name, {})
        try:
            config = with_parameters(model_class.config_type(), parameters)
            config = with_parameters(config, extrapolated(model_class.name, config, ratio))
        except ValueError as error:
            raise ConfigurationError(f"{path}: {model_class.name}: {error}") from error
        factories.append(partial(model_class, config))
    return tuple(factories)


def _current_names(parameters: Mapping[str, float]) -> dict[str, float]:
    """Replaces the former names of hyperparameters, also within paths."""
    return {
        ".".join(_FORMER_NAMES.get(part, part) for part in path.split(".")): value
        for path, value in parameters.items()
    }
