"""Copies the files of a release between a store and local folders, and verifies them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from marquee_core.errors import ArtifactError
from marquee_core.release.manifest import FileEntry, hash_file
from marquee_core.release.storage import PARTIAL, Storage

_CHUNK = 1 << 20
# The number of concurrent requests to object storage.
_MAX_CONCURRENT_REQUESTS = 16


class Transfer:
    """Copies files from and to a store, and compares them with the entries of the manifest."""

    def __init__(self, storage: Storage) -> None:
        """Takes the storage of the release store."""
        self._storage = storage

    def verify(self, base: str, files: Mapping[str, FileEntry]) -> None:
        """Compares files in the store with their entries.

        Args:
            base: The folder of the release in the store.
            files: The entries, by path relative to that folder.

        Raises:
            ArtifactError: A file is missing or does not match its entry, or is not a plain file.
            OSError: The store cannot be read.
        """

        def verify(path: str, entry: FileEntry) -> None:
            self._copy(base, path, entry, lambda _: None)

        self._for_all(verify, files)

    def fetch(self, base: str, files: Mapping[str, FileEntry], folder: Path) -> None:
        """Copies files into a folder, unless matching copies exist.

        Several processes may do this concurrently, because each file appears by an atomic rename.

        Args:
            base: The folder of the release in the store.
            files: The entries, by path relative to that folder.
            folder: The folder to copy to.

        Raises:
            ArtifactError: A file is missing or does not match its entry, or is not a plain file.
            OSError: The store cannot be read, or the folder cannot be written to.
        """

        def fetch(path: str, entry: FileEntry) -> None:
            target = folder / path
            if matches(target, entry):
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as stream:
                    self._copy(base, path, entry, stream.write)
                    os.fchmod(stream.fileno(), 0o444)
                Path(name).replace(target)
            finally:
                Path(name).unlink(missing_ok=True)

        self._for_all(fetch, files)

    def send(self, folder: Path, base: str, files: Mapping[str, FileEntry]) -> None:
        """Copies files from a local folder into the store.

        Raises:
            OSError: The store cannot be written to.
        """

        def send(path: str, _: FileEntry) -> None:
            content = (folder / path).read_bytes()
            target = self._storage.path(base, path)
            self._storage.call(self._storage.fs.pipe_file, target, content)

        self._for_all(send, files)

    def state(self, base: str) -> str:
        """Returns a digest of the names, sizes and times of the files in a store's folder.

        Raises:
            OSError: The store cannot be read.
        """
        if self._storage.is_local:
            rows = sorted(_local_rows(Path(self._storage.path(base))))
        else:
            self._storage.fs.invalidate_cache()
            found = self._storage.call(self._storage.fs.find, self._storage.path(base), detail=True)
            rows = sorted(
                f"{name} {info.get('size')} {info.get('ETag')} {info.get('LastModified')}"
                for name, info in found.items()
            )
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def age(self, base: str) -> float:
        """Returns the seconds since a folder in object storage was last written to.

        It is 0 if that is not known.

        Raises:
            OSError: The store cannot be read.
        """
        found = self._storage.call(self._storage.fs.find, self._storage.path(base), detail=True)
        times = [info.get("LastModified") or info.get("created") for info in found.values()]
        if not times or not all(isinstance(when, datetime) for when in times):
            return 0.0
        newest = max(when if when.tzinfo else when.replace(tzinfo=UTC) for when in times)
        seconds: float = (datetime.now(UTC) - newest).total_seconds()
        return seconds

    def _for_all(
        self, work: Callable[[str, FileEntry], None], files: Mapping[str, FileEntry]
    ) -> None:
        """Applies a function to each file, in object storage concurrently; stops at an error."""
        if self._storage.is_local or len(files) < 2:
            for path, entry in files.items():
                work(path, entry)
            return
        with ThreadPoolExecutor(
            _MAX_CONCURRENT_REQUESTS, thread_name_prefix="release-transfer"
        ) as pool:
            futures = [pool.submit(work, path, entry) for path, entry in files.items()]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _copy(
        self, base: str, path: str, entry: FileEntry, write: Callable[[bytes], object]
    ) -> None:
        """Reads a file once in chunks, passes the chunks on, and compares it with its entry."""
        digest, size = hashlib.sha256(), 0
        try:
            with self._opened(base, path) as stream:
                # Stops soon after the size in the manifest, even if the file is much larger.
                while size <= entry.size and (chunk := self._storage.call(stream.read, _CHUNK)):
                    digest.update(chunk)
                    size += len(chunk)
                    write(chunk)
        except FileNotFoundError as error:
            raise ArtifactError(f"{path}: the file is missing") from error
        entry.check(FileEntry(digest.hexdigest(), size), path)

    @contextmanager
    def _opened(self, base: str, path: str) -> Iterator[IO[bytes]]:
        full = self._storage.path(base, path)
        if self._storage.is_local:
            with _open_plain_file(Path(self._storage.path(base)), path) as stream:
                yield stream
        else:
            opened = self._storage.call(self._storage.fs.open, full, "rb", block_size=8 * _CHUNK)
            with opened as stream:
                yield stream


def _local_rows(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            yield f"{path} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def matches(path: Path, entry: FileEntry) -> bool:
    """Returns whether a local file exists and has the size and SHA-256 of an entry."""
    try:
        return path.stat().st_size == entry.size and hash_file(path) == entry
    except OSError:
        return False


def _open_plain_file(folder: Path, path: str) -> IO[bytes]:
    """Opens a file of a release for reading, following no symbolic links.

    Raises:
        ArtifactError: The path contains a symbolic link or is not a regular file.
        OSError: The file cannot be opened.
    """
    target = folder / path
    if target.resolve() != folder.resolve() / path:
        raise ArtifactError(f"{path}: symbolic links are not allowed in a release")
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    handle = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ArtifactError(f"{path}: not a regular file")
    return os.fdopen(handle, "rb")


def remove_leftovers(folder: Path, age: float, pattern: str = f"{PARTIAL}*") -> int:
    """Removes unfinished files and folders that killed processes left behind.

    Args:
        folder: The folder to search recursively.
        age: The minimum age, in seconds since the last write.
        pattern: The pattern of their names.

    Returns:
        The number of files and folders that were removed.
    """
    removed, limit = 0, time.time() - age
    for path in folder.rglob(pattern):
        try:
            if max(found.lstat().st_mtime for found in (path, *path.rglob("*"))) > limit:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue
        removed += 1
    return removed
