"""Checks that objects agree with each other: stores, replicas, priorities, feedback, routes."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_check.objects import (
    Finding,
    Object,
    Workload,
    image_name,
    kinds,
    selects,
    variables,
    where,
    workloads,
)
from marquee_core.service_names import GATEWAY
from marquee_services.gateway.main import FEEDBACK_SERVICE, SERVICE

_STORE, _FEEDBACK = "MARQUEE_STORE", "MARQUEE_FEEDBACK"
_CALLED = {SERVICE, FEEDBACK_SERVICE, "grpc.health.v1.Health"}
# The CronJob controller checks every ten seconds, so a shorter deadline would miss every run.
_MIN_STARTING_S = 10


def check_agreement(objects: list[Object]) -> list[Finding]:
    """Finds settings in which objects contradict each other."""
    found = workloads(objects)
    return [
        *_stores(found),
        *_feedback(found),
        *_scalers(objects, found),
        *_budgets(objects, found),
        *_priorities(objects, found),
        *_routes(objects),
        *_services(objects),
        *(finding for workload in found for finding in _pod(workload)),
        *(
            Finding(where(job), "never starts a Job: startingDeadlineSeconds is too short")
            for job in kinds(objects, "CronJob").values()
            if job["spec"].get("startingDeadlineSeconds", 100) < _MIN_STARTING_S
        ),
    ]


def _stores(found: list[Workload]) -> Iterator[Finding]:
    """Checks that the trainer and all servers use the same store."""
    first = ""
    for workload in found:
        for container in workload.containers if workload.is_ours else ():
            path = variables(container).get(_STORE)
            if path is None:
                continue
            store = path if "://" in path else _claim(workload, container, path)
            first = first or store
            if store != first:
                yield Finding(
                    workload.where,
                    f"{container['name']} uses the store {store}, but others use {first}",
                )


def _claim(workload: Workload, container: Object, path: str) -> str:
    """Returns the claim that contains a path and the path in it; empty if there is none."""
    for mount in container.get("volumeMounts", ()):
        if f"{path}/".startswith(f"{mount['mountPath']}/"):
            for volume in workload.pod.get("volumes", ()):
                if volume["name"] == mount["name"] and "persistentVolumeClaim" in volume:
                    inside = path.removeprefix(mount["mountPath"])
                    return f"claim {volume['persistentVolumeClaim']['claimName']}{inside}"
    return ""


def _feedback(found: list[Workload]) -> Iterator[Finding]:
    """Checks that the CronJob reads the feedback that the gateways record."""
    users = {
        image_name(c["image"]): c
        for workload in found
        for c in workload.containers
        if any(e["name"] == _FEEDBACK for e in c.get("env", ()))
    }
    if GATEWAY not in users:
        return
    for workload in found:
        if workload.kind == "CronJob" and "trainer" not in users:
            yield Finding(
                workload.where, f"does not set {_FEEDBACK}, although the gateways record feedback"
            )


def _scalers(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    by_name = {w.name: w for w in found}
    seen: dict[str, str] = {}
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in kinds(objects, kind).values():
            name = scaler["spec"]["scaleTargetRef"]["name"]
            if name in seen:
                yield Finding(where(scaler), f"scales {name}, which {seen[name]} scales too")
            seen[name] = where(scaler)
            workload = by_name.get(name)
            if workload is None:
                continue
            if "replicas" in workload.spec:
                yield Finding(
                    workload.where,
                    f"sets replicas, so applying it resets the number chosen by {seen[name]}",
                )
            for resource in _scaled_by(scaler):
                for container in workload.containers:
                    if resource not in container.get("resources", {}).get("requests", {}):
                        yield Finding(
                            where(scaler), f"scales by {resource}, which {name} does not request"
                        )


def _scaled_by(scaler: Object) -> Iterator[str]:
    """Yields the resources whose utilisation an autoscaler compares with the requests."""
    for metric in scaler["spec"].get("metrics", ()):
        if metric["type"] == "Resource":
            yield metric["resource"]["name"]
    for trigger in scaler["spec"].get("triggers", ()):
        if trigger["type"] in ("cpu", "memory"):
            yield trigger["type"]


def _budgets(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    for budget in kinds(objects, "PodDisruptionBudget").values():
        chosen = [w for w in found if selects(budget["spec"]["selector"], w.labels)]
        if len(chosen) > 1:
            names = ", ".join(w.name for w in chosen)
            yield Finding(where(budget), f"selects the pods of several workloads: {names}")


def _priorities(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    classes = kinds(objects, "PriorityClass")
    for item in classes.values():
        if item.get("globalDefault"):
            yield Finding(where(item), "applies to every pod in the cluster: globalDefault is set")
    named = [(w, classes.get(w.pod.get("priorityClassName", ""))) for w in found if w.is_ours]
    servers = [c["value"] for w, c in named if c and not w.is_job]
    for workload, priority in named:
        if priority and workload.is_job:
            if priority["value"] >= min(servers, default=priority["value"] + 1):
                yield Finding(workload.where, "its priority is not lower than that of servers")
            if priority.get("preemptionPolicy") != "Never":
                yield Finding(workload.where, "may preempt other pods")


def _routes(objects: list[Object]) -> Iterator[Finding]:
    for route in kinds(objects, "GRPCRoute").values():
        for rule in route["spec"]["rules"]:
            for match in rule.get("matches", ()):
                service = match["method"]["service"]
                if service not in _CALLED:
                    yield Finding(where(route), f"routes calls to {service}, which does not exist")


def _services(objects: list[Object]) -> Iterator[Finding]:
    for service in kinds(objects, "Service").values():
        if service["spec"].get("publishNotReadyAddresses"):
            yield Finding(
                where(service),
                "resolves to pods that are not ready: publishNotReadyAddresses is set",
            )


def _pod(workload: Workload) -> Iterator[Finding]:
    names = {c["name"] for c in workload.containers}
    for rule in workload.spec.get("podFailurePolicy", {}).get("rules", ()):
        name = rule.get("onExitCodes", {}).get("containerName")
        if name and name not in names:
            yield Finding(
                workload.where, f"podFailurePolicy names {name}, which is not a container"
            )
    for container in workload.containers:
        data = variables(container).get("PGDATA", "")
        mounts = [m["mountPath"] for m in container.get("volumeMounts", ())]
        if data and not any(f"{data}/".startswith(f"{mount}/") for mount in mounts):
            yield Finding(workload.where, f"PGDATA is {data}, where no volume is mounted")
