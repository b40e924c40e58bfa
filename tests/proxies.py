"""Runs the proxies that `make test` has unpacked from Debian's packages, or that are installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import yaml

from locations import PROJECT
from ports import free_port

_UNPACKED = PROJECT / ".proxies" / "usr"
# The folders of the unpacked packages' libraries, separated by colons.
LIBRARIES = ":".join(map(str, (_UNPACKED / "lib").glob("*-linux-gnu*")))
OVERLOAD_PROXY = PROJECT / "deploy" / "kustomize" / "components" / "overload-proxy"
_START_S = 30.0


def program(name: str) -> Path | None:
    """Returns the path of a proxy such as `haproxy`; None if this machine has none."""
    unpacked = _UNPACKED / "sbin" / name
    if unpacked.is_file():
        return unpacked
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    return Path(found) if found else None


def environment() -> dict[str, str]:
    """Returns the environment in which an unpacked program finds its libraries."""
    return {**os.environ, "LD_LIBRARY_PATH": LIBRARIES}


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program until the context ends.

    Args:
        command: The program and its arguments.
        log: The file for its output.
        variables: Environment variables in addition to those of this process.
    """
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**environment(), **(variables or {})},
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


@dataclass(frozen=True)
class Limits:
    """The limits of the overload proxy.

    Attributes:
        computed: The most calls in progress whose answers are probably computed.
        stored: The same for answers that are probably stored.
        queued: The most queued calls of each kind.
    """

    computed: int
    stored: int
    queued: int

    @classmethod
    def deployed(cls) -> Limits:
        """Returns the limits in the manifests."""
        patch = yaml.safe_load((OVERLOAD_PROXY / "gateway.yaml").read_text())
        (sidecar,) = patch["spec"]["template"]["spec"]["initContainers"]
        given = {e["name"]: e["value"] for e in sidecar["env"]}
        return cls(int(given["MAX_COMPUTED"]), int(given["MAX_STORED"]), int(given["MAX_QUEUED"]))

    @classmethod
    def parse(cls, text: str) -> Limits:
        """Parses limits such as `20:32:8`.

        Raises:
            ValueError: The text does not consist of three numbers.
        """
        computed, stored, queued = map(int, text.split(":"))
        return cls(computed, stored, queued)

    def __str__(self) -> str:
        return f"{self.computed}:{self.stored}:{self.queued}"


@dataclass(frozen=True)
class OverloadProxy:
    """A running overload proxy.

    Attributes:
        address: The address that callers call.
        metrics_port: The port of its metrics.
        process: Its process, which runs start.sh.
    """

    address: str
    metrics_port: int
    process: subprocess.Popen[bytes]

    def metrics(self) -> list[str]:
        """Returns the lines of its metrics."""
        with closing(HTTPConnection("127.0.0.1", self.metrics_port, timeout=_START_S)) as server:
            server.request("GET", "/metrics")
            return server.getresponse().read().decode().splitlines()

    def reload(self) -> None:
        """Makes HAProxy start a new process that takes over."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for child in map(int, children.split()):
            if Path(f"/proc/{child}/comm").read_text().strip() == "haproxy":
                os.kill(child, signal.SIGUSR2)


@contextmanager
def overload_proxy(
    gateway: str,
    folder: Path,
    limits: Limits | None = None,
    certificates: Path | None = None,
    queue_timeout: str = "1s",
) -> Iterator[OverloadProxy]:
    """Runs the overload proxy as the manifests do, in front of a gateway.

    Args:
        gateway: The gateway's address, `host:port`.
        folder: Folder for the log.
        limits: The limits; None for those in the manifests.
        certificates: A folder with `tls.crt`, `tls.key` and `ca.crt`; None for plaintext.
        queue_timeout: How long a call may be queued, with its unit.

    Raises:
        FileNotFoundError: This machine has no HAProxy.
        RuntimeError: The proxy does not start.
    """
    haproxy = program("haproxy")
    if haproxy is None:
        raise FileNotFoundError("haproxy is neither installed nor in .proxies")
    limits = limits or Limits.deployed()
    port, metrics_port = free_port(), free_port()
    variables = {
        "PATH": f"{haproxy.parent}:{os.environ['PATH']}",
        "CONFIG": str(OVERLOAD_PROXY / "haproxy.cfg"),
        "CERTIFICATES": str(certificates or folder / "no-certificates"),
        "RELOAD_S": "300",
        "LISTEN": f"127.0.0.1:{port}",
        "METRICS": f"127.0.0.1:{metrics_port}",
        "GATEWAY": gateway,
        "MAX_COMPUTED": str(limits.computed),
        "MAX_STORED": str(limits.stored),
        "MAX_QUEUED": str(limits.queued),
        "QUEUE_TIMEOUT": queue_timeout,
    }
    log = folder / "overload-proxy.log"
    with running(["sh", OVERLOAD_PROXY / "start.sh"], log, variables) as process:
        deadline = time.monotonic() + _START_S
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the overload proxy does not start: {log.read_text()}")
            time.sleep(0.02)
        yield OverloadProxy(f"127.0.0.1:{port}", metrics_port, process)


def _accepts(port: int) -> bool:
    with closing(socket.socket()) as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
