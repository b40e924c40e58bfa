"""Runs one measurement in a process of its own, within limits of time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from marquee_core.cores import thread_limits

_POLL_S = 0.2
_REASON_CHARACTERS = 300


class NotMeasuredError(RuntimeError):
    """A process failed or exceeded a limit; the message says why."""


def run_module(arguments: Sequence[str], seconds: float, most_gb: float) -> str:
    """Runs a Python module in a process whose numerical libraries use one thread each.

    Args:
        arguments: The name of the module and its arguments.
        seconds: The time limit, in seconds.
        most_gb: The limit of the resident memory, in GB.

    Returns:
        What the process printed.

    Raises:
        NotMeasuredError: It failed or exceeded a limit, in which case it was killed.
    """
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        **thread_limits(1),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    end = time.monotonic() + seconds
    with (
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=output, stderr=errors, env=environment
        ) as process,
    ):
        try:
            while process.poll() is None:
                if time.monotonic() > end:
                    raise NotMeasuredError(f"stopped after {seconds / 60:.1f} min")
                if _resident_gb(process.pid) > most_gb:
                    raise NotMeasuredError(f"stopped above {most_gb:g} GB of memory")
                time.sleep(_POLL_S)
        finally:
            process.kill()
        if process.returncode:
            errors.seek(0)
            last = errors.read().strip().rpartition("\n")[2][:_REASON_CHARACTERS]
            raise NotMeasuredError(f"failed with exit code {process.returncode}: {last}")
        output.seek(0)
        return output.read()


def _resident_gb(process_id: int) -> float:
    """The resident memory of a process in GB; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9
