"""Detects replayed files: signed files that are older than ones that were read before.

A signature proves who wrote a file, but not that the file is current. An attacker with write access
to the store could put an earlier signed file back. Each signed file therefore has a number that
increases with every change, and a file with a lower number than the highest one read is refused.
The numbers are stored in a local folder, so the check also works after a restart.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from marquee_core.errors import ArtifactError


class ReplayGuard:
    """Records the highest numbers that were read from the signed files of one store."""

    def __init__(self, store: str, folder: Path | None = None) -> None:
        """Creates a guard.

        Args:
            store: The URL of the store.
            folder: A local folder for the numbers; None to keep them in memory only.
        """
        name = hashlib.sha256(store.encode()).hexdigest()[:16]
        self._folder = None if folder is None else folder / ".newest" / name
        self._newest: dict[str, int] = {}

    def newest(self, name: str) -> int:
        """Returns the highest number that was read from a file; 0 if it was never read."""
        if name not in self._newest:
            self._newest[name] = max(self._recorded(name), default=0)
        return self._newest[name]

    def check(self, name: str, number: int) -> None:
        """Checks the number of a file that was read, and records it.

        Raises:
            ArtifactError: A higher number was read before.
            OSError: The number cannot be stored.
        """
        newest = self.newest(name)
        if number < newest:
            where = "" if self._folder is None else f" (recorded in {self._folder / name})"
            raise ArtifactError(
                f"the file {name!r} is older than one that was read before: its number is "
                f"{number}, but {newest} was read{where}"
            )
        if number > newest:
            self._newest[name] = number
            self._record(name, number)

    def _recorded(self, name: str) -> list[int]:
        """Returns the recorded numbers of a file, each of which is the name of an empty file."""
        if self._folder is None:
            return []
        with suppress(FileNotFoundError):
            return [int(p.name) for p in (self._folder / name).iterdir() if p.name.isdecimal()]
        return []

    def _record(self, name: str, number: int) -> None:
        if self._folder is None:
            return
        before = self._recorded(name)
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).touch()
        # Other servers on this machine may have read other versions; the highest number remains.
        for lower in before:
            if lower < number:
                (folder / str(lower)).unlink(missing_ok=True)
