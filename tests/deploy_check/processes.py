"""Starts the commands of rendered manifests as processes of this machine, as a kubelet would.

Only what a pod gets from its surroundings is replaced: paths of volumes by folders, addresses and
ports by free ones on the loopback interface, and object storage by a folder.
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

WAIT_S = 180.0
INTERVAL_S = 0.05
_SERVERS = (CF, INFERENCE, GATEWAY)


class ProcessError(RuntimeError):
    """A rendered command did not do what its manifest promises."""


@dataclass
class Workspace:
    """Where the processes of an overlay run.

    Attributes:
        folder: Holds the volumes and the logs.
        ports: The local port for each service and port of a manifest.
    """

    folder: Path
    ports: dict[tuple[str, int], int] = field(default_factory=dict)

    def port(self, service: str, port: int) -> int:
        """The local port that stands for a service's port."""
        if (service, port) not in self.ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.ports[service, port] = free.getsockname()[1]
        return self.ports[service, port]

    def address(self, service: str, port: int) -> tuple[str, int]:
        """The local address that stands for a service's port: host and port."""
        return "127.0.0.1", self.port(service, port)

    def volume(self, path: str) -> Path:
        """The folder that stands for a path in a container."""
        return self.folder / "volumes" / path.strip("/")

    def localise(self, service: str, name: str, value: str) -> str:
        """The value of a variable as it is on this machine.

        Args:
            service: The service whose container has the variable.
            name: The variable's name.
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
    """A server of the manifests, as a process that can be ended and started again.

    Attributes:
        name: The name of the service.
        process: The process that was started last.
    """

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], log: Path):
        """Starts the process; its output is appended to `log`."""
        self.name = name
        self._arguments, self._environment, self._log = arguments, environment, log
        self.start()

    def start(self, extra: Mapping[str, str] | None = None) -> None:
        """Starts the process, anew if it has ended.

        Args:
            extra: Variables beside those that it was first started with.
        """
        environment = {**self._environment, **(extra or {})}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._arguments, env=environment, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        """The end of its output."""
        return self._log.read_text()[-2000:]

    def stop(self) -> Step:
        """Stops the process as a kubelet does.

        Raises:
            ProcessError: It did not end with status 0.
        """
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(WAIT_S)
        if status:
            raise ProcessError(f"{self.name} ended with {status} after SIGTERM: {self.log}")
        return Step("ends with 0 after SIGTERM", time.monotonic() - begun)

    def kill(self) -> None:
        """Kills the process, if it runs, and waits for it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Step:
    """A check of a process that passed.

    Attributes:
        what: What was checked.
        seconds: How long it took.
    """

    what: str
    seconds: float


def container_of(workload: Workload, name: str | None = None) -> Object:
    """A container of a workload by name; the first one by default."""
    found = workload.containers
    return next(c for c in found if name is None or c["name"] == name)


def environment_of(workspace: Workspace, service: str, container: Object) -> dict[str, str]:
    """The environment of a container's process on this machine."""
    own = {n: v for n, v in os.environ.items() if not n.startswith("MARQUEE_")}
    temporary = workspace.volume("/tmp")  # noqa: S108 - a path in the container
    temporary.mkdir(parents=True, exist_ok=True)
    given = {n: workspace.localise(service, n, v) for n, v in variables(container).items()}
    return {**own, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1", **given}


def arguments_of(container: Object) -> list[str]:
    """The command line of a container, with this environment's `marquee`."""
    name = image_name(container["image"])
    if name is None:
        raise ProcessError(f"{container['image']} is not an image of ours")
    program, *rest = command_line(container, images()[name])
    if program != "marquee":
        raise ProcessError(f"{container['name']} runs {program}, which the image does not have")
    return [sys.executable, "-m", "marquee.cli", *rest]


def run_to_end(workspace: Workspace, container: Object, extra: Mapping[str, str]) -> Step:
    """Runs a container of a Job, and waits for it to end.

    Args:
        workspace: Where it runs.
        container: The container.
        extra: Variables that make it quick, beside those of the manifest.

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
            f"{container['name']} ended with {ended.returncode}: {ended.stderr[-2000:]}"
        )
    return Step(f"{container['name']} ended with 0", time.monotonic() - started)


@contextmanager
def running_servers(
    objects: list[Object],
    workspace: Workspace,
    on_step: Callable[[str, Step], None],
    extra: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[dict[str, Server]]:
    """Starts the three servers of an overlay, and stops them as a kubelet does.

    Args:
        objects: The rendered objects.
        workspace: Where they run; its store must hold a release in production.
        on_step: Called with the name of a service and each check that it passed.
        extra: Variables of services, by name, beside those of the manifests.

    Raises:
        ProcessError: A server ended, did not pass its probes, or did not stop with status 0.
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
        ProcessError: It ended, or does not pass.
    """
    begun, action = time.monotonic(), container[probe]
    while not _passes(workspace, server.name, container, action):
        if server.process.poll() is not None or time.monotonic() - begun > WAIT_S:
            raise ProcessError(f"{server.name} does not pass its {probe}; its log: {server.log}")
        time.sleep(INTERVAL_S)
    return Step(f"passes its {probe}", time.monotonic() - begun)


def _passes(workspace: Workspace, service: str, container: Object, action: Object) -> bool:
    """Whether a probe passes: as the kubelet does, in plaintext."""
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
    """The metrics that a server exposes on a port of its manifest."""
    host, local = workspace.address(service, port)
    with urllib.request.urlopen(f"http://{host}:{local}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text
