"""The tables that fault runs print: how users' calls ended, what happened, and a verdict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from marquee.cli.table import render


@dataclass
class Calls:
    """How users' calls ended during a fault.

    Attributes:
        latencies_s: Latency of each answer in seconds.
        failed: Number of calls that ended with an error.
        degraded: Number of degraded answers.
        shed: Number of calls that a server refused because it was overloaded.
        error: The last error.
    """

    latencies_s: list[float] = field(default_factory=list)
    failed: int = 0
    degraded: int = 0
    shed: int = 0
    error: str = ""

    def plus(self, other: Calls) -> Calls:
        """Returns the sum of these calls and others."""
        return Calls(
            self.latencies_s + other.latencies_s,
            self.failed + other.failed,
            self.degraded + other.degraded,
            self.shed + other.shed,
            other.error or self.error,
        )

    @property
    def total(self) -> int:
        """Number of calls."""
        return len(self.latencies_s) + self.failed + self.shed

    def percentile_ms(self, q: float) -> float:
        """Returns a percentile of the answers' latency in milliseconds; NaN without answers."""
        return 1e3 * float(np.percentile(self.latencies_s, q)) if self.latencies_s else float("nan")


@dataclass
class Row:
    """A fault and its outcome.

    Attributes:
        fault: Name of the fault.
        details: What happened, as text.
        problems: Why the fault was not survived; empty if it was.
        calls: How the users' calls ended; None if there were none.
        recovery_s: Seconds from the end of the fault until every call was answered in full again;
            None if that was not measured.
    """

    fault: str
    details: str = ""
    problems: list[str] = field(default_factory=list)
    calls: Calls | None = None
    recovery_s: float | None = None

    def check(self, holds: bool, otherwise: str) -> None:
        """Adds a problem unless a condition holds."""
        if not holds:
            self.problems.append(otherwise)


def report(rows: Sequence[Row]) -> int:
    """Prints the table and, below it, the details of each row.

    Args:
        rows: The rows.

    Returns:
        The exit status: 0 if every fault was survived, else 1.
    """
    header = ["fault", "calls", "failed", "degraded", "p50 ms", "p99 ms", "recovery s", "verdict"]
    table = [[row.fault, *_figures(row), "; ".join(row.problems) or "survived"] for row in rows]
    sys.stdout.write(render(header, table, "lrrrrrrl") + "\n\n")
    for row in rows:
        sys.stdout.write(f"{row.fault}: {row.details}\n")
    sys.stdout.flush()
    return int(any(row.problems for row in rows))


def report_details(rows: Sequence[Row]) -> int:
    """Prints a table whose rows have their details in place of figures.

    Args:
        rows: The rows.

    Returns:
        The exit status, as of `report`.
    """
    table = [[row.fault, row.details, "; ".join(row.problems) or "survived"] for row in rows]
    sys.stdout.write(render(["fault", "what happened", "verdict"], table, "lll") + "\n")
    return int(any(row.problems for row in rows))


def _figures(row: Row) -> list[str]:
    recovery = "" if row.recovery_s is None else f"{row.recovery_s:.1f}"
    calls = row.calls
    if calls is None:
        return ["", "", "", "", "", recovery]
    return [
        f"{calls.total:,}",
        f"{calls.failed:,}",
        f"{calls.degraded:,}",
        f"{calls.percentile_ms(50):.0f}",
        f"{calls.percentile_ms(99):.0f}",
        recovery,
    ]
