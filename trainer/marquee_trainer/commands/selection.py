"""Selects the models to train by `--models`, `--exclude` and `--budget`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from marquee_trainer.commands.settings import ModelSettings
from marquee_trainer.models.configurations import ConfigurationError, model_factories
from marquee_trainer.models.registry import MODELS_BY_NAME

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
_UNIT_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class ModelSelection:
    """Which models to train.

    Attributes:
        names: Their names, in the order of the registry; by default all.
        seconds: The time limit of the run; None for no limit.
    """

    names: tuple[str, ...] = tuple(MODELS_BY_NAME)
    seconds: float | None = None

    def after(self, elapsed_s: float) -> ModelSelection:
        """The same models with the time that is left after some seconds, which may be none."""
        if self.seconds is None:
            return self
        return replace(self, seconds=max(0.0, self.seconds - elapsed_s))


def select_models(settings: ModelSettings) -> ModelSelection:
    """Selects the models that a command's settings name.

    Raises:
        ConfigurationError: A name is unknown, no model is left, the budget is not a duration, or
            the file of hyperparameters cannot be used.
    """
    chosen, excluded = _names(settings.models), _names(settings.exclude)
    names = tuple(
        name
        for name in MODELS_BY_NAME
        if name in (chosen or MODELS_BY_NAME) and name not in excluded
    )
    if not names:
        raise ConfigurationError("--models and --exclude leave no model to train")
    if settings.config:
        # A damaged file is reported before the ratings are read; their number does not matter then.
        model_factories(0, settings.config, names)
    seconds = parse_duration(settings.budget, "--budget") if settings.budget else None
    return ModelSelection(names, seconds)


def parse_duration(text: str, option: str) -> float:
    """Reads a duration such as 90s, 10m, 1.5h or, in seconds, 90.

    Args:
        text: The duration.
        option: The option whose value it is, for the error message.

    Returns:
        The duration in seconds.

    Raises:
        ConfigurationError: The text is not a duration, or the duration is 0.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNIT_S[match[2]] if match else 0.0
    if not seconds:
        raise ConfigurationError(f"{option}: {text!r} is not a duration such as 90s, 10m or 2h")
    return seconds


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in MODELS_BY_NAME]
    if unknown:
        raise ConfigurationError(
            f"there is no model {unknown[0]!r}; the models are {', '.join(MODELS_BY_NAME)}"
        )
    return names
