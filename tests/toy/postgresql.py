"""A private PostgreSQL server for tests, from the package of the distribution."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from locations import PROJECT
from ports import free_port

# Where Debian and its derivatives install the server's programs, one folder per version, and
# where `make` unpacks them if they are not installed.
_DEBIAN = Path("usr/lib/postgresql")
_FETCHED = PROJECT / ".postgresql"
_START_TIMEOUT_S = 120.0
_CHECK_INTERVAL_S = 0.05
# The server refuses to run as root.
_USERS = ("postgres", "nobody")
_ENOUGH_BYTES = 1 << 30


def programs() -> Path | None:
    """Return the folder of `initdb` and `postgres`, or None if they are not available."""
    for root in (Path("/"), _FETCHED):
        found = sorted(
            (folder for folder in (root / _DEBIAN).glob("*/bin") if (folder / "initdb").exists()),
            key=lambda folder: int(folder.parent.name),
        )
        if found:
            return found[-1]
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


class PostgreSQL:
    """A server in a temporary folder, on a free port of the loopback interface.

    Attributes:
        port: The port that the server listens on.
    """

    def __init__(self, bin_folder: Path) -> None:
        """Create a cluster and start the server.

        Args:
            bin_folder: The folder of `initdb` and `postgres`; see `programs`.
        """
        self._bin = bin_folder
        # Programs that are unpacked but not installed find their libraries here.
        libraries = ":".join(str(path) for path in (bin_folder.parents[2]).glob("*-linux-gnu*"))
        self._environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
        self._user = _unprivileged() if os.geteuid() == 0 else None
        # Not pytest's folder, which other users cannot access.
        self._folder = Path(tempfile.mkdtemp(prefix="marquee-postgresql-", dir=_memory_folder()))
        if self._user:
            shutil.chown(self._folder, self._user)
        self._databases = 0
        self.port = free_port()
        data = self._folder / "data"
        self._run("initdb", "-D", str(data), "-U", "marquee", "-A", "trust", "-E", "UTF8", "-N")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(
                    "postgres",
                    *("-D", str(self._folder / "data"), "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                ),
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(_CHECK_INTERVAL_S)

    def kill(self) -> None:
        """End the server immediately, as a crash would (SIGQUIT: no transaction is finished)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def stop(self) -> None:
        """Stop the server, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Create an empty database, and return its URL."""
        self._databases += 1
        name = f"feedback{self._databases}"
        self._psql("postgres", f"CREATE DATABASE {name}")
        return f"postgresql://marquee@127.0.0.1:{self.port}/{name}"

    def _answers(self) -> bool:
        return self._psql("postgres", "SELECT 1", check=False) == 0

    def _psql(self, database: str, statement: str, check: bool = True) -> int:
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "marquee")
        return subprocess.run(
            [str(self._bin / "psql"), *address, "-d", database, "-qc", statement],
            check=check,
            capture_output=True,
            env=self._environment,
        ).returncode

    def _run(self, program: str, *arguments: str) -> None:
        command = self._command(program, *arguments)
        subprocess.run(command, check=True, capture_output=True, env=self._environment)

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._bin / program), *arguments]
        if self._user is None:
            return command
        # Instead of Popen's `user`, which forks in a way that gRPC's threads do not survive.
        # `setpriv` replaces itself with the program, which therefore receives our signals.
        account = pwd.getpwnam(self._user)
        ids = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}")
        return ["setpriv", *ids, "--clear-groups", *command]


def _memory_folder() -> Path | None:
    """Return a folder in memory with enough room, or None for the default temporary folder.

    After a crash, the server first syncs its whole folder to disk, which takes long on a loaded
    machine. Files in memory survive the crash of a process as well.
    """
    folder = Path("/dev/shm")  # noqa: S108 - the name in it is random
    if folder.is_dir() and shutil.disk_usage(folder).free >= _ENOUGH_BYTES:
        return folder
    return None


def _unprivileged() -> str:
    """Return an unprivileged user that exists on this machine."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(user for user in _USERS if user in known)
