"""Measures the growth of training costs and prints the tables: `make bench-scale`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from bench_scale.growth import expected_cost
from bench_scale.limited import NotMeasuredError, run_module
from bench_scale.ratings import SIZES
from bench_scale.results import Results
from bench_scale.subjects import SUBJECTS

# Estimated elapsed time of a measurement per second of CPU time, and the time for its preparation.
_WALL_PER_CPU = 1.5
_PREPARATION_S = 20.0
# A measurement is stopped after this multiple of its estimated time, but not before these seconds.
_PATIENCE = 4.0
_PATIENCE_S = 600.0


@click.command()
@click.option("--sizes", default="1,3,10", help="Sizes in millions of ratings.", show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0.0), default=60.0, show_default=True)
@click.option("--subjects", default="", help="What to measure; default: everything.")
@click.option(
    "--row-minutes",
    type=click.FloatRange(min=0.0),
    default=60.0,
    show_default=True,
    help="Time limit of a measurement of which no smaller size has been measured.",
)
@click.option(
    "--memory-gb",
    type=click.FloatRange(min=0.0),
    default=12.0,
    show_default=True,
    help="Limit of the resident memory of a measurement.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("build/bench-scale"),
    show_default=True,
    help="Folder for measurements and ratings, which later runs reuse.",
)
@click.pass_context
def main(
    context: click.Context,
    sizes: str,
    minutes: float,
    subjects: str,
    row_minutes: float,
    memory_gb: float,
    folder: Path,
) -> None:
    """Measures how training costs grow with the number of ratings, in separate processes.

    Small sizes are measured first. A measurement that fails or exceeds a limit does not end the
    run; the last lines name every measurement that is missing, and why. Another run makes up for
    them. The exit code is 1 if a measurement failed.
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
    missing: dict[str, str] = {}
    failed = False
    for number, (subject, size) in enumerate(pending, start=1):
        left = end - time.monotonic()
        seconds = _expected_s(results, subject, size)
        about = "" if seconds is None else f", about {seconds / 60:.1f} min"
        row = f"{subject} at {size} M"
        click.echo(f"[{number}/{len(pending)}] {row}{about}; {left / 60:.0f} min left", err=True)
        if left <= 0 or (seconds is not None and seconds > left):
            missing[row] = f"skipped{about}, {max(left, 0.0) / 60:.1f} min were left"
            continue
        limit = 60 * row_minutes if seconds is None else max(_PATIENCE_S, _PATIENCE * seconds)
        try:
            results.add(subject, size, _measure(subject, size, folder, min(limit, left), memory_gb))
        except NotMeasuredError as error:
            missing[row] = str(error)
            # At the end of the time for all measurements, being stopped is no failure.
            failed |= limit <= left
            click.echo(f"  {error}", err=True)
    click.echo(results.text(chosen, names))
    for row, reason in missing.items():
        click.echo(f"not measured: {row}: {reason}")
    context.exit(int(failed))


def _expected_s(results: Results, subject: str, size: str) -> float | None:
    """The expected elapsed time of a measurement in seconds; None if no smaller one is known."""
    cost = expected_cost(results.of(subject, "cpu_s"), SIZES[size].ratings)
    return None if cost is None else _WALL_PER_CPU * cost + _PREPARATION_S


def _measure(
    subject: str, size: str, folder: Path, seconds: float, memory_gb: float
) -> dict[str, float]:
    """Measures a subject in another process; see `run_module` for limits and errors."""
    file = folder / f"ratings-{size}.npy"
    if not file.exists():
        run_module(["bench_scale.ratings", size, str(file)], seconds, memory_gb)
    output = run_module(["bench_scale.subjects", subject, size, str(file)], seconds, memory_gb)
    measured: dict[str, float] = json.loads(output.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()
