"""Feeds damaged input to every parser.

    python -m fuzz --inputs 1000000

An input must end in a result or in the parser's own error. Any other error, more than 20 seconds
or 2 GiB are findings: they are kept in the folder `findings`, with the traceback. A run that is
interrupted goes on where it was.
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
    """Runs all processes and prints a row for each parser; fails if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="inputs of all parsers")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs")
    parser.add_argument("--processes", type=int, default=2, help="number of processes")
    parser.add_argument("--folder", default="build/fuzz", help="progress and findings")
    parser.add_argument("--only", default="", help="only the parsers whose name contains this")
    arguments = parser.parse_args()
    label = f"seed-{arguments.seed}" + (f"-{arguments.only}" if arguments.only else "")
    folder = Path(arguments.folder) / label.replace(" ", "-")
    processes = arguments.processes
    # A panic of polars prints its stack, however it is handled.
    os.environ["RUST_BACKTRACE"] = "0"
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        parts = [
            pool.submit(
                work, arguments.seed, arguments.inputs, folder, arguments.only, n, processes
            )
            for n in range(processes)
        ]
        found = [part.result() for part in parts]
    done, refused, findings = Counter[str](), Counter[str](), Counter[str]()
    for progress in found:
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
