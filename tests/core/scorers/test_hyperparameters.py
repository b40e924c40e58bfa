"""The types of hyperparameters: ranges, search spaces and inheritance."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.scorers.hyperparameters import (
    DropoutRate,
    FiniteFloat,
    Interval,
    ModelConfig,
    NestedSearch,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Search,
    hyperparameters,
    searched_hyperparameters,
)


@dataclass(frozen=True)
class InnerConfig(ModelConfig):
    """A nested configuration without defaults."""

    ridge: PositiveFloat
    damping: NonNegativeFloat


@dataclass(frozen=True)
class ToyConfig(ModelConfig):
    """A configuration with a field of each kind."""

    factors: Annotated[PositiveInt, Search(4, 64)] = 8
    dropout: DropoutRate = 0.0
    decay: Annotated[float, Interval(above=0, at_most=1), Search(0.5, 1.0, log=False)] = 1.0
    threshold: FiniteFloat = -1.0
    flag: bool = True
    sizes: tuple[int, ...] = (3,)
    inner: Annotated[InnerConfig, NestedSearch({"ridge": Search(1.0, 9.0)})] = field(
        default_factory=lambda: InnerConfig(2.0, 0.0)
    )


@dataclass(frozen=True)
class DerivedConfig(ToyConfig):
    """A configuration with another default and another search space."""

    factors: int = 16
    dropout: Annotated[float, Search(0.1, 0.5)] = 0.2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("factors", 0, "factors: 0 is not an integer >= 1"),
        ("factors", 2.0, "factors: 2.0 is not an integer >= 1"),
        ("factors", True, "factors: True is not an integer >= 1"),
        ("factors", "8", "factors: '8' is not an integer >= 1"),
        ("dropout", 1.0, "dropout: 1.0 is not a finite number >= 0 and < 1"),
        ("dropout", -0.1, "dropout: -0.1 is not a finite number >= 0 and < 1"),
        ("decay", 0.0, "decay: 0.0 is not a finite number > 0 and <= 1"),
        ("decay", 1.01, "decay: 1.01 is not a finite number > 0 and <= 1"),
        ("threshold", float("nan"), "threshold: nan is not a finite number"),
        ("threshold", float("inf"), "threshold: inf is not a finite number"),
        ("threshold", None, "threshold: None is not a finite number"),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, value: object, message: str) -> None:
    """The error names the field, the value and the range, and subclasses keep the range."""
    for config in (ToyConfig(), DerivedConfig()):
        with pytest.raises(ValueError, match="is not a") as error:
            replace(config, **{name: value})  # type: ignore[arg-type]
        assert str(error.value) == message


@given(st.integers(1, 99), st.floats(0, 0.99), st.floats(0.01, 1.0), st.integers(-9, 9))
def test_values_in_range_are_accepted(
    factors: int, dropout: float, decay: float, threshold: int
) -> None:
    """The bounds of a range are accepted, and so are whole numbers for floats."""
    config = ToyConfig(factors, dropout, decay, threshold)
    assert (config.factors, config.threshold) == (factors, threshold)
    assert ToyConfig(factors=1, dropout=0, decay=1).decay == 1


def test_only_numbers_are_hyperparameters() -> None:
    """Flags, tuples and nested configurations do not have a range."""
    declared = hyperparameters(ToyConfig)
    assert list(declared) == ["factors", "dropout", "decay", "threshold"]
    assert [entry.is_integer for entry in declared.values()] == [True, False, False, False]


def test_search_spaces_include_nested_configurations() -> None:
    """A nested hyperparameter is named by its path and keeps the range of its own class."""
    found = searched_hyperparameters(ToyConfig)
    assert {name: entry.search for name, entry in found.items()} == {
        "factors": Search(4, 64),
        "decay": Search(0.5, 1.0, log=False),
        "inner.ridge": Search(1.0, 9.0),
    }
    assert found["inner.ridge"].interval == Interval(above=0)


def test_a_subclass_inherits_search_spaces() -> None:
    """A field with another default keeps its search space unless another one is given."""
    assert (DerivedConfig().factors, DerivedConfig().dropout) == (16, 0.2)
    found = searched_hyperparameters(DerivedConfig)
    assert found["factors"].search == Search(4, 64)
    assert found["dropout"].search == Search(0.1, 0.5)
    assert "dropout" not in searched_hyperparameters(ToyConfig)


def test_hyperparameters_need_only_the_standard_library() -> None:
    """Services load configurations without further packages."""
    program = (
        "import sys, marquee_core.scorers.hyperparameters\n"
        "sys.exit(any(n in sys.modules for n in ('numpy', 'scipy', 'attrs', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
