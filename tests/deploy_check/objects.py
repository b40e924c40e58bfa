"""The objects of rendered manifests, and helpers to resolve selectors, ports and variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


@dataclass(frozen=True)
class Finding:
    """A problem in a deployment.

    Attributes:
        where: The object or file, such as `Deployment/marquee-gateway`.
        what: The problem.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Workload:
    """An object that creates pods.

    Attributes:
        kind: Its kind, such as `Deployment`.
        name: Its name.
        spec: Its specification; for a CronJob, that of its Job.
    """

    kind: str
    name: str
    spec: Object

    @property
    def where(self) -> str:
        """The object's name in findings."""
        return f"{self.kind}/{self.name}"

    @property
    def pod(self) -> Object:
        """The specification of its pods."""
        pod: Object = self.spec["template"]["spec"]
        return pod

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of its pods."""
        labels: Mapping[str, str] = self.spec["template"].get("metadata", {}).get("labels", {})
        return labels

    @property
    def containers(self) -> list[Object]:
        """The containers of its pods in starting order, init containers first."""
        return [*self.pod.get("initContainers", ()), *self.pod["containers"]]

    @property
    def is_job(self) -> bool:
        """Whether its pods run to completion."""
        return self.kind in ("Job", "CronJob")

    @property
    def is_ours(self) -> bool:
        """Whether all its containers except sidecars run images of this project."""
        return all(
            image_name(c["image"]) is not None for c in self.containers if not _is_sidecar(c)
        )


def _is_sidecar(container: Object) -> bool:
    """Returns whether a container starts before the pod's main containers and stops after them."""
    return bool(container.get("restartPolicy") == "Always")


def image_name(image: str) -> str | None:
    """Returns the Dockerfile target that an image was built from; None for a third-party image."""
    repository = image.split("@")[0]
    head, _, last = repository.rpartition("/")
    name = last.split(":")[0]
    if name.startswith("marquee-"):
        return name.removeprefix("marquee-")
    return name if head.endswith("/marquee") else None


def kinds(objects: list[Object], kind: str) -> dict[str, Object]:
    """Returns the objects of a kind by name."""
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def where(item: Object) -> str:
    """Returns the name of an object in findings."""
    return f"{item['kind']}/{item['metadata']['name']}"


def workloads(objects: list[Object]) -> list[Workload]:
    """Returns all objects that create pods."""
    found = []
    for item in objects:
        if item["kind"] in _WORKLOADS:
            spec = item["spec"]
            spec = spec["jobTemplate"]["spec"] if item["kind"] == "CronJob" else spec
            found.append(Workload(item["kind"], item["metadata"]["name"], spec))
    return found


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Returns whether a label selector, or a Service's selector, selects pods with these labels.

    Raises:
        ValueError: The selector has an operator other than `In`.
    """
    if selector and not {"matchLabels", "matchExpressions"} & selector.keys():
        return selector.items() <= labels.items()
    for expression in selector.get("matchExpressions", ()):
        if expression["operator"] != "In":
            raise ValueError(f"unknown operator {expression['operator']}")
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    required: Mapping[str, str] = selector.get("matchLabels", {})
    return required.items() <= labels.items()


def port_names(container: Object) -> dict[str, int]:
    """Returns the numbers of a container's named ports."""
    return {p["name"]: p["containerPort"] for p in container.get("ports", ()) if "name" in p}


def port_number(container: Object, port: str | int) -> int | None:
    """Returns the number of a container's port given by name or number; None if it has none."""
    if isinstance(port, int):
        return port if port in [p["containerPort"] for p in container.get("ports", ())] else None
    return port_names(container).get(port)


def variables(container: Object) -> dict[str, str]:
    """Returns the environment variables of a container that have a literal value."""
    return {e["name"]: e["value"] for e in container.get("env", ()) if "value" in e}


def referenced_keys(workload: Workload) -> Iterator[tuple[str, str, str]]:
    """Yields the kind, name and key of all ConfigMap and Secret entries that a pod requires."""
    for container in workload.containers:
        for variable in container.get("env", ()):
            source = variable.get("valueFrom", {})
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if field in source and not source[field].get("optional"):
                    yield kind, source[field]["name"], source[field]["key"]
    for volume in workload.pod.get("volumes", ()):
        for field, kind, name in (
            ("secret", "Secret", "secretName"),
            ("configMap", "ConfigMap", "name"),
        ):
            if field in volume and not volume[field].get("optional"):
                items = volume[field].get("items") or [{"key": ""}]
                for item in items:
                    yield kind, volume[field][name], item["key"]
