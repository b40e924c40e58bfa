"""Whether objects agree with each other: on stores, replicas, priorities, feedback and routes."""

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
# A CronJob's controller looks every ten seconds, and would find each run too late.
_LEAST_STARTING_S = 10


def check_agreement(objects: list[Object]) -> list[Finding]:
    """Where objects contradict each other."""
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
            Finding(where(job), "starts no job: its deadline for starting is too short")
            for job in kinds(objects, "CronJob").values()
            if job["spec"].get("startingDeadlineSeconds", 100) < _LEAST_STARTING_S
        ),
    ]


def _stores(found: list[Workload]) -> Iterator[Finding]:
    """Trainer and servers must use one store."""
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
                    workload.where, f"{container['name']} uses the store {store}, others {first}"
                )


def _claim(workload: Workload, container: Object, path: str) -> str:
    """The claim with a path, for example `claim marquee-store, /store`; empty if there is none."""
    for mount in container.get("volumeMounts", ()):
        if f"{path}/".startswith(f"{mount['mountPath']}/"):
            for volume in workload.pod.get("volumes", ()):
                if volume["name"] == mount["name"] and "persistentVolumeClaim" in volume:
                    inside = path.removeprefix(mount["mountPath"])
                    return f"claim {volume['persistentVolumeClaim']['claimName']}{inside}"
    return ""


def _feedback(found: list[Workload]) -> Iterator[Finding]:
    """Who trains by schedule learns from what the gateways record."""
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
            yield Finding(workload.where, "does not learn from the feedback of the gateways")


def _scalers(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    by_name = {w.name: w for w in found}
    seen: dict[str, str] = {}
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in kinds(objects, kind).values():
            name = scaler["spec"]["scaleTargetRef"]["name"]
            if name in seen:
                yield Finding(where(scaler), f"scales {name}, as {seen[name]} does")
            seen[name] = where(scaler)
            workload = by_name.get(name)
            if workload is None:
                continue
            if "replicas" in workload.spec:
                yield Finding(
                    workload.where, f"sets replicas back whenever it is applied: see {seen[name]}"
                )
            for resource in _scaled_by(scaler):
                for container in workload.containers:
                    if resource not in container.get("resources", {}).get("requests", {}):
                        yield Finding(
                            where(scaler), f"scales by {resource}, which {name} does not request"
                        )


def _scaled_by(scaler: Object) -> Iterator[str]:
    """The resources that an autoscaler compares with what is requested."""
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
            yield Finding(where(budget), f"counts the pods of several workloads: {names}")


def _priorities(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    classes = kinds(objects, "PriorityClass")
    for item in classes.values():
        if item.get("globalDefault"):
            yield Finding(where(item), "is given to every pod of the cluster")
    named = [(w, classes.get(w.pod.get("priorityClassName", ""))) for w in found if w.is_ours]
    servers = [c["value"] for w, c in named if c and not w.is_job]
    for workload, its in named:
        if its and workload.is_job:
            if its["value"] >= min(servers, default=its["value"] + 1):
                yield Finding(workload.where, "comes before servers when a node is full")
            if its.get("preemptionPolicy") != "Never":
                yield Finding(workload.where, "may end other pods to get their place")


def _routes(objects: list[Object]) -> Iterator[Finding]:
    for route in kinds(objects, "GRPCRoute").values():
        for rule in route["spec"]["rules"]:
            for match in rule.get("matches", ()):
                service = match["method"]["service"]
                if service not in _CALLED:
                    yield Finding(where(route), f"routes calls of {service}, which does not exist")


def _services(objects: list[Object]) -> Iterator[Finding]:
    for service in kinds(objects, "Service").values():
        if service["spec"].get("publishNotReadyAddresses"):
            yield Finding(where(service), "leads to pods that are not ready")


def _pod(workload: Workload) -> Iterator[Finding]:
    names = {c["name"] for c in workload.containers}
    for rule in workload.spec.get("podFailurePolicy", {}).get("rules", ()):
        name = rule.get("onExitCodes", {}).get("containerName")
        if name and name not in names:
            yield Finding(workload.where, f"its failure policy is about {name}, which it lacks")
    for container in workload.containers:
        data = variables(container).get("PGDATA", "")
        mounts = [m["mountPath"] for m in container.get("volumeMounts", ())]
        if data and not any(f"{data}/".startswith(f"{mount}/") for mount in mounts):
            yield Finding(workload.where, f"PGDATA is {data}, where no volume is mounted")
