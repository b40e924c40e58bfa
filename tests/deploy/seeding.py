"""Helpers that seed faults into rendered manifests and the Dockerfile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy_check.objects import Object

Edit = Callable[[list[Object]], None]


@dataclass(frozen=True)
class ManifestFault:
    """A fault in an overlay.

    Attributes:
        name: Description of the fault.
        overlay: The overlay that the fault is seeded into.
        edit: Seeds the fault into the rendered objects.
        components: The components that the overlay is rendered with.
    """

    name: str
    overlay: str
    edit: Edit
    components: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFault:
    """A fault in the Dockerfile.

    Attributes:
        name: Description of the fault.
        old: The text to replace.
        new: The faulty text.
    """

    name: str
    old: str
    new: str


def item_of(objects: list[Object], kind: str, name: str) -> Object:
    """Returns the object of a kind and name."""
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


def pod_of(objects: list[Object], name: str) -> Object:
    """Returns the specification of the pods of a service or of the trainer."""
    kind = "CronJob" if name == "trainer" else "Deployment"
    spec = item_of(objects, kind, f"marquee-{name}")["spec"]
    spec = spec["jobTemplate"]["spec"] if kind == "CronJob" else spec
    pod: Object = spec["template"]["spec"]
    return pod


def set_field(kind: str, name: str, path: str, value: Any) -> Edit:
    """Sets a field of an object, given by a path of names and list indexes; None removes it."""

    def edit(objects: list[Object]) -> None:
        put(item_of(objects, kind, name), path, value)

    return edit


def set_in_pod(name: str, path: str, value: Any) -> Edit:
    """Sets a field of a pod's specification."""

    def edit(objects: list[Object]) -> None:
        put(pod_of(objects, name), path, value)

    return edit


def put(item: Any, path: str, value: Any) -> None:
    """Sets a field within an object; None removes it."""
    *parents, last = [int(p) if p.isdecimal() else p for p in path.split("/")]
    for part in parents:
        item = item[part]
    if value is None:
        del item[last]
    else:
        item[last] = value


def set_variable(name: str, variable: str, value: str) -> Edit:
    """Sets or adds an environment variable of a pod's first container."""

    def edit(objects: list[Object]) -> None:
        env = pod_of(objects, name)["containers"][0]["env"]
        found = next((e for e in env if e["name"] == variable), None)
        if found is None:
            env.append({"name": variable, "value": value})
        else:
            found.update(value=value)

    return edit


def set_sidecar_variable(variable: str, value: str) -> Edit:
    """Sets an environment variable of the gateway's sidecar."""

    def edit(objects: list[Object]) -> None:
        (sidecar,) = pod_of(objects, "gateway")["initContainers"]
        next(e for e in sidecar["env"] if e["name"] == variable).update(value=value)

    return edit


def unmount(name: str, path: str, container: str = "containers") -> Edit:
    """Removes a mount from a container."""

    def edit(objects: list[Object]) -> None:
        pod = pod_of(objects, name)
        mounts = pod[container][0]["volumeMounts"]
        mounts.remove(next(m for m in mounts if m["mountPath"] == path))

    return edit


def set_read_only(name: str, path: str, read_only: bool, container: str = "containers") -> Edit:
    """Sets whether a mount is read-only."""

    def edit(objects: list[Object]) -> None:
        mounts = pod_of(objects, name)[container][0]["volumeMounts"]
        next(m for m in mounts if m["mountPath"] == path)["readOnly"] = read_only

    return edit


def replace_volume(name: str, volume: str, source: Object) -> Edit:
    """Replaces a pod's volume."""

    def edit(objects: list[Object]) -> None:
        volumes = pod_of(objects, name)["volumes"]
        found = next(v for v in volumes if v["name"] == volume)
        found.clear()
        found.update(name=volume, **source)

    return edit


def duplicate(kind: str, name: str) -> Edit:
    """Duplicates an object."""

    def edit(objects: list[Object]) -> None:
        objects.append(item_of(objects, kind, name))

    return edit


def remove_variables(name: str, *variables: str) -> Edit:
    """Removes environment variables of a pod's first container."""

    def edit(objects: list[Object]) -> None:
        container = pod_of(objects, name)["containers"][0]
        container["env"] = [e for e in container["env"] if e["name"] not in variables]

    return edit


def repeat_first(name: str, path: str) -> Edit:
    """Duplicates the first item of a list in a pod's specification."""

    def edit(objects: list[Object]) -> None:
        found: Any = pod_of(objects, name)
        for part in path.split("/"):
            found = found[int(part) if part.isdecimal() else part]
        found.append(dict(found[0]))

    return edit


def truncate_dashboards(objects: list[Object]) -> None:
    """Truncates all dashboards, so that they are not valid JSON."""
    for item in objects:
        if item["kind"] == "ConfigMap":
            item["data"] = {name: text[:-9] for name, text in item["data"].items()}


def remove(kind: str, name: str) -> Edit:
    """Removes an object."""

    def edit(objects: list[Object]) -> None:
        objects.remove(item_of(objects, kind, name))

    return edit
