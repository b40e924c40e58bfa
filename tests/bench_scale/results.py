"""The measurements of a run: stored in a file, and formatted as tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from bench_scale.growth import table
from bench_scale.ratings import SIZES
from bench_scale.subjects import READINGS, SUBJECTS
from marquee.cli.table import render

# Target: maximum ratio of the CPU time for reading ratings to that of Polars.
_MAX_RATIO_TO_POLARS = 1.5


@dataclass
class Results:
    """The measurements so far, stored in a file so that a later run can resume.

    Attributes:
        path: The file.
        found: The measurements by subject and size.
    """

    path: Path
    found: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads the file if it exists."""
        return cls(path, json.loads(path.read_text()) if path.exists() else {})

    def add(self, subject: str, size: str, measured: dict[str, float]) -> None:
        """Adds a measurement and writes the file."""
        self.found.setdefault(subject, {})[size] = measured
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.found, indent=1))
        temporary.replace(self.path)

    def of(self, subject: str, figure: str) -> dict[int, float]:
        """Returns a figure of a subject, by number of ratings."""
        found = self.found.get(subject, {})
        return {SIZES[size].ratings: found[size][figure] for size in SIZES if size in found}

    def text(self, sizes: list[str], subjects: list[str]) -> str:
        """Formats the tables, with a row for each subject, measured or not.

        Args:
            sizes: The sizes of the columns, in millions of ratings.
            subjects: The subjects of this run; others are shown if they have been measured.
        """
        counts = [SIZES[size].ratings for size in sizes]
        shown = [name for name in SUBJECTS if name in subjects or name in self.found]
        headers, rows = table(
            {name: self.of(name, "cpu_s") for name in shown}, counts, "core-seconds"
        )
        times = render(headers, rows, "l" + "r" * (len(sizes) + 2) + "l")
        peaks = {name: self.of(name, "peak_gb") for name in shown}
        rows = [
            [subject, *(f"{by_size[count]:.2f}" if count in by_size else "" for count in counts)]
            for subject, by_size in peaks.items()
        ]
        memory = render(
            ["peak memory, GB", *headers[1 : len(sizes) + 1]], rows, "l" + "r" * len(sizes)
        )
        return "\n".join([times, "", memory, *self._reading(sizes)])

    def _reading(self, sizes: list[str]) -> list[str]:
        """Compares reading with Polars, each at the largest size measured for both."""
        lines = []
        for reading, polars in READINGS.items():
            own, other = self.found.get(reading, {}), self.found.get(polars, {})
            both = [size for size in sizes if size in own and size in other]
            if both:
                ratio = own[both[-1]]["cpu_s"] / other[both[-1]]["cpu_s"]
                outcome = "met" if ratio <= _MAX_RATIO_TO_POLARS else "missed"
                target = f"target <= {_MAX_RATIO_TO_POLARS:g}"
                name = reading[:1].upper() + reading[1:]
                lines.append(
                    f"{name} takes {ratio:.2f} times as long as Polars ({target}: {outcome})."
                )
        return ["", *lines] if lines else []
