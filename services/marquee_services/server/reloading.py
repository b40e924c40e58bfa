"""Files that a running server reads again: certificates, tokens and keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

import structlog

_log = structlog.get_logger()

RELOAD_INTERVAL_S = 4.0
"""Seconds between two looks at the files."""


class UnusableFile(OSError):
    """A file that the settings name cannot be used; the message names file and cause."""


def read_utf8(path: Path) -> str:
    """The text of a file.

    Raises:
        UnusableFile: It is not UTF-8.
        OSError: It cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{path}: not a text in UTF-8") from error


class Refreshable(Protocol):
    """Something that was read from files."""

    def refresh(self) -> None:
        """Reads the files again if they have changed; keeps what it has if they cannot be used."""


class Reloader:
    """Refreshes what a server has read from files, periodically and on request."""

    def __init__(self) -> None:
        """Creates a reloader of nothing yet."""
        self._sources: list[Refreshable] = []

    def add(self, source: Refreshable) -> None:
        """Refreshes a source from now on."""
        self._sources.append(source)

    def reload(self) -> None:
        """Refreshes all sources now. An error of one does not keep the others from it."""
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
