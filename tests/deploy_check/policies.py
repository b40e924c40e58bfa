"""Checks of good practice that no schema covers: privileges, limits, images, drains, schedules."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deploy_check.objects import Finding, Object, Workload, kinds, selects, where, workloads

_TAGGED = re.compile(r"(@sha256:[0-9a-f]{64}|:(?!latest$)[\w][\w.-]*)$")

_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_TOPOLOGY = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
_SCHEDULE = re.compile(r"(@(hourly|daily|weekly|monthly)|[-\d*,/]+( [-\w*,/]+){4})")


def check_policies(objects: list[Object], is_overlay: bool = True) -> list[Finding]:
    """Finds what works in a test cluster but fails or does harm in production.

    Args:
        objects: The rendered objects.
        is_overlay: Whether the objects are applied as they are; the base has no image tags.
    """
    findings = [f for w in workloads(objects) for f in _pod(w)]
    for workload in workloads(objects):
        if is_overlay:
            findings.extend(_images(workload))
        findings.extend(_job(workload) if workload.is_job else _server(workload))
    findings.extend(
        Finding(where(job), f"the schedule {job['spec']['schedule']!r} is not valid")
        for job in kinds(objects, "CronJob").values()
        if not _SCHEDULE.fullmatch(job["spec"]["schedule"])
    )
    findings.extend(
        Finding(where(job), "two runs may train concurrently: concurrencyPolicy is not Forbid")
        for job in kinds(objects, "CronJob").values()
        if job["spec"].get("concurrencyPolicy") != "Forbid"
    )
    budgets = kinds(objects, "PodDisruptionBudget").values()
    findings.extend(
        Finding(workload.where, "a drain may stop all replicas: no PodDisruptionBudget selects it")
        for workload in workloads(objects)
        if workload.is_ours
        and not workload.is_job
        and workload.spec.get("replicas", 2) > 1
        and not any(selects(b["spec"]["selector"], workload.labels) for b in budgets)
    )
    for namespace in kinds(objects, "Namespace").values():
        labels = namespace["metadata"].get("labels", {})
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            findings.append(
                Finding(where(namespace), "does not enforce the restricted Pod Security Standard")
            )
    return findings


def _pod(workload: Workload) -> Iterator[Finding]:
    pod = workload.pod
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot") or not context.get("runAsUser"):
        yield Finding(workload.where, "may run as root")
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield Finding(workload.where, "has no seccomp profile")
    if pod.get("automountServiceAccountToken") is not False:
        yield Finding(workload.where, "mounts a service account token")
    if context.get("fsGroup") != context.get("runAsGroup") and _has_shared_files(pod):
        yield Finding(workload.where, "may not read its volumes: fsGroup is not runAsGroup")
    for constraint in pod.get("topologySpreadConstraints", ()):
        if constraint["topologyKey"] not in _TOPOLOGY:
            yield Finding(
                workload.where, f"nodes do not have the label {constraint['topologyKey']}"
            )
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield Finding(workload.where, f"shares a namespace of the node: {field}")
    for volume in pod.get("volumes", ()):
        if "hostPath" in volume:
            yield Finding(workload.where, f"the volume {volume['name']} is a hostPath")
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            yield Finding(workload.where, f"the emptyDir {volume['name']} has no sizeLimit")
    for container in workload.containers:
        own = container.get("securityContext", {})
        if not own.get("readOnlyRootFilesystem"):
            yield Finding(workload.where, "the root file system is writable")
        if own.get("allowPrivilegeEscalation") is not False:
            yield Finding(workload.where, "allows privilege escalation")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield Finding(workload.where, "keeps capabilities")
        if own.get("runAsUser") == 0 or own.get("privileged"):
            yield Finding(workload.where, "runs as root")
        resources = container.get("resources", {})
        if not resources.get("limits", {}).get("memory"):
            yield Finding(workload.where, "has no memory limit")
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
            yield Finding(workload.where, "requests no CPU or memory")
        if any("hostPort" in port for port in container.get("ports", ())):
            yield Finding(workload.where, "uses a hostPort")
        for resource, limit in resources.get("limits", {}).items():
            if quantity(resources.get("requests", {}).get(resource, "0")) > quantity(limit):
                yield Finding(workload.where, f"requests more {resource} than its limit")
        if not any(m["mountPath"] == "/tmp" for m in container.get("volumeMounts", ())):  # noqa: S108
            yield Finding(workload.where, "has no writable /tmp")


def _has_shared_files(pod: Object) -> bool:
    return any("persistentVolumeClaim" in v or "secret" in v for v in pod.get("volumes", ()))


def quantity(text: str | int) -> float:
    """Returns the value of a quantity such as `500m` or `2Gi`.

    Raises:
        ValueError: The text is not a quantity.
    """
    found = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(text))
    if found is None:
        raise ValueError(f"{text!r} is not a quantity")
    return float(found[1]) * _UNITS[found[2]]


def _images(workload: Workload) -> Iterator[Finding]:
    for container in workload.containers:
        image = container["image"]
        if not _TAGGED.search(image):
            yield Finding(workload.where, f"the image {image} has no tag or digest")
        has_registry, policy = "/" in image, container.get("imagePullPolicy", "IfNotPresent")
        if has_registry == (policy == "Never"):
            problem = "is never pulled" if has_registry else "is pulled, but names no registry"
            yield Finding(workload.where, f"the image {image} {problem}")


def _server(workload: Workload) -> Iterator[Finding]:
    if not workload.is_ours:
        return
    for container in workload.pod["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield Finding(workload.where, f"has no {probe}")
        if not container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds"):
            yield Finding(workload.where, "stops before callers notice: no preStop sleep")
    rolling = workload.spec.get("strategy", {}).get("rollingUpdate", {})
    if rolling.get("maxUnavailable") != 0:
        yield Finding(workload.where, "a rollout removes replicas before new ones are ready")


def _job(workload: Workload) -> Iterator[Finding]:
    spec = workload.spec
    for field, harm in (
        ("ttlSecondsAfterFinished", "finished Jobs are never deleted"),
        ("activeDeadlineSeconds", "a run that hangs is never terminated"),
    ):
        if field not in spec:
            yield Finding(workload.where, f"{harm}: no {field}")
    if workload.pod.get("restartPolicy") != "Never":
        yield Finding(workload.where, "restarts its containers, which hides failed runs")
