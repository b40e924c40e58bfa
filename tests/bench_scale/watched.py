"""Runs a command, and prints the time and the peak memory of all its processes.

`python -m bench_scale.watched COMMAND [ARGUMENT]...`
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import click

_POLL_S = 2.0


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(command: tuple[str, ...]) -> None:
    """Runs a COMMAND; the exit code is the command's.

    Memory is the proportional set size (PSS) of the process and its descendants, so that memory
    which they share counts once. It is measured every two seconds.
    """
    start, peak = time.monotonic(), 0.0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_pss_gb, _family(process.pid))))
            time.sleep(_POLL_S)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    click.echo(
        f"exit code {process.returncode}, {(time.monotonic() - start) / 60:.1f} min elapsed, "
        f"{(used.ru_utime + used.ru_stime) / 60:.1f} min of CPU time, peak memory {peak:.2f} GB",
        err=True,
    )
    sys.exit(process.returncode)


def _family(process_id: int) -> list[int]:
    """A process and its descendants."""
    found = [process_id]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue  # The thread has ended.
    return found


def _pss_gb(process_id: int) -> float:
    """The proportional set size of a process in GB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e9


if __name__ == "__main__":
    main()
