"""Starts the commands of rendered manifests as local processes, as the kubelet would.

Only a pod's environment is replaced: volumes and object storage by local folders, and addresses and
ports by free ports of the loopback interface.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy_check.images import images
from deploy_check.objects import Object, Workload, image_name, port_number, variables, workloads
from deploy_check.settings import command_line
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from ports import free_port

WAIT_S = 180.0
INTERVAL_S = 0.05
_SERVERS = (CF, INFERENCE, GATEWAY)


class ProcessError(RuntimeError):
    """A command of a manifest failed, or did not behave as its manifest specifies."""


@dataclass
class Workspace:
    """The local folders and ports of an overlay's processes.

    Attributes:
        folder: Folder for the volumes and the logs.
        ports: The local port for each service and port in the manifests.
    """

    folder: Path
    ports: dict[tuple[str, int], int] = field(default_factory=dict)

    def port(self, service: str, port: int) -> int:
        """Returns the local port for a service's port."""
        if (service, port) not in self.ports:
            self.ports[service, port] = free_port()
        return self.ports[service, port]

    def address(self, service: str, port: int) -> tuple[str, int]:
        """Returns the local host and port for a service's port."""
        return "127.0.0.1", self.port(service, port)

    def volume(self, path: str) -> Path:
        """Returns the local folder for a path in a container."""
        return self.folder / "volumes" / path.strip("/")

    def localise(self, service: str, name: str, value: str) -> str:
        """Translates the value of an environment variable to this machine.

        Args:
            service: The service whose container has the variable.
            name: Name of the variable.
            value: Its value in the manifest.
        """
        if name.endswith("_LISTEN"):
            return f"127.0.0.1:{self.port(service, int(value.rpartition(':')[2]))}"
        if name.endswith(("_METRICS_PORT", "_HEALTH_PORT")):
            return str(self.port(service, int(value)))
        if value.startswith("dns:///marquee-"):
            target, _, port = value.removeprefix("dns:///marquee-").partition(":")
            return f"dns:///127.0.0.1:{self.port(target, int(port))}"
        if value.startswith("s3://marquee-releases"):
            return str(self.volume("/store"))
        if value.startswith("s3://marquee-ratings"):
            return str(self.volume("/ratings"))
        if value.startswith("/tls/"):
            return str(self.volume("/tls") / f"marquee-{service}-tls" / Path(value).name)
        return str(self.volume(value)) if value.startswith("/") else value


class Server:
    """A server of the manifests, run as a local process that can be restarted.

    Attributes:
        name: Name of the service.
        process: The most recent process.
    """

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], log: Path):
        """Starts the process; its output is appended to `log`."""
        self.name = name
        self._arguments, self._environment, self._log = arguments, environment, log
        self.start()

    def start(self, extra: Mapping[str, str] | None = None) -> None:
        """Starts the process, or restarts it after it has ended.

        Args:
            extra: Environment variables in addition to those given at construction.
        """
        environment = {**self._environment, **(extra or {})}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._arguments, env=environment, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        """The last 2,000 characters of the process's output."""
        return self._log.read_text()[-2000:]

    def stop(self) -> Step:
        """Terminates the process as the kubelet does.

        Raises:
            ProcessError: It did not exit with status 0.
        """
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(WAIT_S)
        if status:
            raise ProcessError(f"{self.name} exited with {status} after SIGTERM: {self.log}")
        return Step("exits with 0 after SIGTERM", time.monotonic() - begun)

    def kill(self) -> None:
        """Kills the process if it is running, and waits for it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Step:
    """A check of a process that has passed.

    Attributes:
        what: What was checked.
        seconds: Duration in seconds.
    """

    what: str
    seconds: float


def container_of(workload: Workload, name: str | None = None) -> Object:
    """Returns a container of a workload by name; the first one by default."""
    found = workload.containers
    return next(c for c in found if name is None or c["name"] == name)


def environment_of(workspace: Workspace, service: str, container: Object) -> dict[str, str]:
    """Returns the environment of a container's process on this machine."""
    own = {n: v for n, v in os.environ.items() if not n.startswith("MARQUEE_")}
    temporary = workspace.volume("/tmp")  # noqa: S108 - a path in the container
    temporary.mkdir(parents=True, exist_ok=True)
    given = {n: workspace.localise(service, n, v) for n, v in variables(container).items()}
    return {**own, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1", **given}


def arguments_of(container: Object) -> list[str]:
    """Returns the command line of a container, with this environment's `marquee`.

    Raises:
        ProcessError: The image is not one of this project's, or the command is not `marquee`.
    """
    name = image_name(container["image"])
    if name is None:
        raise ProcessError(f"{container['image']} is not an image of this project")
    program, *rest = command_line(container, images()[name])
    if program != "marquee":
        raise ProcessError(f"{container['name']} runs {program}, which the image does not contain")
    return [sys.executable, "-m", "marquee.cli", *rest]


def run_to_end(workspace: Workspace, container: Object, extra: Mapping[str, str]) -> Step:
    """Runs a container of a Job to completion.

    Args:
        workspace: The local folders and ports.
        container: The container.
        extra: Environment variables in addition to those of the manifest.

    Raises:
        ProcessError: It failed.
    """
    started = time.monotonic()
    ended = subprocess.run(
        arguments_of(container),
        env={**environment_of(workspace, "trainer", container), **extra},
        capture_output=True,
        text=True,
        timeout=WAIT_S * 4,
    )
    if ended.returncode:
        raise ProcessError(
            f"{container['name']} exited with {ended.returncode}: {ended.stderr[-2000:]}"
        )
    return Step(f"{container['name']} exited with 0", time.monotonic() - started)


@contextmanager
def running_servers(
    objects: list[Object],
    workspace: Workspace,
    on_step: Callable[[str, Step], None],
    extra: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[dict[str, Server]]:
    """Runs the three servers of an overlay, and terminates them as the kubelet does.

    Args:
        objects: The rendered objects.
        workspace: The local folders and ports; the store must have a release in production.
        on_step: Called with the name of a service and each check that it has passed.
        extra: Environment variables by service, in addition to those of the manifests.

    Raises:
        ProcessError: A server ended early, failed a probe, or did not exit with status 0.
    """
    by_name = {w.name.removeprefix("marquee-"): w for w in workloads(objects)}
    containers = {name: container_of(by_name[name]) for name in _SERVERS}
    started: dict[str, Server] = {}
    logs = workspace.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        for name, container in containers.items():
            environment = {
                **environment_of(workspace, name, container),
                **(extra or {}).get(name, {}),
            }
            arguments = arguments_of(container)
            started[name] = Server(name, arguments, environment, logs / f"{name}.log")
        for name, container in containers.items():
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                on_step(name, await_probe(workspace, started[name], container, probe))
        yield started
        for name in reversed(_SERVERS):
            on_step(name, started[name].stop())
    finally:
        for server in started.values():
            server.kill()


def await_probe(workspace: Workspace, server: Server, container: Object, probe: str) -> Step:
    """Waits until a server passes a probe of its container.

    Raises:
        ProcessError: The server ended, or the probe does not pass in time.
    """
    begun, action = time.monotonic(), container[probe]
    while not _passes(workspace, server.name, container, action):
        if server.process.poll() is not None or time.monotonic() - begun > WAIT_S:
            raise ProcessError(f"{server.name} does not pass its {probe}; log: {server.log}")
        time.sleep(INTERVAL_S)
    return Step(f"passes its {probe}", time.monotonic() - begun)


def _passes(workspace: Workspace, service: str, container: Object, action: Object) -> bool:
    """Returns whether a probe passes, called in plaintext as by the kubelet."""
    if "tcpSocket" in action:
        number = port_number(container, action["tcpSocket"]["port"])
        if number is None:
            raise ProcessError(f"{service} has no port {action['tcpSocket']['port']}")
        with socket.socket() as connection:
            return connection.connect_ex(workspace.address(service, number)) == 0
    request = health_pb2.HealthCheckRequest(service=action["grpc"].get("service", ""))
    host, port = workspace.address(service, action["grpc"]["port"])
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def read_metrics(workspace: Workspace, service: str, port: int) -> str:
    """Reads the metrics that a server exposes on a port of its manifest."""
    host, local = workspace.address(service, port)
    with urllib.request.urlopen(f"http://{host}:{local}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text
