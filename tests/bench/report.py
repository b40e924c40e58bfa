"""The results of the benchmark, as tables and as JSON."""

from __future__ import annotations

import json
import operator
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from marquee.cli.table import render
from marquee_trainer.training.versions import library_versions

MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"
_HEADERS = ("figure", "measured", "reference", "ratio", "target", "verdict")
_ALIGN = "<>>>><"
_LIBRARIES = ("grpcio", "uvloop", "protobuf")
_COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Target:
    """The target of a figure.

    Attributes:
        relation: `>=` or `<=`.
        bound: The value to compare with.
    """

    relation: str
    bound: float

    def met(self, value: float) -> bool:
        """Returns whether a value meets the target; NaN does not."""
        return bool(_COMPARE[self.relation](value, self.bound))

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """A measured figure with its reference and its target.

    Attributes:
        figure: Name of the figure.
        measured: The measured value; NaN if it could not be measured.
        unit: The unit of `measured` and `reference`.
        reference: The value to compare with; None if there is none.
        ratio: The ratio that the target applies to; None if it applies to `measured`.
        target: The target; None for a figure that is only informative.
    """

    figure: str
    measured: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    target: Target | None = None

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """Makes a row from the result of `dataclasses.asdict`."""
        target = raw["target"]
        return cls(**{**raw, "target": Target(**target) if target else None})

    @property
    def verdict(self) -> str:
        """Whether the target is met; "" if there is none."""
        value = self.measured if self.ratio is None else self.ratio
        if value != value:  # NaN
            return NOT_MEASURED
        if self.target is None:
            return ""
        return MET if self.target.met(value) else MISSED

    def cells(self) -> tuple[str, ...]:
        """Returns the cells of the table's row."""
        return (
            self.figure,
            _amount(self.measured, self.unit),
            "" if self.reference is None else _amount(self.reference, self.unit),
            "" if self.ratio is None else _amount(self.ratio, ""),
            "" if self.target is None else str(self.target),
            self.verdict,
        )


@dataclass
class Table:
    """The figures of one section.

    Attributes:
        title: Title of the table.
        rows: The figures.
        notes: Notes printed below the table.
        series: The values to plot, by name.
    """

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)

    def text(self) -> str:
        """Formats the table for a terminal."""
        table = render(_HEADERS, [row.cells() for row in self.rows], _ALIGN)
        return "\n".join([f"\n{self.title}", table, *(f"  {note}" for note in self.notes)])


def machine() -> dict[str, Any]:
    """Describes the machine and the versions of the libraries."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
        "libraries": library_versions() | {name: version(name) for name in _LIBRARIES},
    }


def write_results(path: Path, head: Mapping[str, Any], tables: Sequence[Table]) -> None:
    """Writes the results as JSON; NaN becomes null.

    Args:
        path: The file to write.
        head: Description of the machine, the configuration and the duration.
        tables: The tables of all sections.
    """
    body = {
        **head,
        "tables": [
            {
                **asdict(table),
                "rows": [{**asdict(row), "verdict": row.verdict} for row in table.rows],
            }
            for table in tables
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_finite(body), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _amount(value: float, unit: str) -> str:
    if value != value:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()
