"""Types for the hyperparameters in a model's configuration.

A configuration is a frozen dataclass. The annotation of a field states the range of valid values
and the range that `marquee tune` searches:

    @dataclass(frozen=True)
    class IALSConfig(ModelConfig):
        factors: Annotated[PositiveInt, Search(16, 256)] = 32

Values are validated when the configuration is created. A subclass may redeclare a field to change
its default; the field keeps the inherited range and search space unless the new annotation
overrides them.

The module uses only the standard library, to keep the imports of the services small.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Interval:
    """The range of a hyperparameter. Infinities and NaN are never part of it.

    Attributes:
        at_least: The inclusive lower bound.
        above: The exclusive lower bound.
        at_most: The inclusive upper bound.
        below: The exclusive upper bound.
    """

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and self.at_least <= value <= self.at_most
            and self.above < value < self.below
        )

    def __str__(self) -> str:
        limits = [
            (">=", self.at_least),
            (">", self.above),
            ("<=", self.at_most),
            ("<", self.below),
        ]
        return " and ".join(f"{sign} {limit:g}" for sign, limit in limits if math.isfinite(limit))


@dataclass(frozen=True)
class Search:
    """The search space of a hyperparameter for `marquee tune`.

    Attributes:
        low: The lowest value.
        high: The highest value.
        log: Whether to sample uniformly on a logarithmic scale instead of a linear one.
    """

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True)
class NestedSearch:
    """The search spaces of the fields of a nested configuration.

    Attributes:
        spaces: The search spaces, by field name.
    """

    spaces: Mapping[str, Search]


FiniteFloat: TypeAlias = Annotated[float, Interval()]
PositiveFloat: TypeAlias = Annotated[float, Interval(above=0)]
NonNegativeFloat: TypeAlias = Annotated[float, Interval(at_least=0)]
# The share of inputs or units that dropout removes; below 1, so that some remain.
DropoutRate: TypeAlias = Annotated[float, Interval(at_least=0, below=1)]
PositiveInt: TypeAlias = Annotated[int, Interval(at_least=1)]
NonNegativeInt: TypeAlias = Annotated[int, Interval(at_least=0)]


@dataclass(frozen=True)
class Hyperparameter:
    """The declaration of a numeric field of a configuration.

    Attributes:
        is_integer: Whether its values are integers.
        interval: The range of valid values.
        search: The search space of `marquee tune`; None if the field is not tuned.
    """

    is_integer: bool
    interval: Interval = Interval()
    search: Search | None = None

    def check(self, name: str, value: object) -> None:
        """Checks a value.

        Raises:
            ValueError: The value is not a number of the right type, or is out of range.
        """
        number = math.nan
        if not isinstance(value, bool) and isinstance(value, Real):
            number = float(value)
        if number in self.interval and (isinstance(value, Integral) or not self.is_integer):
            return
        expected = "an integer" if self.is_integer else "a finite number"
        raise ValueError(f"{name}: {value!r} is not {expected} {self.interval}".rstrip())


@dataclass(frozen=True)
class ModelConfig:
    """The base class of model configurations. It validates every numeric field."""

    def __post_init__(self) -> None:
        for name, declared in hyperparameters(type(self)).items():
            declared.check(name, getattr(self, name))


def hyperparameters(config_type: type[ModelConfig]) -> Mapping[str, Hyperparameter]:
    """Returns the declarations of a configuration's numeric fields, by name and in field order.

    Fields of other types, such as nested configurations and flags, are omitted.
    """
    if config_type not in _declared:
        found: dict[str, Hyperparameter] = {}
        for name, hints in _annotations(config_type).items():
            value_type = _without_metadata(hints[-1])
            if value_type in (int, float):
                interval = _last(Interval, hints) or Interval()
                search = _last(Search, hints)
                found[name] = Hyperparameter(value_type is int, interval, search)
        _declared[config_type] = found
    return _declared[config_type]


def searched_hyperparameters(config_type: type[ModelConfig]) -> Mapping[str, Hyperparameter]:
    """Returns the hyperparameters that `marquee tune` searches, in field order.

    Fields of a nested configuration are named by their path, for example `fold_in.ridge`.
    """
    declared = hyperparameters(config_type)
    found: dict[str, Hyperparameter] = {}
    for name, hints in _annotations(config_type).items():
        within = _last(NestedSearch, hints)
        if name in declared and declared[name].search is not None:
            found[name] = declared[name]
        elif within is not None:
            nested = hyperparameters(_without_metadata(hints[-1]))
            for inner, search in within.spaces.items():
                found[f"{name}.{inner}"] = replace(nested[inner], search=search)
    return found


# A cache, because every new configuration is validated.
_declared: dict[type[ModelConfig], Mapping[str, Hyperparameter]] = {}

MetadataT = TypeVar("MetadataT")


def _annotations(config_type: type[ModelConfig]) -> Mapping[str, list[Any]]:
    """Returns the annotations of each field, from the base classes down to the class itself."""
    found: dict[str, list[Any]] = {field.name: [] for field in fields(config_type)}
    for base in reversed(config_type.__mro__):
        hints = get_type_hints(base, include_extras=True)
        for name in inspect.get_annotations(base):
            if name in found:
                found[name].append(hints[name])
    return found


def _without_metadata(annotation: Any) -> Any:
    """Returns the type of an annotation, without the metadata of `Annotated`."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _last(kind: type[MetadataT], annotations: list[Any]) -> MetadataT | None:
    """Returns the last metadata of the given type in a field's annotations; None if none has it."""
    found = None
    for annotation in annotations:
        if get_origin(annotation) is Annotated:
            for entry in get_args(annotation)[1:]:
                if isinstance(entry, kind):
                    found = entry
    return found
