"""Reloads the files that a running server uses: certificates, tokens and keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

import structlog

_log = structlog.get_logger()

RELOAD_INTERVAL_S = 4.0
"""Seconds between checks of the files."""


class UnusableFile(OSError):
    """A file that the settings name cannot be used; the message names the file and the cause."""


def read_utf8(path: Path) -> str:
    """Returns the text of a file.

    Raises:
        UnusableFile: The file is not encoded in UTF-8.
        OSError: The file cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{path}: not a UTF-8 text file") from error


class Refreshable(Protocol):
    """An object whose contents were read from files."""

    def refresh(self) -> None:
        """Reads the files again if they have changed; keeps the contents if that fails."""


class Reloader:
    """Refreshes objects that were read from files, periodically and on request."""

    def __init__(self) -> None:
        """Creates a reloader without sources."""
        self._sources: list[Refreshable] = []

    def add(self, source: Refreshable) -> None:
        """Adds a source to refresh."""
        self._sources.append(source)

    def reload(self) -> None:
        """Refreshes all sources now, even if some of them fail."""
        for source in self._sources:
            try:
                source.refresh()
            except Exception as error:
                _log.error("reload_failed", exc_info=error)

    async def run(self) -> None:
        """Refreshes all sources periodically, until cancelled."""
        while True:
            await asyncio.sleep(RELOAD_INTERVAL_S)
            self.reload()
