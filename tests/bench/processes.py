"""Starts the processes to measure, and reads their memory and CPU time."""

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

from marquee_core.service_names import BACKENDS, GATEWAY
from marquee_services.processes import ProcessGroup, ServiceProcess

SERVICES = (*BACKENDS, GATEWAY)


class Services(ProcessGroup):
    """The three services on one release store, started one after another.

    Attributes:
        start_s: Seconds from the start of each service until SERVING. The gateway is started last,
            once its backends serve.
    """

    def __init__(
        self,
        store: str,
        logs: Path,
        gateway_options: Mapping[str, str | None] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the services and waits until they serve.

        Args:
            store: URL of the release store.
            logs: Folder for the log of each service.
            gateway_options: Additional flags of the gateway, without the leading dashes.
            options: Additional flags of all services.

        Raises:
            RuntimeError: A service ended, or did not serve in time.
        """
        super().__init__()
        logs.mkdir(parents=True, exist_ok=True)
        self.start_s: dict[str, float] = {}
        try:
            for service in SERVICES:
                flags: dict[str, str | None] = {"store": store, **(options or {})}
                if service == GATEWAY:
                    flags |= {
                        f"{name}-target": process.address
                        for name, process in self.processes.items()
                    }
                    # High limits, because the benchmark measures the capacity of the servers.
                    limits = {"min-in-flight": "1024", "max-streams": "256"}
                    flags |= limits | dict(gateway_options or {})
                start = time.perf_counter()
                process = ServiceProcess(service, flags, logs / f"{service}.log")
                self._started.append(process)
                process.wait_until_serving()
                self.start_s[service] = time.perf_counter() - start
        except BaseException:
            self.kill()
            raise

    def behind(self, gateway: ServiceProcess) -> Services:
        """Returns the same backends with another gateway, which the caller must stop."""
        other = copy.copy(self)
        other._started = [p for p in self._started if p is not self.gateway] + [gateway]
        return other

    @property
    def processes(self) -> dict[str, ServiceProcess]:
        """The processes by the name of the service."""
        return {process.service: process for process in self._started}

    @property
    def gateway(self) -> ServiceProcess:
        """The gateway."""
        return self.processes[GATEWAY]

    @property
    def pids(self) -> dict[str, int]:
        """The process ids by the name of the service."""
        return {name: process.pid for name, process in self.processes.items()}


class EchoServer:
    """The process of the reference server.

    Attributes:
        address: The host and port that it listens on.
        pid: Its process id.
    """

    def __init__(self, size: int) -> None:
        """Starts the server and waits until it listens.

        Args:
            size: Size of its answers in bytes.

        Raises:
            RuntimeError: The server ended before it listened.
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
        """Stops the server."""
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
    """Memory of a process and its children, in bytes.

    Attributes:
        resident: Resident set size (RSS).
        proportional: Proportional set size (PSS): a page shared by n processes counts as 1/n.
        mapped: The part of the RSS in memory-mapped arrays.
    """

    resident: int
    proportional: int
    mapped: int


def memory_of(pid: int) -> Memory:
    """Reads the memory of a process and its children from /proc (Linux only).

    Args:
        pid: The process id.
    """
    totals = {"Rss:": 0, "Pss:": 0}
    mapped = 0
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        is_array = False
        for line in Path(f"/proc/{one.pid}/smaps").read_text().splitlines():
            fields = line.split()
            if not fields[0].endswith(":"):
                is_array = line.endswith(".npy")
            elif fields[0] in totals:
                size = int(fields[1]) * 1024
                totals[fields[0]] += size
                mapped += size if is_array and fields[0] == "Rss:" else 0
    return Memory(totals["Rss:"], totals["Pss:"], mapped)


def idle_shares(pids: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Measures the CPU time of processes, as shares of one core.

    Args:
        pids: The process ids by name.
        seconds: Duration of the measurement in seconds.
    """
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    before = {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}
    time.sleep(seconds)
    return {
        name: (sum(p.cpu_times()[:2]) - before[name]) / seconds for name, p in processes.items()
    }
