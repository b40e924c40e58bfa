"""The processes that are measured: the services, the echo server, and what they take."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from marquee_services.processes import ProcessGroup, ServiceProcess

SERVICES = ("cf", "inference", "gateway")


class Services(ProcessGroup):
    """The services over one release store, started one after another.

    Attributes:
        start_s: Seconds from each one's start until it serves; the gateway's backends serve then.
    """

    def __init__(
        self, store: str, logs: Path, gateway_options: Mapping[str, str] | None = None
    ) -> None:
        """Starts all and waits until they serve.

        Args:
            store: The release store.
            logs: Holds a log for each service.
            gateway_options: Further flags of the gateway.

        Raises:
            RuntimeError: One ended, or did not serve in time.
        """
        super().__init__()
        logs.mkdir(parents=True, exist_ok=True)
        self.start_s: dict[str, float] = {}
        try:
            for service in SERVICES:
                options = {"store": store}
                if service == "gateway":
                    options |= {
                        f"{name}-target": process.address
                        for name, process in self.processes.items()
                    }
                    options |= gateway_options or {}
                start = time.perf_counter()
                process = ServiceProcess(service, options, logs / f"{service}.log")
                self._started.append(process)
                process.wait_until_serving()
                self.start_s[service] = time.perf_counter() - start
        except BaseException:
            self.kill()
            raise

    def behind(self, gateway: ServiceProcess) -> Services:
        """The same backends behind another gateway, which is not stopped with them."""
        other = copy.copy(self)
        other._started = [p for p in self._started if p is not self.gateway] + [gateway]
        return other

    @property
    def processes(self) -> dict[str, ServiceProcess]:
        """By service."""
        return {process.service: process for process in self._started}

    @property
    def gateway(self) -> ServiceProcess:
        """The gateway."""
        return self.processes["gateway"]

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by service."""
        return {name: process.pid for name, process in self.processes.items()}


class EchoServer:
    """The reference server.

    Attributes:
        address: Where it listens.
        pid: Its process id.
    """

    def __init__(self, size: int) -> None:
        """Starts it and waits until it listens.

        Args:
            size: Bytes of its answer.

        Raises:
            RuntimeError: It ended.
        """
        with ExitStack() as stack:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.echo", f"--size={size}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(self.stop)
            assert self._process.stdout
            port = self._process.stdout.readline().strip()
            if not port:
                raise RuntimeError("the echo server did not start")
            self.address = f"127.0.0.1:{port}"
            self.pid = self._process.pid
            stack.pop_all()

    def stop(self) -> None:
        """Stops it."""
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@dataclass(frozen=True)
class Memory:
    """What a process takes, its children included, in bytes.

    Attributes:
        resident: RSS.
        proportional: PSS: pages that are shared count by their share.
        mapped: The part of RSS that is files of the release store.
    """

    resident: int
    proportional: int
    mapped: int


def memory_of(pid: int, store: Path) -> Memory:
    """Reads what a process and its children take (Linux).

    Args:
        pid: The process.
        store: The release store, whose files are told apart.
    """
    totals = {"Rss:": 0, "Pss:": 0}
    mapped = 0
    root = str(store.resolve())
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        in_store = False
        for line in Path(f"/proc/{one.pid}/smaps").read_text().splitlines():
            fields = line.split()
            if not fields[0].endswith(":"):
                in_store = line.find(root) >= 0
            elif fields[0] in totals:
                size = int(fields[1]) * 1024
                totals[fields[0]] += size
                mapped += size if in_store and fields[0] == "Rss:" else 0
    return Memory(totals["Rss:"], totals["Pss:"], mapped)


def idle_shares(pids: Mapping[str, int], seconds: float) -> dict[str, float]:
    """CPU that processes use while nothing is asked of them, as shares of one core."""
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    before = {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}
    time.sleep(seconds)
    return {
        name: (sum(p.cpu_times()[:2]) - before[name]) / seconds for name, p in processes.items()
    }
