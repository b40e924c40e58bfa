"""The files of a release store, in a local folder or in object storage by URL (fsspec).

Two operations prevent concurrent writers from overwriting each other's changes: `create` never
replaces a file, and `update` replaces one only if it has not been changed in the meantime (compare
and swap). Every file that several processes may write is written by one of them.

They are made atomic as follows:

    a folder      `create` links a complete file to its name; `update` compares and renames while
                  it holds a lock (flock), which the kernel releases when the process ends
    S3            conditional requests: `If-None-Match: *`, and `If-Match` with the ETag that was
                  read
    other fsspec  create-only writes; `update` compares and writes while it holds a lock file,
                  which is written by `create`
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from marquee_core.redaction import redact

PARTIAL = ".partial-"
"""The prefix of the names of unfinished files and folders, which a killed process may leave."""

LOCKS = ".locks"
"""The folder of the lock files of a store."""

_LOCK_EXPIRES_S = 60.0
_LOCK_POLL_S = 0.1
# With a pause that grows to one second, a writer that always loses gives up after about a minute.
_MAX_ATTEMPTS = 60
_MAX_PAUSE_S = 1.0


class StoreURLError(ValueError):
    """The URL of a release store cannot be used."""


class StoreError(OSError):
    """A request to a release store failed."""


class SwapConflictError(OSError):
    """A file was changed by another process after it was read."""


@dataclass(frozen=True)
class Versioned:
    """A version of a file.

    Attributes:
        content: The content; None if the file does not exist.
        version: Identifies the version for `Storage.swap`; "" if the file does not exist.
    """

    content: bytes | None
    version: str


class Storage:
    """Reads and writes files by their path relative to the root of a store.

    Attributes:
        url: The folder or URL, without a password.
        root: The path of the root in the file system.
        is_local: Whether the store is a local folder.
        fs: The fsspec file system.
    """

    def __init__(self, url: str) -> None:
        """Takes the path of a folder, or a URL that fsspec supports (`s3://bucket/prefix`, …).

        Raises:
            StoreURLError: The scheme of the URL is unknown, or its file system needs a package that
                is not installed.
        """
        self.url = redact(url)
        try:
            self.fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise StoreURLError(f"release store {self.url!r}: {redact(str(error))}") from error
        self.root = str(root).rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self._has_etags = "s3" in _protocols(self.fs)

    def path(self, *parts: str) -> str:
        """Returns the full path of a file in the file system."""
        return "/".join((self.root, *parts))

    def call(self, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Makes a request to the file system, and converts any error to an OSError.

        Libraries for object storage raise their own errors, for example if they cannot connect.

        Raises:
            FileNotFoundError: The file does not exist.
            FileExistsError: The file exists, or a condition of the request is not met.
            OSError: The request failed for another reason.
        """
        try:
            return request(*arguments, **options)
        except OSError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"release store {self.url}: {redact(reason)}") from error

    def read(self, path: str) -> bytes:
        """Returns the content of a file.

        Raises:
            FileNotFoundError: The file does not exist.
            OSError: The store cannot be read.
        """
        self.fs.invalidate_cache()
        content: bytes = self.call(self.fs.cat_file, self.path(path))
        return content

    def read_versioned(self, path: str) -> Versioned:
        """Returns the content of a file together with its version, for `swap`.

        Raises:
            OSError: The store cannot be read.
        """
        while True:
            before = self._etag(path)
            try:
                content = self.read(path)
            except FileNotFoundError:
                if not before:
                    return Versioned(None, "")
                continue
            if not self._has_etags:
                return Versioned(content, hashlib.sha256(content).hexdigest())
            # The ETag and the content are read by two requests, and must be of the same version.
            if before and before == self._etag(path):
                return Versioned(content, before)

    def create(self, path: str, content: bytes) -> None:
        """Creates a file atomically.

        Raises:
            FileExistsError: The file already exists; it is not changed.
            OSError: The store cannot be written to.
        """
        if not self.is_local:
            self.call(self.fs.pipe_file, self.path(path), content, mode="create")
            return
        target = Path(self.path(path))
        with _finished_file(target, content) as finished:
            os.link(finished, target)
        sync(target.parent)

    def replace(self, path: str, content: bytes) -> None:
        """Creates or replaces a file atomically.

        Raises:
            OSError: The store cannot be written to.
        """
        if not self.is_local:
            self.call(self.fs.pipe_file, self.path(path), content)
            return
        target = Path(self.path(path))
        with _finished_file(target, content) as finished:
            finished.replace(target)
        sync(target.parent)

    def swap(self, path: str, content: bytes, version: str) -> None:
        """Replaces a file if it has not been changed since it was read (compare and swap).

        Args:
            path: The file.
            content: The new content.
            version: The version from `read_versioned`; "" to create the file.

        Raises:
            SwapConflictError: The file was changed by another process.
            OSError: The store cannot be written to.
        """
        if self._has_etags:
            self._swap_by_etag(path, content, version)
            return
        with self._lock(path):
            if self.read_versioned(path).version != version:
                raise SwapConflictError(f"{path} was changed by another process")
            self.replace(path, content)

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Changes a file; if it is changed concurrently, tries again with the new content.

        Args:
            path: The file.
            change: Returns the new content, given the current content, which is None if the file
                does not exist. It may be called several times; an exception aborts the update.

        Returns:
            The content that was written.

        Raises:
            SwapConflictError: The file was changed concurrently, repeatedly for about a minute.
            OSError: The store cannot be read or written to.
        """
        for attempt in range(_MAX_ATTEMPTS):
            found = self.read_versioned(path)
            content = change(found.content)
            try:
                self.swap(path, content, found.version)
            except SwapConflictError:
                pause = min(_MAX_PAUSE_S, 0.01 * 2**attempt)
                time.sleep(random.uniform(0, pause))  # noqa: S311 - not for cryptography
            else:
                return content
        raise SwapConflictError(f"{path}: other processes keep changing the file; try again")

    def remove(self, path: str) -> None:
        """Deletes a file if it exists.

        Raises:
            OSError: The store cannot be written to.
        """
        with suppress(FileNotFoundError):
            self.call(self.fs.rm_file, self.path(path))

    def names(self, path: str) -> list[str]:
        """Returns the names in a folder, in ascending order; empty if there is no such folder.

        Raises:
            OSError: The store cannot be read.
        """
        self.fs.invalidate_cache()
        try:
            found = self.call(self.fs.ls, self.path(path), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    def exists(self, path: str) -> bool:
        """Returns whether a file or folder exists.

        Raises:
            OSError: The store cannot be read.
        """
        return bool(self.call(self.fs.exists, self.path(path)))

    def _etag(self, path: str) -> str:
        if not self._has_etags:
            return ""
        self.fs.invalidate_cache()
        try:
            return str(self.call(self.fs.info, self.path(path))["ETag"])
        except FileNotFoundError:
            return ""

    def _swap_by_etag(self, path: str, content: bytes, version: str) -> None:
        try:
            if version:
                self.call(self.fs.pipe_file, self.path(path), content, IfMatch=version)
            else:
                self.call(self.fs.pipe_file, self.path(path), content, mode="create")
        except FileNotFoundError as error:
            if not version:  # there is no such bucket
                raise
            # This is how S3 responds to a condition on a deleted object.
            raise SwapConflictError(f"{path} was deleted by another process") from error
        except OSError as error:
            if _is_conflict(error):
                raise SwapConflictError(f"{path} was changed by another process") from error
            raise

    @contextmanager
    def _lock(self, path: str) -> Iterator[None]:
        if self.is_local:
            folder = Path(self.path(LOCKS))
            folder.mkdir(parents=True, exist_ok=True)
            # One lock file per top-level name, so that short-lived files leave none behind.
            with (folder / path.split("/", 1)[0]).open("a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                yield
            return
        lock = f"{LOCKS}/{path.replace('/', '-')}"
        self._acquire(lock)
        try:
            yield
        finally:
            self.call(self.fs.rm_file, self.path(lock))

    def _acquire(self, lock: str) -> None:
        """Creates a lock file, after waiting until it does not exist or has expired."""
        while True:
            try:
                self.create(lock, str(time.time()).encode())
            except FileExistsError:
                try:
                    held_since = float(self.read(lock))
                    if time.time() - held_since > _LOCK_EXPIRES_S:
                        self.call(self.fs.rm_file, self.path(lock))
                except (FileNotFoundError, ValueError):
                    pass
                time.sleep(_LOCK_POLL_S)
            else:
                return


def sync(path: Path) -> None:
    """Flushes a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _finished_file(target: Path, content: bytes) -> Iterator[Path]:
    """Provides a temporary file next to the target, with its content flushed to disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _protocols(fs: Any) -> tuple[str, ...]:
    protocol = fs.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _is_conflict(error: OSError) -> bool:
    """Returns whether S3 refused a conditional request: 412, or 409 for concurrent requests."""
    if isinstance(error, FileExistsError):
        return True
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (409, 412)
