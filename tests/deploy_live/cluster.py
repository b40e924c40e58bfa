"""Runs pods as local processes, and does what the kubelet, Deployments and Services do with them.

Each pod has its own address on the loopback interface, so that it can use the ports and names of
its manifest. Its Service's name resolves to the address from when it is ready until it stops.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy_check.objects import Object, Workload, port_names, workloads
from deploy_check.processes import (
    ProcessError,
    Server,
    Workspace,
    arguments_of,
    await_probe,
    container_of,
    environment_of,
    read_metrics,
)
from deploy_check.secrets import Secrets
from deploy_check.system import METRICS_PORT
from deploy_live.names import HostNames
from marquee_core.service_names import CF, GATEWAY, INFERENCE

SERVICES = (CF, INFERENCE, GATEWAY)
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@dataclass
class PodWorkspace(Workspace):
    """The address and the mounted folders of a pod.

    Attributes:
        ip: The pod's address.
        mounts: The local folder for each mount path.
    """

    ip: str = field(kw_only=True)
    mounts: Mapping[str, Path] = field(kw_only=True)

    def address(self, service: str, port: int) -> tuple[str, int]:
        """Returns the pod's address and the port of its manifest."""
        return self.ip, port

    def volume(self, path: str) -> Path:
        """Returns the local path for a path in the container."""
        mount = next(m for m in self.mounts if f"{path}/".startswith(f"{m}/"))
        return self.mounts[mount] / path.removeprefix(mount).strip("/")

    def localise(self, service: str, name: str, value: str) -> str:
        """Returns the local value of a variable; only addresses to listen on and paths differ."""
        if name.endswith("_LISTEN"):
            return f"{self.ip}:{value.rpartition(':')[2]}"
        return str(self.volume(value)) if value.startswith("/") else value


@dataclass(frozen=True)
class Pod:
    """A running pod.

    Attributes:
        service: Name of the service.
        workspace: The pod's address and folders.
        port: Port of its gRPC server.
        server: Its process.
    """

    service: str
    workspace: PodWorkspace
    port: int
    server: Server

    def sample(self, prefix: str) -> float:
        """Returns the sum of the metric samples that begin with a prefix (name and labels)."""
        lines = read_metrics(self.workspace, self.service, METRICS_PORT).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(prefix))


class Cluster:
    """The pods of an overlay.

    Attributes:
        pods: The running pods, oldest first.
    """

    def __init__(
        self,
        objects: list[Object],
        folder: Path,
        store: Path,
        secrets: Secrets,
        extra: Mapping[str, str],
    ) -> None:
        """Prepares the cluster without starting pods.

        Args:
            objects: The rendered objects.
            folder: Folder for the pods' own volumes and the logs.
            store: The folder behind the release store's claim.
            secrets: The overlay's certificates.
            extra: Additional environment variables of all servers; `SERVICE` in a name is replaced
                by the name of the service.
        """
        self.pods: list[Pod] = []
        self._workloads = {w.name.removeprefix("marquee-"): w for w in workloads(objects)}
        self._folder, self._store, self._secrets, self._extra = folder, store, secrets, extra
        self._names = HostNames(folder / "names")
        self._numbers = itertools.count(1)

    def of(self, service: str) -> list[Pod]:
        """Returns the pods of a service, oldest first."""
        return [pod for pod in self.pods if pod.service == service]

    def replicas(self, service: str) -> int:
        """Returns the number of replicas in the manifest."""
        found: int = self._workloads[service].spec["replicas"]
        return found

    def launch(self, service: str) -> Pod:
        """Starts the process of a new pod, which is not behind the Service's name yet."""
        number = next(self._numbers)
        folder = self._folder / f"{service}-{number}"
        folder.mkdir()
        workload = self._workloads[service]
        workspace = PodWorkspace(
            folder, ip=f"127.90.0.{number}", mounts=self._mounts(workload, folder)
        )
        container = container_of(workload)
        extra = {n.replace("SERVICE", service.upper()): v for n, v in self._extra.items()}
        environment = {**environment_of(workspace, service, container), **extra}
        server = Server(service, arguments_of(container), environment, folder / "log")
        pod = Pod(service, workspace, port_names(container)["grpc"], server)
        self.pods.append(pod)
        return pod

    def admit(self, pod: Pod) -> None:
        """Waits until a pod passes its probes, and adds its address to its Service's name.

        Raises:
            ProcessError: The process ended, or a probe does not pass.
        """
        container = container_of(self._workloads[pod.service])
        for probe in _PROBES:
            await_probe(pod.workspace, pod.server, container, probe)
        self._names.add(f"marquee-{pod.service}", pod.workspace.ip)

    def stop(self, pod: Pod) -> None:
        """Removes a pod from its Service, waits for its `preStop` time, and terminates it.

        Raises:
            ProcessError: It did not exit with status 0 within its termination grace period.
        """
        workload = self._workloads[pod.service]
        begun = time.monotonic()
        self._names.remove(f"marquee-{pod.service}", pod.workspace.ip)
        time.sleep(container_of(workload)["lifecycle"]["preStop"]["sleep"]["seconds"])
        pod.server.stop()
        self.pods.remove(pod)
        limit, took = workload.pod["terminationGracePeriodSeconds"], time.monotonic() - begun
        if took > limit:
            raise ProcessError(f"{pod.service} took {took:.0f} s to stop; the limit is {limit} s")

    def replace(self, pod: Pod) -> None:
        """Starts a pod of the same service, and stops this one once the new one is ready."""
        self.admit(self.launch(pod.service))
        self.stop(pod)

    def close(self) -> None:
        """Kills all pods, and removes the names."""
        for pod in self.pods:
            pod.server.kill()
        self._names.close()

    def _mounts(self, workload: Workload, folder: Path) -> dict[str, Path]:
        """Returns the local folder of each mount path: shared for claims and Secrets, else new."""
        sources = {v["name"]: v for v in workload.pod["volumes"]}
        mounts = {}
        for mount in container_of(workload)["volumeMounts"]:
            source = sources[mount["name"]]
            if "persistentVolumeClaim" in source:
                made = self._store
            elif "secret" in source:
                made = self._secrets.mounted(source["secret"]["secretName"])
            else:
                made = folder / mount["name"]
                made.mkdir()
            mounts[mount["mountPath"]] = made
        return mounts
