"""The objects of rendered manifests, and how to find what belongs together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a deployment.

    Attributes:
        where: The object or file, for example `Deployment/marquee-gateway`.
        what: What is wrong with it.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Workload:
    """An object that starts pods.

    Attributes:
        kind: Its kind, for example `Deployment`.
        name: Its name.
        spec: The specification of the object, or of the CronJob's Job.
    """

    kind: str
    name: str
    spec: Object

    @property
    def where(self) -> str:
        """How findings name it."""
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
        """The containers of its pods in the order in which they start."""
        return [*self.pod.get("initContainers", ()), *self.pod["containers"]]

    @property
    def is_job(self) -> bool:
        """Whether its pods end by themselves."""
        return self.kind in ("Job", "CronJob")

    @property
    def is_ours(self) -> bool:
        """Whether it runs one of the project's images."""
        return all(image_name(c["image"]) is not None for c in self.containers)


def image_name(image: str) -> str | None:
    """The target of our Dockerfile that an image was built from; None for another's image."""
    repository = image.split("@")[0]
    head, _, last = repository.rpartition("/")
    name = last.split(":")[0]
    if name.startswith("marquee-"):
        return name.removeprefix("marquee-")
    return name if head.endswith("/marquee") else None


def kinds(objects: list[Object], kind: str) -> dict[str, Object]:
    """The objects of a kind, by name."""
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def where(item: Object) -> str:
    """How findings name an object."""
    return f"{item['kind']}/{item['metadata']['name']}"


def workloads(objects: list[Object]) -> list[Workload]:
    """All objects that start pods."""
    found = []
    for item in objects:
        if item["kind"] in _WORKLOADS:
            spec = item["spec"]
            spec = spec["jobTemplate"]["spec"] if item["kind"] == "CronJob" else spec
            found.append(Workload(item["kind"], item["metadata"]["name"], spec))
    return found


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector, or the selector of a Service, selects pods with these labels.

    Raises:
        ValueError: The selector has an operator that the checks do not know.
    """
    if selector and not {"matchLabels", "matchExpressions"} & selector.keys():
        return selector.items() <= labels.items()
    for expression in selector.get("matchExpressions", ()):
        if expression["operator"] != "In":
            raise ValueError(f"unknown operator {expression['operator']}")
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def port_names(container: Object) -> dict[str, int]:
    """The ports of a container by name."""
    return {p["name"]: p["containerPort"] for p in container.get("ports", ()) if "name" in p}


def port_number(container: Object, port: str | int) -> int | None:
    """The number of a container's port, which may be given by name; None if there is none."""
    if isinstance(port, int):
        return port if port in [p["containerPort"] for p in container.get("ports", ())] else None
    return port_names(container).get(port)


def variables(container: Object) -> dict[str, str]:
    """The environment variables of a container that have a value in the manifest."""
    return {e["name"]: e["value"] for e in container.get("env", ()) if "value" in e}


def referenced_keys(workload: Workload) -> Iterator[tuple[str, str, str]]:
    """The kind, name and key of all entries of ConfigMaps and Secrets that a pod needs."""
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
            if field in volume:
                items = volume[field].get("items") or [{"key": ""}]
                for item in items:
                    yield kind, volume[field][name], item["key"]
