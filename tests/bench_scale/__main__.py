"""Measures the growth of training costs and prints the tables: `make bench-scale`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from bench_scale.growth import expected_cost, table
from bench_scale.ratings import SIZES, SyntheticRatings
from bench_scale.subjects import POLARS, READING, SEED, SUBJECTS
from marquee.cli.table import render

# Target: maximum ratio of the CPU time for reading ratings to that of Polars.
_MAX_RATIO_TO_POLARS = 1.5
# Estimated elapsed time of a measurement per second of CPU time, and the time for its preparation.
_WALL_PER_CPU = 1.5
_PREPARATION_S = 20.0


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

    def costs(self, figure: str) -> dict[str, dict[int, float]]:
        """Returns a figure of all measurements, by subject and number of ratings."""
        return {
            subject: {
                SIZES[size].ratings: self.found[subject][size][figure]
                for size in SIZES
                if size in self.found[subject]
            }
            for subject in SUBJECTS
            if subject in self.found
        }

    def text(self, sizes: list[str]) -> str:
        """Formats the tables.

        Args:
            sizes: The sizes of the columns, in millions of ratings.
        """
        counts = [SIZES[size].ratings for size in sizes]
        headers, rows = table(self.costs("cpu_s"), counts, "core-seconds")
        times = render(headers, rows, "l" + "r" * (len(sizes) + 2) + "l")
        peaks = self.costs("peak_gb")
        rows = [
            [subject, *(f"{by_size[count]:.2f}" if count in by_size else "" for count in counts)]
            for subject, by_size in peaks.items()
        ]
        memory = render(
            ["peak memory, GB", *headers[1 : len(sizes) + 1]], rows, "l" + "r" * len(sizes)
        )
        return "\n".join([times, "", memory, *self._reading(sizes)])

    def _reading(self, sizes: list[str]) -> list[str]:
        """Compares reading with Polars at the largest size measured for both."""
        own, other = self.found.get(READING, {}), self.found.get(POLARS, {})
        both = [size for size in sizes if size in own and size in other]
        if not both:
            return []
        ratio = own[both[-1]]["cpu_s"] / other[both[-1]]["cpu_s"]
        outcome = "met" if ratio <= _MAX_RATIO_TO_POLARS else "missed"
        target = f"target <= {_MAX_RATIO_TO_POLARS:g}"
        return ["", f"Reading takes {ratio:.2f} times as long as Polars ({target}: {outcome})."]


@click.command()
@click.option("--sizes", default="1,3,10", help="Sizes in millions of ratings.", show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0.0), default=60.0, show_default=True)
@click.option("--subjects", default="", help="What to measure; default: everything.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("build/bench-scale"),
    show_default=True,
    help="Folder for measurements and ratings, which later runs reuse.",
)
def main(sizes: str, minutes: float, subjects: str, folder: Path) -> None:
    """Measures how training costs grow with the number of ratings, in separate processes.

    Small sizes are measured first. Measurements that exceed the time are left for another run.
    """
    chosen = [name.strip() for name in sizes.split(",")]
    names = [name.strip() for name in subjects.split(",") if name.strip()] or list(SUBJECTS)
    for name, known in (*((s, SIZES) for s in chosen), *((n, SUBJECTS) for n in names)):
        if name not in known:
            raise click.UsageError(f"{name!r} is not one of {', '.join(known)}")
    chosen.sort(key=float)
    folder.mkdir(parents=True, exist_ok=True)
    results = Results.load(folder / "results.json")
    end = time.monotonic() + 60 * minutes
    pending = [
        (subject, size)
        for size in chosen
        for subject in names
        if size not in results.found.get(subject, {})
    ]
    for number, (subject, size) in enumerate(pending, start=1):
        left = end - time.monotonic()
        cost = expected_cost(results.costs("cpu_s").get(subject, {}), SIZES[size].ratings)
        seconds = None if cost is None else _WALL_PER_CPU * cost + _PREPARATION_S
        about = "" if seconds is None else f", about {seconds / 60:.1f} min"
        step = f"[{number}/{len(pending)}] {subject} at {size} M{about}"
        if left <= 0 or (seconds is not None and seconds > left):
            click.echo(f"{step}: skipped, only {max(left, 0) / 60:.1f} min left", err=True)
            continue
        click.echo(f"{step}; {left / 60:.0f} min left", err=True)
        measured = _measure(subject, size, folder, left)
        if measured is None:
            click.echo("  not finished in time", err=True)
        else:
            results.add(subject, size, measured)
    click.echo(results.text(chosen))


def _measure(subject: str, size: str, folder: Path, timeout: float) -> dict[str, float] | None:
    """Measures a subject in a subprocess; returns None if it exceeds the timeout."""
    file = folder / f"ratings-{size}.npy"
    if not file.exists():
        temporary = file.with_suffix(".tmp")
        SyntheticRatings.draw(SIZES[size], SEED).save(temporary)
        temporary.replace(file)
    command = [sys.executable, "-m", "bench_scale.subjects", subject, size, str(file)]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, timeout=timeout, env=environment
        )
    except subprocess.TimeoutExpired:
        return None
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()
