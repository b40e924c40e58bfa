"""Measures the benefit of a second Ray worker: `make bench-workers ARGS="--data PATH/ml-1m.zip"`.

It runs `marquee train --ray` with one worker and with two, on Ray clusters of one and two cores.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import click

from marquee.cli.table import render
from marquee_core.cores import thread_limits

TARGET = 1.6
"""The smallest target ratio of the times with one worker and with two."""

# Starts Ray with the given number of cores, and runs a command of `marquee` on it.
_LAUNCH = """
import sys
import ray
from marquee.cli import main
ray.init("local", num_cpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False)
print("started", file=sys.stderr, flush=True)
main(sys.argv[2:])
"""
_FITS = re.compile(r"\((\d+) of (\d+) fits")


@dataclass(frozen=True)
class Run:
    """The times of a training run, in seconds.

    Attributes:
        before_s: From the start of loading to the start of the fits.
        fits_s: The fits in the workers.
        after_s: The blend, the evaluation and publishing, in one process.
    """

    before_s: float
    fits_s: float
    after_s: float

    @property
    def total_s(self) -> float:
        """The time of the whole run."""
        return self.before_s + self.fits_s + self.after_s


def measure(data: str, models: str, workers: int) -> Run:
    """Runs a training with a number of workers, each of which uses one thread.

    Raises:
        click.ClickException: The training failed.
    """
    started = fitting = fitted = 0.0
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as folder:
        command = [sys.executable, "-c", _LAUNCH, str(workers), "train", "--ray", "auto"]
        command += [
            "--data",
            data,
            "--store",
            f"{folder}/store",
            "--models",
            models,
            "--no-promote",
        ]
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, **thread_limits(1)},
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                click.echo(line, err=True, nl=False)
                now = time.monotonic()
                found = _FITS.search(line)
                if line == "started\n":
                    started = now
                elif found and found[1] == "1":
                    seconds = re.search(r"([\d.]+) s +\(", line)
                    fitting = now - float(seconds[1]) if seconds else now
                if found and found[1] == found[2]:
                    fitted = now
        ended = time.monotonic()
    if process.returncode:
        raise click.ClickException(f"the training with {workers} workers failed")
    return Run(fitting - started, fitted - fitting, ended - fitted)


@click.command()
@click.option("--data", default="sample", show_default=True, help="The ratings to train on.")
@click.option(
    "--models",
    default="ease,ials,item_cf,user_cf,slit,bayesian_mf,autorec,user_autorec",
    show_default=True,
    help="The models to train.",
)
def main(data: str, models: str) -> None:
    """Compares the time of a training on one Ray worker with that on two."""
    runs = [measure(data, models, workers) for workers in (1, 2)]
    rows = [
        [str(workers), *(f"{value:.1f}" for value in (r.before_s, r.fits_s, r.after_s, r.total_s))]
        for workers, r in enumerate(runs, start=1)
    ]
    headers = ["workers", "before the fits, s", "fits, s", "after the fits, s", "total, s"]
    click.echo(render(headers, rows, "rrrrr"))
    fits, total = runs[0].fits_s / runs[1].fits_s, runs[0].total_s / runs[1].total_s
    outcome = "met" if total >= TARGET else "missed"
    click.echo(
        f"Two workers are {total:.2f} times as fast as one (target >= {TARGET:g}: {outcome}), "
        f"and {fits:.2f} times in the fits."
    )


if __name__ == "__main__":
    main()
