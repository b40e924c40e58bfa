"""Reads files by name from a folder or from a zip file."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.file_signatures import EXCEL

# Errors raised by damaged archives, encrypted entries and unknown compression methods.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, RuntimeError, ValueError, MemoryError),
)


# Entries that identify a zip file as a document rather than an archive of files.
_DOCUMENTS = {
    "xl/workbook.xml": ("an Excel workbook", EXCEL),
    "xl/workbook.bin": ("an Excel workbook", EXCEL),
    "[Content_Types].xml": ("a document of Microsoft Office", EXCEL),
    "META-INF/manifest.xml": ("an OpenDocument file", "save the sheet as CSV in UTF-8"),
}


def check_is_archive(path: Path) -> None:
    """Checks that a zip file is an archive of files.

    Raises:
        RatingsError: It is damaged, or it is a document; the message says what to do.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except _DAMAGE as error:
        raise RatingsError(f"{path.name}: {error}") from error
    for name, (kind, advice) in _DOCUMENTS.items():
        if name in names:
            raise RatingsError(f"{path.name}: this is {kind}, not a table of text; {advice}")


class Files(Protocol):
    """Files that are read by name."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is no file of that name."""


class FolderFiles:
    """The files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """As `Files.read`."""
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None


class ZipFiles:
    """The files of a zip file, regardless of their folders in it."""

    def __init__(self, path: Path) -> None:
        """Opens a zip file.

        Raises:
            RatingsError: The file is not a zip file.
        """
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.rsplit("/", 1)[-1]: entry for entry in archive.namelist()}
        except _DAMAGE as error:
            raise RatingsError(f"{path.name}: {error}") from error

    def has_any(self, names: Collection[str]) -> bool:
        """Whether it contains a file with one of the names."""
        return not self._entries.keys().isdisjoint(names)

    def read(self, name: str) -> bytes | None:
        """As `Files.read`.

        Raises:
            RatingsError: The file is damaged or cannot be decompressed.
        """
        entry = self._entries.get(name)
        if entry is None:
            return None
        try:
            with zipfile.ZipFile(self._path) as archive:
                return archive.read(entry)
        except _DAMAGE as error:
            raise RatingsError(f"{self._path.name}: {name}: {error}") from error
