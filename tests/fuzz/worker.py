"""What each process of `python -m fuzz` runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fuzz.run import Progress, fuzz
from fuzz.targets import all_targets
from marquee_services.server.logs import configure_logs

_MEMORY = Path("/dev/shm")  # noqa: S108 - only a place for a temporary folder


def work(
    seed: int, inputs: int, folder: Path, only: str, worker: int, workers: int
) -> dict[str, Progress]:
    """Runs one process's part.

    Args:
        seed: The seed of the inputs.
        inputs: The number of inputs of all processes.
        folder: Folder for the progress and the findings.
        only: Only the targets whose name contains this.
        worker: The number of this process, from 0.
        workers: The number of processes.
    """
    configure_logs("fuzz", "text", "critical")
    place = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        targets = [target for target in all_targets(Path(name)) if only in target.name]
        return fuzz(targets, seed, inputs, folder, worker, workers)
