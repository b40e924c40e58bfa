"""A lease in a store, which ensures that only one process at a time does something, such as train.

The file of a lease records its owner and when it expires. The owner renews it in a thread, so the
lease of a killed process expires by itself. On the same machine, the lease of a process that has
ended can be taken immediately.
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
    """The owner of a lease.

    Attributes:
        name: A human-readable name: the user, host and process.
        token: A random token that identifies the lease.
        boot: The boot id of the machine and the host name of the process.
        pid: The process id.
        started: The start time of the process, in clock ticks since the machine was booted.
        since: When the lease was taken, RFC 3339.
        expires: When the lease expires, in seconds since 1970; 0 if it was released.
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
        """Whether the lease has expired, or its process has ended."""
        if self.expires <= time.time():
            return True
        is_local = self.boot == _boot_id()
        return is_local and (not self.started or _start_time(self.pid) != self.started)


class Lease:
    """Holds a lease for the duration of a `with` block.

    Attributes:
        lost: Set when the lease could not be renewed in time, so another process may hold it.
    """

    def __init__(self, storage: Storage, path: str, expires_s: float = EXPIRES_S) -> None:
        """Creates a lease, which is taken when the `with` block is entered.

        Args:
            storage: The store.
            path: The file of the lease.
            expires_s: Seconds after the last renewal until other processes may take the lease.
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
            LeaseHeldError: It was lost, for example because the machine was suspended.
        """
        if self.lost.is_set():
            raise LeaseHeldError(f"the lease {self._path} was lost: it was not renewed in time")

    def release(self) -> None:
        """Releases the lease. It may be called from any thread and more than once."""
        self._stop.set()
        try:
            self._storage.update(self._path, lambda content: self._change(content, 0.0))
        except (LeaseHeldError, OSError):
            return  # Another process holds it, or it will expire by itself.

    def _take(self, content: bytes | None) -> bytes:
        owner = _parse(content)
        if owner is not None and not owner.is_free:
            until = datetime.fromtimestamp(owner.expires, UTC).isoformat(timespec="seconds")
            raise LeaseHeldError(
                f"{owner.name} has held {self._path} since {owner.since}; unless renewed, it "
                f"expires at {until}"
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
            _boot_id(),
            pid,
            _start_time(pid),
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
    """Returns the owner; None if there is none, or if the file is damaged."""
    if content is None:
        return None
    try:
        return _Owner(**parse_json(content, "lease"))
    except (ArtifactError, TypeError):
        return None


def _boot_id() -> str:
    """Returns the boot id of this machine and its host name; "" if the id cannot be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{boot} {socket.gethostname()}"


def _start_time(pid: int) -> int:
    """Returns a process's start time, in clock ticks since boot; 0 if there is no such process."""
    try:
        # The name of the program, in parentheses, may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] == "Z" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0
