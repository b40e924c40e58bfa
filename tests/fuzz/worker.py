"""The entry point of each process of `python -m fuzz`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fuzz.run import Progress, fuzz
from fuzz.targets import all_targets
from marquee_services.server.telemetry.logs import configure_logs

_MEMORY = Path("/dev/shm")  # noqa: S108 - only the parent of a temporary folder


def work(
    seed: int, inputs: int, folder: Path, only: str, worker: int, workers: int
) -> dict[str, Progress]:
    """Runs one process's share of the inputs.

    Args:
        seed: Seed of the inputs.
        inputs: Number of inputs for all processes together.
        folder: Folder for the progress and the findings.
        only: Runs only targets whose name contains this.
        worker: Number of this process, from 0.
        workers: Number of processes.

    Returns:
        The progress by the target's name.
    """
    configure_logs("fuzz", "text", "critical")
    parent = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        targets = [target for target in all_targets(Path(name)) if only in target.name]
        return fuzz(targets, seed, inputs, folder, worker, workers)
