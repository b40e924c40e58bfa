"""Feeds damaged input to every parser.

    python -m fuzz --inputs 1000000

A parser must return a result or raise its own error. Any other error, more than 20 seconds or more
than 2 GiB is a finding; the input and the traceback are stored in the folder `findings`. An
interrupted run resumes where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from fuzz.worker import work
from marquee.cli.table import render


def main() -> int:
    """Runs all processes and prints a row for each parser; the exit status is 1 with findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--inputs", type=int, default=1_000_000, help="number of inputs for all parsers together"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs")
    parser.add_argument("--processes", type=int, default=2, help="number of processes")
    parser.add_argument("--folder", default="build/fuzz", help="folder for progress and findings")
    parser.add_argument("--only", default="", help="run only parsers whose name contains this")
    arguments = parser.parse_args()
    label = f"seed-{arguments.seed}" + (f"-{arguments.only}" if arguments.only else "")
    folder = Path(arguments.folder) / label.replace(" ", "-")
    processes = arguments.processes
    # Polars prints the stack of a panic even if it is handled.
    os.environ["RUST_BACKTRACE"] = "0"
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        parts = [
            pool.submit(
                work, arguments.seed, arguments.inputs, folder, arguments.only, n, processes
            )
            for n in range(processes)
        ]
        results = [part.result() for part in parts]
    done, refused, findings = Counter[str](), Counter[str](), Counter[str]()
    for progress in results:
        for name, one in progress.items():
            done[name] += one.done
            refused[name] += one.refused
            findings[name] += len(one.findings)
    rows = [
        [name, f"{count:,}", f"{refused[name]:,}", f"{findings[name]:,}"]
        for name, count in done.items()
    ]
    rows.append(["all", *(f"{sum(c.values()):,}" for c in (done, refused, findings))])
    sys.stdout.write(render(["parser", "inputs", "refused", "findings"], rows, "lrrr") + "\n")
    if findings.total():
        sys.stdout.write(f"the findings are in {folder / 'findings'}\n")
    return int(findings.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
