"""Starts the services as processes of their own, for the demo, the benchmarks and the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 30.0
_POLL_S = 0.02


class ServiceProcess:
    """A service that runs `marquee serve`.

    Attributes:
        service: `cf`, `inference` or `gateway`.
        address: Where it listens, host:port.
    """

    def __init__(
        self,
        service: str,
        options: Mapping[str, str | None],
        log: Path,
        listen: str = "127.0.0.1:0",
    ) -> None:
        """Starts the process and waits until it listens.

        Args:
            service: `cf`, `inference` or `gateway`.
            options: Flags without their dashes, and values; None for a flag that takes none.
            log: Where its stderr goes; appended to.
            listen: The address; port 0 picks a free one.

        Raises:
            RuntimeError: It ended, or did not listen in time.
        """
        self.service = service
        self._log = log
        with log.open("a") as stream:
            start = stream.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [
                    *(sys.executable, "-m", "marquee.cli", "serve", service),
                    f"--listen={listen}",
                    *(
                        f"--{name}" if value is None else f"--{name}={value}"
                        for name, value in options.items()
                    ),
                ],
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # Ctrl-C is for the parent, which then stops its services in order.
                start_new_session=True,
            )
        try:
            port = self._wait_for_port(start)
        except BaseException:
            self.kill()
            raise
        self.address = f"{listen.rsplit(':', 1)[0]}:{port}"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def wait_until_serving(self, timeout: float = _START_LIMIT_S) -> None:
        """Waits until the health service says SERVING.

        Raises:
            RuntimeError: It ended, or did not serve in time.
        """
        deadline = time.monotonic() + timeout
        with grpc.insecure_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < deadline and self.running:
                try:
                    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                except grpc.RpcError:
                    answer = None
                if answer and answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                time.sleep(_POLL_S)
        raise RuntimeError(f"{self.service} does not serve:\n{self._log.read_text()[-4000:]}")

    def stop(self) -> int:
        """Sends SIGTERM and waits; the exit status."""
        if self.running:
            self._process.terminate()
        try:
            return self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Sends SIGKILL and waits."""
        if self.running:
            self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Sends SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Sends SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def _wait_for_port(self, start: int) -> int:
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline:
            with self._log.open() as stream:
                stream.seek(start)
                for line in stream:
                    if '"listening"' in line and line.endswith("\n"):
                        return int(json.loads(line)["port"])
            if not self.running:
                break
            time.sleep(_POLL_S)
        raise RuntimeError(f"{self.service} did not start:\n{self._log.read_text()[-4000:]}")


class ProcessGroup:
    """Services that are started together; left by an error, they are killed."""

    def __init__(self) -> None:
        """Begins empty."""
        self._started: list[ServiceProcess] = []

    def stop(self) -> dict[str, int]:
        """Stops all, the last started first; exit statuses by service."""
        return {process.service: process.stop() for process in reversed(self._started)}

    def kill(self) -> None:
        """Kills all."""
        for process in self._started:
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        else:
            self.kill()


class ServiceGroup(ProcessGroup):
    """The CF service, the inference service and a gateway over one release store.

    Attributes:
        cf: The CF service.
        inference: The inference service.
        gateway: The gateway.
    """

    def __init__(
        self,
        store: str,
        log_folder: Path,
        gateway_listen: str = "127.0.0.1:0",
        options: Mapping[str, str | None] | None = None,
        gateway_options: Mapping[str, str | None] | None = None,
    ) -> None:
        """Starts the three and waits until they serve.

        Args:
            store: The release store.
            log_folder: Holds a log for each service.
            gateway_listen: Where the gateway listens.
            options: Further flags of all three.
            gateway_options: Further flags of the gateway.

        Raises:
            RuntimeError: One ended, or did not serve in time.
        """
        super().__init__()
        log_folder.mkdir(parents=True, exist_ok=True)
        shared = {"store": store, **(options or {})}
        try:
            self.cf, self.inference = self._start_both(shared, log_folder)
            self.gateway = ServiceProcess(
                "gateway",
                {
                    **shared,
                    "cf-target": self.cf.address,
                    "inference-target": self.inference.address,
                    **(gateway_options or {}),
                },
                log_folder / "gateway.log",
                gateway_listen,
            )
            self._started.append(self.gateway)
            for process in self._started:
                process.wait_until_serving()
        except BaseException:
            self.kill()
            raise

    def _start_both(
        self, options: Mapping[str, str | None], log_folder: Path
    ) -> tuple[ServiceProcess, ServiceProcess]:
        """Starts the backends side by side: TensorFlow takes seconds to import."""
        errors: list[BaseException] = []
        found: dict[str, ServiceProcess] = {}

        def start(service: str) -> None:
            try:
                found[service] = ServiceProcess(service, options, log_folder / f"{service}.log")
                self._started.append(found[service])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=start, args=(name,)) for name in ("cf", "inference")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return found["cf"], found["inference"]

    def replace(self, process: ServiceProcess) -> None:
        """Takes a process in the place of the one of the same service."""
        self._started = [p for p in self._started if p.service != process.service]
        self._started.insert(0, process)
        setattr(self, process.service, process)
