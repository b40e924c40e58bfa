"""Files of tuned configurations: what `marquee tune` writes, and training reads."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from marquee_trainer.models.model import Model
from marquee_trainer.models.registry import MODELS

# Configurations hold for up to so many times more or fewer ratings than they were tuned on.
_REACH = 3.0


class ConfigurationError(RuntimeError):
    """A file of configurations is not what it should be."""


def changed(config: Any, parameters: Mapping[str, float]) -> Any:
    """A configuration with some parameters changed; a dot leads into a configuration within.

    Raises:
        ConfigurationError: There is no such parameter, or a value is not of its kind.
    """
    for path, value in parameters.items():
        name, _, rest = path.partition(".")
        if not any(field.name == name for field in dataclasses.fields(config)):
            raise ConfigurationError(f"{type(config).__name__} has no {name!r}")
        present = getattr(config, name)
        if rest:
            config = dataclasses.replace(config, **{name: changed(present, {rest: value})})
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigurationError(f"{path}: {value!r} is no number")
        if isinstance(present, int) and not isinstance(value, int):
            raise ConfigurationError(f"{path}: {value!r} is no whole number")
        config = dataclasses.replace(config, **{name: value})
    return config


def value_of(config: Any, path: str) -> float:
    """The value of a parameter; a dot leads into a configuration within."""
    for name in path.split("."):
        config = getattr(config, name)
    value: float = config
    return value


def default_config(kind: Any) -> Any:
    """The configuration that a model has when none is given."""
    return kind.default if hasattr(kind, "default") else kind.config_type()


def model_kinds() -> dict[str, Any]:
    """The classes of all models, by name, in the order in which they are trained."""
    kinds: tuple[Any, ...] = MODELS
    return {kind.name: kind for kind in kinds}


def read_parameters(path: Path) -> dict[str, dict[str, float]]:
    """By model, the parameters in a file that `marquee tune` wrote.

    Raises:
        ConfigurationError: The file cannot be read, or is damaged.
    """
    return {name: dict(found.parameters) for name, found in read_searches(path).models.items()}


@dataclass(frozen=True)
class SearchRecord:
    """How a model's configuration was found, as `marquee tune` wrote it.

    Attributes:
        parameters: The best that was tried.
        trials: How many were tried; 0 where the file does not say.
        first_loss: Validation loss of what there was: MSE, or of models of order 1 − NDCG@10; NaN
            where the file does not say.
        best_loss: That of the best; likewise.
    """

    parameters: Mapping[str, float]
    trials: int
    first_loss: float
    best_loss: float


@dataclass(frozen=True)
class Searches:
    """How configurations were found.

    Attributes:
        split: What was searched on, in words; empty where the file does not say.
        fingerprint: That of the training ratings searched on; likewise.
        models: The search for each model.
    """

    split: str
    fingerprint: str
    models: Mapping[str, SearchRecord]


def read_searches(path: Path) -> Searches:
    """Reads how the configurations in a file were found.

    Raises:
        ConfigurationError: The file cannot be read, or is damaged.
    """
    try:
        content = json.loads(path.read_text())
        data = content.get("data", {})
        return Searches(
            str(data.get("split", "")),
            str(data.get("training_fingerprint", "")),
            {
                str(name): SearchRecord(
                    dict(entry["parameters"]),
                    int(entry.get("trials", 0)),
                    float(entry.get("first_loss", "nan")),
                    float(entry.get("validation_loss", "nan")),
                )
                for name, entry in content["models"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path}: {error!r}") from error


def packaged(ratings: int) -> Path | None:
    """The package's file for training on so many ratings; None if none was tuned near that size.

    Raises:
        ConfigurationError: A file is damaged.
    """
    best: tuple[float, Path] | None = None
    folder = Path(str(resources.files("marquee_trainer") / "models" / "configs"))
    for path in sorted(folder.glob("*.json")):
        try:
            tuned_on = float(json.loads(path.read_text())["data"]["training_ratings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{path}: {error!r}") from error
        distance = abs(math.log(max(ratings, 1) / tuned_on))
        if distance <= math.log(_REACH) and (best is None or distance < best[0]):
            best = distance, path
    return best[1] if best else None


def configuration_file(ratings: int, file: str = "") -> Path | None:
    """The file that models are configured by; see `models_for`."""
    return Path(file) if file else packaged(ratings)


def models_for(ratings: int, file: str = "") -> tuple[Callable[[], Model], ...]:
    """What makes each model, unfitted, with its tuned configuration.

    Args:
        ratings: The number of training ratings.
        file: A file that `marquee tune` wrote; empty for the package's, if it has one.

    Raises:
        ConfigurationError: The file cannot be read, or names what there is not.
    """
    path = configuration_file(ratings, file)
    tuned = read_parameters(path) if path else {}
    kinds = model_kinds()
    unknown = sorted(set(tuned) - set(kinds))
    if unknown:
        raise ConfigurationError(f"{path}: there is no model {unknown[0]!r}")
    made: list[Callable[[], Model]] = []
    for name, kind in kinds.items():
        if name not in tuned:
            made.append(kind)
            continue
        try:
            made.append(partial(kind, changed(default_config(kind), tuned[name])))
        except ValueError as error:
            raise ConfigurationError(f"{path}: {name}: {error}") from error
    return tuple(made)
