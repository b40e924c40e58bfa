"""Local copies of release files, which are kept while a server uses them and then removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from pathlib import Path

from marquee_core.release.store import ReleaseStore
from marquee_core.release.transfer import remove_leftovers

_USES = ".in-use"
# An unfinished copy that has not been written to for this long was left by a killed process.
_LEFTOVER_AGE_S = 3600.0


class ReleaseCopies:
    """The copies of releases in a cache folder, which several servers on a machine may share.

    A server holds a lock (flock) on each release that it uses. The kernel releases the lock when
    the process ends, so the copies of a killed server are removed by another one.

    Attributes:
        folder: The cache folder.
    """

    def __init__(self, store: ReleaseStore, folder: Path) -> None:
        """Takes the store from which the files are copied, and the cache folder."""
        self._store = store
        self.folder = folder
        self._locks: dict[str, int] = {}
        self._guard = threading.Lock()

    def lock(self, release_id: str) -> None:
        """Prevents other servers from removing the copies of a release until `unlock`.

        Raises:
            OSError: The cache cannot be written to.
        """
        with self._guard:
            if release_id not in self._locks:
                self._locks[release_id] = self._acquire(release_id, fcntl.LOCK_SH)

    def unlock(self, release_id: str) -> None:
        """Allows the copies of a release to be removed."""
        with self._guard:
            handle = self._locks.pop(release_id, None)
        if handle is not None:
            os.close(handle)

    def damaged(self, release_id: str) -> list[str]:
        """Returns the paths of the files whose copies have changed since they were created."""
        return self._store.damaged_copies(release_id, self.folder)

    def evict(self) -> list[str]:
        """Removes the copies of releases that no server uses, and unfinished files.

        Returns:
            The ids of the releases whose copies were removed.
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
        """Locks a release, and returns the file descriptor that holds the lock.

        Raises:
            BlockingIOError: Another process holds the lock, and `kind` includes LOCK_NB.
        """
        path = self._lock_file(release_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, kind)
                # Retry if another process has removed the lock file in the meantime.
                if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
