"""Remembers how new the signed files are that were read, so that old ones are noticed.

A signature says who wrote a file, not that it is the latest. Whoever can write to the store could
keep a signed file and put it back later. So each such file has a number, and one with a smaller
number than was read before is refused, also after a restart: the number is kept in a folder of this
machine.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from marquee_core.errors import ArtifactError


class ReplayGuard:
    """The highest numbers of the files of one store that were read."""

    def __init__(self, store: str, folder: Path | None = None) -> None:
        """Takes where the numbers are kept.

        Args:
            store: The URL of the store.
            folder: A folder of this machine; None to forget them with this process.
        """
        name = hashlib.sha256(store.encode()).hexdigest()[:16]
        self._folder = None if folder is None else folder / ".newest" / name
        self._newest: dict[str, int] = {}

    def newest(self, name: str) -> int:
        """Returns the highest number of a file that was read before; 0 if it has not been read."""
        if name not in self._newest:
            self._newest[name] = max(self._kept(name), default=0)
        return self._newest[name]

    def check(self, name: str, number: int) -> None:
        """Checks the number of a file that has been read, and remembers it.

        Raises:
            ArtifactError: A higher number was read before.
            OSError: It cannot be remembered.
        """
        newest = self.newest(name)
        if number < newest:
            where = "" if self._folder is None else f"; the number is kept in {self._folder / name}"
            raise ArtifactError(
                f"the file {name!r} is older than one that was read before: it has the number "
                f"{number}, after {newest}{where}"
            )
        if number > newest:
            self._newest[name] = number
            self._keep(name, number)

    def _kept(self, name: str) -> list[int]:
        """Numbers of this file on this machine: an empty file's name each, mostly one."""
        if self._folder is None:
            return []
        with suppress(FileNotFoundError):
            return [int(p.name) for p in (self._folder / name).iterdir() if p.name.isdecimal()]
        return []

    def _keep(self, name: str, number: int) -> None:
        if self._folder is None:
            return
        before = self._kept(name)
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).touch()
        # Other servers of this machine may be ahead or behind; the highest number always stays.
        for lower in before:
            if lower < number:
                (folder / str(lower)).unlink(missing_ok=True)
