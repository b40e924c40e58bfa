"""What was measured, as tables and as JSON."""

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

MET, SHORT, NOT_MEASURED = "met", "short", "not measured"
_HEADERS = ("figure", "measured", "reference", "ratio", "target", "verdict")
_ALIGN = "<>>>><"
_LIBRARIES = ("grpcio", "numpy", "scipy", "tensorflow-cpu", "uvloop", "protobuf")
_COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Target:
    """A bound.

    Attributes:
        relation: `>=` or `<=`.
        bound: The bound.
    """

    relation: str
    bound: float

    def met(self, value: float) -> bool:
        """Whether a value keeps to it; NaN does not."""
        return bool(_COMPARE[self.relation](value, self.bound))

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """A figure beside what it is measured against.

    Attributes:
        figure: What it is.
        measured: The value, NaN when it could not be measured.
        unit: Its unit.
        reference: The value that it is compared with; None for none.
        ratio: What the target bounds; None when it bounds `measured`.
        target: None for a figure that is told for information.
    """

    figure: str
    measured: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    target: Target | None = None

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """A row of what `dataclasses.asdict` made of it."""
        target = raw["target"]
        return cls(**{**raw, "target": Target(**target) if target else None})

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        value = self.measured if self.ratio is None else self.ratio
        if value != value:  # NaN
            return NOT_MEASURED
        if self.target is None:
            return ""
        return MET if self.target.met(value) else SHORT

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
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
    """The figures of one target.

    Attributes:
        title: What they are about.
        rows: The figures.
        notes: What a reader must know of them.
        series: What the plots show: by name, values.
    """

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)

    def text(self) -> str:
        """The table for a terminal."""
        table = render(_HEADERS, [row.cells() for row in self.rows], _ALIGN)
        return "\n".join([f"\n{self.title}", table, *(f"  {note}" for note in self.notes)])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def write_results(path: Path, head: Mapping[str, Any], tables: Sequence[Table]) -> None:
    """Writes everything as JSON; NaN is null there.

    Args:
        path: The file.
        head: What was measured on what.
        tables: The figures.
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
