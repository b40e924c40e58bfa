"""A server's own copies of release files: kept while a server uses them, then removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from pathlib import Path

from marquee_core.release.store import ReleaseStore
from marquee_core.release.transfer import remove_leftovers

_USES = ".in-use"
# An unfinished copy that nobody has written to for this long was left by a killed process.
_LEFTOVER_AGE_S = 3600.0


class ReleaseCopies:
    """The copies in a cache folder, which the servers of a machine may share.

    A server holds a lock (flock) for each release that it uses. The lock ends with the process, so
    the copies of a server that was killed are removed by the next one.

    Attributes:
        folder: The cache folder.
    """

    def __init__(self, store: ReleaseStore, folder: Path) -> None:
        """Takes the store that the copies come from, and the cache folder."""
        self._store = store
        self.folder = folder
        self._locks: dict[str, int] = {}
        self._guard = threading.Lock()

    def lock(self, release_id: str) -> None:
        """Keeps others from removing the copies of a release, until `unlock`.

        Raises:
            OSError: The cache cannot be written to.
        """
        with self._guard:
            if release_id not in self._locks:
                self._locks[release_id] = self._acquire(release_id, fcntl.LOCK_SH)

    def unlock(self, release_id: str) -> None:
        """Allows that the copies of a release are removed."""
        with self._guard:
            handle = self._locks.pop(release_id, None)
        if handle is not None:
            os.close(handle)

    def damaged(self, release_id: str) -> list[str]:
        """Returns the files whose copies have changed since they were made."""
        return self._store.damaged_copies(release_id, self.folder)

    def evict(self) -> list[str]:
        """Removes the copies of releases that no server uses, and unfinished files.

        Returns:
            The releases whose copies were removed.
        """
        removed = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name.startswith(".") or not path.is_dir():
                continue
            try:
                handle = self._acquire(path.name, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                remove_leftovers(path, _LEFTOVER_AGE_S)
                continue
            try:
                shutil.rmtree(path, ignore_errors=True)
                self._lock_file(path.name).unlink(missing_ok=True)
                removed.append(path.name)
            finally:
                os.close(handle)
        return removed

    def _lock_file(self, release_id: str) -> Path:
        return self.folder / _USES / release_id

    def _acquire(self, release_id: str, kind: int) -> int:
        """Locks a release, and returns the handle that holds the lock.

        Raises:
            BlockingIOError: Another process holds a lock, and `kind` does not wait.
        """
        path = self._lock_file(release_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, kind)
                # Whoever removed the copies while this waited has removed the file as well.
                if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
