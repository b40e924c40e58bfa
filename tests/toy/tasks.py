"""Work for tests of tasks; at module level, so that it can be sent to another process."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from marquee_core.errors import ArtifactError
from marquee_core.tasks.task import Report


@dataclass(frozen=True)
class Squares:
    """Squares numbers, and records which process did so.

    Attributes:
        folder: Has a file per started number with the ids of the processes.
        killed: The process kills itself when it starts this number, `kills` times in total.
        kills: The number of times that `killed` kills its process.
        refused: This number raises an error.
        waits: This number never finishes.
    """

    folder: Path
    killed: int = -1
    kills: int = 0
    refused: int = -1
    waits: int = -1

    def __call__(self, number: int, report: Report, /) -> int:
        """Square a number."""
        begun = self.folder / str(number)
        with begun.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        report(number)
        if number == self.killed and len(begun.read_text().split()) <= self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.refused:
            raise ArtifactError("seven is refused")
        if number == self.waits:
            signal.pause()
        return number * number
