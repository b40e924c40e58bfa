"""A lease in a store: only one process at a time does something, such as training.

The file of a lease names its owner and when it expires. The owner renews it in a thread, so a
process that is killed holds it no longer than that. On the same machine, the lease of a process
that has ended is free at once.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from marquee_core.errors import ArtifactError
from marquee_core.json_text import parse_json
from marquee_core.release.storage import Storage

EXPIRES_S = 600.0
_RENEWALS = 6


class LeaseHeldError(ArtifactError):
    """Another process holds the lease."""


@dataclass(frozen=True)
class _Owner:
    """Who holds a lease.

    Attributes:
        name: The user, host and process, for people.
        token: Identifies the lease; random.
        boot: Identifies the machine since it was started, and the process's host name.
        pid: The process id.
        started: When the process was started, in clock ticks since the machine was.
        since: When the lease was taken, RFC 3339.
        expires: When it ends, in seconds since 1970; 0 if it was given back.
    """

    name: str
    token: str
    boot: str
    pid: int
    started: int
    since: str
    expires: float

    @property
    def is_free(self) -> bool:
        """Whether the lease has ended, or its process has."""
        if self.expires <= time.time():
            return True
        is_here = self.boot == _boot()
        return is_here and (not self.started or _started(self.pid) != self.started)


class Lease:
    """Holds a lease within a `with` block.

    Attributes:
        lost: Set when the lease could not be renewed in time, and somebody else may hold it.
    """

    def __init__(self, storage: Storage, path: str, expires_s: float = EXPIRES_S) -> None:
        """Takes the place of the lease.

        Args:
            storage: The store.
            path: The file of the lease.
            expires_s: Seconds after the last renewal until others may take it.
        """
        self._storage = storage
        self._path = path
        self._expires_s = expires_s
        self._token = uuid.uuid4().hex
        self._since = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self.lost = threading.Event()

    def __enter__(self) -> Self:
        """Takes the lease.

        Raises:
            LeaseHeldError: Another process holds it.
            OSError: The store cannot be written to.
        """
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._storage.update(self._path, self._take)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def check(self) -> None:
        """Checks that the lease is still held.

        Raises:
            LeaseHeldError: It was lost, for example because the machine slept.
        """
        if self.lost.is_set():
            raise LeaseHeldError(f"the lease {self._path} was lost: it was not renewed in time")

    def release(self) -> None:
        """Gives the lease back. May be called from any thread, and twice."""
        self._stop.set()
        try:
            self._storage.update(self._path, lambda content: self._change(content, 0.0))
        except (LeaseHeldError, OSError):
            # It is somebody else's, or it expires by itself.
            return

    def _take(self, content: bytes | None) -> bytes:
        owner = _parse(content)
        if owner is not None and not owner.is_free:
            until = datetime.fromtimestamp(owner.expires, UTC).isoformat(timespec="seconds")
            raise LeaseHeldError(
                f"{owner.name} holds {self._path} since {owner.since}; unless renewed, it expires "
                f"at {until}"
            )
        return self._content(time.time() + self._expires_s)

    def _change(self, content: bytes | None, expires: float) -> bytes:
        owner = _parse(content)
        if owner is None or owner.token != self._token:
            raise LeaseHeldError(f"the lease {self._path} was lost")
        return self._content(expires)

    def _extend(self, content: bytes | None) -> bytes:
        return self._change(content, time.time() + self._expires_s)

    def _content(self, expires: float) -> bytes:
        pid = os.getpid()
        owner = _Owner(
            f"{getpass.getuser()}@{socket.gethostname()} (process {pid})",
            self._token,
            _boot(),
            pid,
            _started(pid),
            self._since,
            expires,
        )
        return (json.dumps(asdict(owner), indent=2) + "\n").encode()

    def _renew(self) -> None:
        valid_until = time.monotonic() + self._expires_s
        while not self._stop.wait(self._expires_s / _RENEWALS):
            try:
                self._storage.update(self._path, self._extend)
            except LeaseHeldError:
                if not self._stop.is_set():
                    self.lost.set()
                return
            except OSError:
                if time.monotonic() > valid_until:
                    self.lost.set()
                    return
            else:
                valid_until = time.monotonic() + self._expires_s


def _parse(content: bytes | None) -> _Owner | None:
    """Returns the owner; None if there is none, or the file is damaged and so protects nothing."""
    if content is None:
        return None
    try:
        return _Owner(**parse_json(content, "lease"))
    except (ArtifactError, TypeError):
        return None


def _boot() -> str:
    """Identifies the machine since it was started; "" if it cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{boot} {socket.gethostname()}"


def _started(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was; 0 if there is none."""
    try:
        # The name of the program, in parentheses, may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] == "Z" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0
