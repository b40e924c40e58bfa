"""Runs the services as child processes, for the demo, the benchmarks and the tests."""

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

from marquee_core.service_names import BACKENDS, CF, GATEWAY, INFERENCE

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_POLL_INTERVAL_S = 0.02
_LOG_CHARACTERS = 4000

PATIENCE = {"backend-timeout": "20"}
"""Flags of a gateway whose answers must be complete on a loaded machine too, as in a demo."""


class ServiceProcessError(RuntimeError):
    """A service did not start or did not become ready; the message ends with its log."""


class ServiceProcess:
    """A child process that runs `marquee serve`.

    Attributes:
        service: Name of the service, from `marquee_core.service_names`.
        address: The address on which it listens, host:port.
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
            service: Name of the service, from `marquee_core.service_names`.
            options: Values of flags by name without dashes; None for a flag without a value.
            log: File to which the process's stderr is appended.
            listen: Address to listen on; port 0 picks a free one.

        Raises:
            ServiceProcessError: The process ended, or did not listen in time.
        """
        self.service = service
        self._log = log
        with log.open("a") as stream:
            start = stream.tell()
            self._process = subprocess.Popen(  # noqa: S603 # nosec B603
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
                # Ctrl-C must reach only the parent, which then stops the services in order.
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
        """Whether the process is running."""
        return self._process.poll() is None

    def wait_until_serving(self, timeout: float = _START_TIMEOUT_S) -> None:
        """Waits until the health status is SERVING.

        Args:
            timeout: Seconds to wait.

        Raises:
            ServiceProcessError: The process ended, or was not ready in time.
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
                time.sleep(_POLL_INTERVAL_S)
        raise self._error("did not become ready")

    def stop(self) -> int:
        """Sends SIGTERM and waits for the process to end.

        Returns:
            The exit status.

        Raises:
            subprocess.TimeoutExpired: The process did not end in time, and was killed.
        """
        if self.running:
            self._process.terminate()
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Sends SIGKILL and waits for the process to end."""
        if self.running:
            self._process.kill()
        self._process.wait()

    def suspend(self) -> None:
        """Suspends the process (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resumes the process (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def _wait_for_port(self, start: int) -> int:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            with self._log.open() as stream:
                stream.seek(start)
                for line in stream:
                    if '"listening"' in line and line.endswith("\n"):
                        return int(json.loads(line)["port"])
            if not self.running:
                break
            time.sleep(_POLL_INTERVAL_S)
        raise self._error("did not start")

    def _error(self, what: str) -> ServiceProcessError:
        """Returns an error with the end of the service's log."""
        log = self._log.read_text()[-_LOG_CHARACTERS:]
        return ServiceProcessError(f"the service {self.service} {what}; its log ends with:\n{log}")


class ProcessGroup:
    """Services that are started and stopped together.

    As a context manager, it stops the services at the end, and kills them after an error.
    """

    def __init__(self) -> None:
        """Creates an empty group."""
        self._started: list[ServiceProcess] = []

    def stop(self) -> dict[str, int]:
        """Stops the services, the last started first; returns their exit statuses by name."""
        return {process.service: process.stop() for process in reversed(self._started)}

    def kill(self) -> None:
        """Kills the services."""
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
    """The CF service, the inference service and a gateway that share a release store.

    Attributes:
        cf: The process of the CF service.
        inference: The process of the inference service.
        gateway: The process of the gateway.
    """

    def __init__(
        self,
        store: str,
        log_folder: Path,
        gateway_listen: str = "127.0.0.1:0",
        options: Mapping[str, str | None] | None = None,
        gateway_options: Mapping[str, str | None] | None = None,
    ) -> None:
        """Starts the three services and waits until they are ready.

        Args:
            store: Folder or URL of the release store.
            log_folder: Folder for the log of each service, and for their copies of releases.
            gateway_listen: Address on which the gateway listens; port 0 picks a free one.
            options: Additional flags for all three services.
            gateway_options: Additional flags for the gateway.

        Raises:
            ServiceProcessError: A service ended, or was not ready in time.
        """
        super().__init__()
        log_folder.mkdir(parents=True, exist_ok=True)
        shared: dict[str, str | None] = {
            "store": store,
            "cache-dir": str(log_folder / "copies"),
            **(options or {}),
        }
        try:
            self.cf, self.inference = self._start_backends(shared, log_folder)
            self.gateway = ServiceProcess(
                GATEWAY,
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

    def _start_backends(
        self, options: Mapping[str, str | None], log_folder: Path
    ) -> tuple[ServiceProcess, ServiceProcess]:
        """Starts both backends at the same time, because importing TensorFlow takes seconds."""
        errors: list[BaseException] = []
        started: dict[str, ServiceProcess] = {}

        def start(service: str) -> None:
            try:
                started[service] = ServiceProcess(service, options, log_folder / f"{service}.log")
                self._started.append(started[service])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=start, args=(name,)) for name in BACKENDS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return started[CF], started[INFERENCE]

    def replace(self, process: ServiceProcess) -> None:
        """Replaces the process of the same service, without stopping the old one."""
        self._started = [p for p in self._started if p.service != process.service]
        self._started.insert(0, process)
        setattr(self, process.service, process)
