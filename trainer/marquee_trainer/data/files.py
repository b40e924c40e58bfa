"""Resolves a path, folder, glob or URL to files, and reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import fsspec

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.file_signatures import HEAD_BYTES, compression_of

DELIMITED, JSON_LINES, PARQUET, ARROW = "delimited text", "JSON lines", "Parquet", "Arrow"
_FORMATS = {
    ".csv": DELIMITED,
    ".tsv": DELIMITED,
    ".tab": DELIMITED,
    ".txt": DELIMITED,
    ".dat": DELIMITED,
    ".data": DELIMITED,
    ".inter": DELIMITED,
    ".item": DELIMITED,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": JSON_LINES,
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".feather": ARROW,
    ".arrow": ARROW,
    ".ipc": ARROW,
}
WHOLE_ZIP = "zip://**::"
"""Prefix of the path of a zip file that selects all files in it."""
_WEB = ("http://", "https://")
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
# Parts of names by which the files of a folder are classified.
_RATINGS = "rating"
_RATING_NAMES = re.compile(
    "rating|interaction|event|review|play|purchase|click|score|feedback|listen|view|order|"
    "transaction|^user_"
)
_ITEM_NAMES = re.compile(
    "movie|item|film|book|product|track|song|artist|title|catalog|game|anime|metadata"
)
_OTHER_NAMES = re.compile("^(users?|tags|links|readme|.*tag.*)$")
# Extensions of RecBole's atomic files, whose names differ only in these.
_RATING_ENDING, _ITEM_ENDING = ".inter", ".item"


@dataclass(frozen=True)
class DataFile:
    """A local or remote file, which may be compressed.

    Attributes:
        url: Its path or URL, as fsspec takes it.
    """

    url: str

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        if "::" in self.url:
            return PurePosixPath(self.url.partition("::")[0].partition("://")[2]).name
        return PurePosixPath(urlsplit(self.url).path if "://" in self.url else self.url).name

    @property
    def stem(self) -> str:
        """The file's name in lower case, without the extensions of format and compression."""
        return self.name.split(".", 1)[0].lower()

    @property
    def format(self) -> str | None:
        """The format by the file's extension; None if the extension is unknown."""
        path = PurePosixPath(self.name.lower())
        if path.suffix in _COMPRESSED:
            path = path.with_suffix("")
        return _FORMATS.get(path.suffix)

    @property
    def local(self) -> Path | None:
        """The path of an uncompressed local file; None for any other file."""
        return None if "://" in self.url or self._compression else Path(self.url)

    def head(self, count: int) -> bytes:
        """The first bytes of the content.

        Raises:
            RatingsError: The file cannot be read.
        """
        return self._read(count)

    def read(self) -> bytes:
        """The whole content, decompressed.

        Raises:
            RatingsError: The file cannot be read.
        """
        return self._read(-1)

    @cached_property
    def _compression(self) -> str | None:
        """The compression method by the content's first bytes, because names may be wrong."""
        return compression_of(self._raw(HEAD_BYTES, None))

    def _read(self, count: int) -> bytes:
        return self._raw(count, self._compression)

    def _raw(self, count: int, compression: str | None) -> bytes:
        try:
            with fsspec.open(self.url, "rb", compression=compression) as stream:
                content: bytes = stream.read(count)
                return content
        except EOFError as error:
            raise RatingsError(
                f"{without_secrets(self.url)}: the compressed file is truncated; fetch it again"
            ) from error
        except Exception as error:  # file systems and decompressors have no common exception
            raise RatingsError(
                f"{without_secrets(self.url)}: {str(error) or type(error).__name__}"
            ) from error


@dataclass(frozen=True)
class SourceFiles:
    """The files of a source.

    Attributes:
        ratings: Files of ratings, in the order of their names.
        items: A file of item metadata next to them; None if there is none.
    """

    ratings: tuple[DataFile, ...]
    items: DataFile | None = None


def find_files(source: str) -> SourceFiles:
    """Finds the files of a path, folder, glob or URL.

    A folder may hold files of several kinds. The ratings are the files with names such as `ratings`
    or `events` or, if there are none, all files but those with names such as `movies`, `items` or
    `users`. Items of a file or glob are those of a file next to it, except on a web server, which
    cannot be relied on to list its folders.

    Raises:
        RatingsError: There is no file, or the protocol of the URL is not supported.
    """
    try:
        system, path = fsspec.core.url_to_fs(source if "://" in source else _local(source))
        if any(character in path for character in "*?[") and not system.exists(path):
            paths = sorted(system.glob(path))
            if source.startswith(WHOLE_ZIP):
                paths = _of_top_folder(paths)
            files = _files(system, paths, source)
            # An archive may hold files of several kinds, like a folder.
            return _of_folder(files, source) if "::" in source else _with_items(system, files)
        if _is_folder(system, path):
            return _of_folder(_in_folder(system, path, source), source)
        if not system.exists(path):
            raise RatingsError(f"{without_secrets(source)} does not exist")
    except RatingsError:
        raise
    except Exception as error:  # file systems have no common exception
        raise RatingsError(
            f"{without_secrets(source)}: {str(error) or type(error).__name__}"
        ) from error
    return _with_items(system, [DataFile(source if "://" in source else _local(source))])


def fetch(url: str, names: Mapping[str, str], folder: Path) -> Path | None:
    """Copies a remote zip file, or the files of a remote folder that have given names.

    Args:
        url: The URL.
        names: For each name of a file of ratings, the name of the accompanying file of items.
        folder: The local folder to copy to.

    Returns:
        The path of the copy; None if the URL is neither a zip file nor a folder with one of the
        files of ratings.

    Raises:
        RatingsError: The URL cannot be read.
    """
    try:
        system, path = fsspec.core.url_to_fs(url)
        target = folder / (PurePosixPath(path.rstrip("/")).name or "data")
        if path.lower().endswith(".zip") and "::" not in url:
            system.get_file(path, str(target))
            return target
        if not _is_folder(system, path):
            return None
        present = {PurePosixPath(file).name: file for file in system.ls(path, detail=False)}
        if present.keys().isdisjoint(names):
            return None
        target.mkdir()
        for name in present.keys() & {*names, *names.values()}:
            system.get_file(present[name], str(target / name))
    except Exception as error:  # file systems have no common exception
        raise RatingsError(
            f"{without_secrets(url)}: {str(error) or type(error).__name__}"
        ) from error
    return target


def without_secrets(url: str) -> str:
    """Removes user name, password and query from a URL; returns a path as it is."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc or "::" in url:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def short_name(source: str) -> str:
    """A short name of a source: a URL without secrets, or the last component of a path."""
    if "::" in source or "://" not in source:
        return PurePosixPath(source.removeprefix(WHOLE_ZIP)).name
    return without_secrets(source)


def _local(source: str) -> str:
    return str(Path(source).expanduser())


def _is_folder(system: Any, path: str) -> bool:
    """Whether a path is a folder.

    On a web server, fsspec would download a file to search it for links, and treat a file with
    links as a folder. A URL with the extension of a data file is therefore treated as a file.
    """
    if path.startswith(_WEB) and DataFile(path).format:
        return False
    return bool(system.isdir(path))


def _url(system: Any, path: str, source: str) -> str:
    """The path or URL of a file found in a source."""
    if "://" not in source:
        return path
    url: str = system.unstrip_protocol(path)
    outer = source.partition("::")[2]
    return f"{url}::{outer}" if outer else url


def _files(system: Any, paths: list[str], source: str) -> list[DataFile]:
    files = [
        DataFile(_url(system, path, source))
        for path in paths
        if not PurePosixPath(path).name.startswith((".", "_")) and system.isfile(path)
    ]
    found = [file for file in files if file.format]
    if not found:
        kinds = ", ".join(sorted({ending[1:] for ending in _FORMATS}))
        raise RatingsError(f"{_shown(source)}: there is no file of ratings ({kinds})")
    return found


def _in_folder(system: Any, path: str, source: str) -> list[DataFile]:
    """The files of a folder or, if it has none, of its subfolders, such as partitions."""
    names = sorted(system.ls(path, detail=False))
    # Walking all folders of a web server could take forever.
    if not path.startswith(_WEB) and not any(DataFile(name).format for name in names):
        below = [PurePosixPath(name).relative_to(path).parts for name in system.find(path)]
        shown = [parts for parts in below if not any(part.startswith((".", "_")) for part in parts)]
        names = sorted(str(PurePosixPath(path, *parts)) for parts in shown)
    return _files(system, names, source)


def _with_items(system: Any, ratings: list[DataFile]) -> SourceFiles:
    """Adds the file of items that lies next to files of ratings, if there is one."""
    folders = {file.url.rpartition("/")[0] or "." for file in ratings}
    folder = folders.pop()
    if folders or folder.startswith(_WEB) or "::" in folder:
        return SourceFiles(tuple(ratings))
    try:
        names = sorted(system.ls(folder, detail=False))
    except Exception:  # the ratings may be readable although their folder cannot be listed
        return SourceFiles(tuple(ratings))
    stems = {file.stem for file in ratings}
    own = {file.name for file in ratings}
    found = [
        DataFile(f"{folder}/{name}")
        for name in (PurePosixPath(path).name for path in names)
        if name not in own and not name.startswith((".", "_"))
    ]
    found = [file for file in found if file.format and system.isfile(file.url)]
    # Files of items of RecBole have the name of the ratings, with another extension.
    of_items = [
        file for file in found if file.name.endswith(_ITEM_ENDING) and file.stem in stems
    ] or [file for file in _of_items(found) if not _RATING_NAMES.search(file.stem)]
    return SourceFiles(tuple(ratings), of_items[0] if len(of_items) == 1 else None)


def _of_items(files: list[DataFile]) -> list[DataFile]:
    """The files whose names are those of files of items."""
    return [
        file for file in files if file.name.endswith(_ITEM_ENDING) or _ITEM_NAMES.search(file.stem)
    ]


def _of_top_folder(paths: list[str]) -> list[str]:
    """The files of an archive's top folder or, if that has no data, all files, such as partitions.

    These are the same files as those of the folder to which the archive would be extracted.
    """
    data = [
        PurePosixPath(path)
        for path in paths
        if DataFile(path).format and not _OTHER_NAMES.match(DataFile(path).stem)
    ]
    if not data:
        return paths
    top = PurePosixPath(os.path.commonpath([str(PurePosixPath("/", path.parent)) for path in data]))
    direct = [path for path in paths if PurePosixPath("/", path).parent == top]
    return direct if any(PurePosixPath("/", path.parent) == top for path in data) else paths


def _shown(source: str) -> str:
    """The name of a source for error messages."""
    return source.rpartition("::")[2] if source.startswith(WHOLE_ZIP) else without_secrets(source)


def _of_folder(files: list[DataFile], source: str) -> SourceFiles:
    """Classifies the files of a folder as ratings and items by their names."""
    ratings = [file for file in files if file.name.endswith(_RATING_ENDING)]
    ratings = ratings or [file for file in files if _RATINGS in file.stem]
    ratings = ratings or [file for file in files if _RATING_NAMES.search(file.stem)]
    rest = [file for file in files if file not in ratings]
    of_items = _of_items(rest)
    ratings = ratings or [
        file for file in rest if file not in of_items and not _OTHER_NAMES.match(file.stem)
    ]
    if not ratings:
        names = ", ".join(file.name for file in files)
        raise RatingsError(
            f"{without_secrets(source)}: none of {names} is recognised as a file of ratings by its "
            "name"
        )
    return SourceFiles(tuple(ratings), of_items[0] if len(of_items) == 1 else None)
