"""Work for the tests of tasks; in a module, so that it can be sent to another process."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from marquee_core.errors import ArtifactError
from marquee_core.tasks.task import Report


@dataclass(frozen=True)
class Squares:
    """Squares numbers, and writes down which process did so.

    Attributes:
        folder: A file for each number that was begun, with the ids of the processes.
        killed: Begun with this number for the first so many times, the process kills itself.
        kills: How many times that is.
        refused: This number is an error.
        waits: Begun with this number, the process never ends.
    """

    folder: Path
    killed: int = -1
    kills: int = 0
    refused: int = -1
    waits: int = -1

    def __call__(self, number: int, report: Report, /) -> int:
        """Squares a number."""
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
