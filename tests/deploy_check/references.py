"""Resolves the references between objects, which API servers do not check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deploy_check.objects import (
    Finding,
    Object,
    Workload,
    kinds,
    port_number,
    referenced_keys,
    selects,
    where,
    workloads,
)

# Objects that operators create as the READMEs describe, because they are not kept in a repository.
PROVIDED: Mapping[tuple[str, str], frozenset[str]] = {
    ("Secret", "marquee-postgres"): frozenset({"password", "url"}),
}
# Priority classes that every cluster has.
_BUILT_IN_PRIORITIES = {"system-cluster-critical", "system-node-critical"}
CERTIFICATE_KEYS = frozenset({"tls.crt", "tls.key", "ca.crt"})


def check_references(objects: list[Object]) -> list[Finding]:
    """Finds references that resolve to no object or to the wrong one."""
    found = workloads(objects)
    return [
        *_identities(objects),
        *_services(objects, found),
        *_disruption_budgets(objects, found),
        *_network_policies(objects, found),
        *_targets(objects),
        *_routes(objects),
        *(finding for workload in found for finding in _pods(objects, workload)),
        *_monitors(objects, found),
    ]


def _identities(objects: list[Object]) -> Iterator[Finding]:
    seen, namespaces = set(), kinds(objects, "Namespace")
    for item in objects:
        namespace = item["metadata"].get("namespace", "")
        identity = (item["apiVersion"], item["kind"], namespace, item["metadata"]["name"])
        if identity in seen:
            yield Finding(where(item), "two objects have this name")
        seen.add(identity)
        if namespace and namespace not in namespaces:
            yield Finding(where(item), f"is in the namespace {namespace}, which is not created")


def _services(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    for service in kinds(objects, "Service").values():
        spec = service["spec"]
        chosen = [w for w in found if selects(spec.get("selector", {}), w.labels)]
        if not spec.get("selector") or not chosen:
            yield Finding(where(service), "selects no pods")
        if len(chosen) > 1:
            names = ", ".join(w.where for w in chosen)
            yield Finding(where(service), f"selects the pods of several workloads: {names}")
        for workload in chosen:
            for port in spec["ports"]:
                target = port.get("targetPort", port["port"])
                if all(port_number(c, target) is None for c in workload.containers):
                    yield Finding(
                        where(service), f"targetPort {target} is not a port of {workload.where}"
                    )
                # The name of a headless Service resolves directly to the pods.
                elif spec.get("clusterIP") == "None" and all(
                    port_number(c, target) != port["port"] for c in workload.containers
                ):
                    yield Finding(
                        where(service), f"port {port['port']} is not the port of {workload.where}"
                    )


def _disruption_budgets(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    scalers = {
        item["spec"]["scaleTargetRef"]["name"]: item["spec"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for item in kinds(objects, kind).values()
    }
    for budget in kinds(objects, "PodDisruptionBudget").values():
        spec = budget["spec"]
        chosen = [w for w in found if selects(spec["selector"], w.labels)]
        if not chosen:
            yield Finding(where(budget), "selects no pods")
        for workload in chosen:
            scaler = scalers.get(workload.name)
            least = (
                scaler.get("minReplicas", scaler.get("minReplicaCount", 1))
                if scaler
                else workload.spec.get("replicas", 1)
            )
            if _blocks(spec, least):
                yield Finding(
                    where(budget), f"blocks drains: {workload.where} may have only {least} replicas"
                )


def _blocks(spec: Object, replicas: int) -> bool:
    """Returns whether a disruption budget prevents the eviction of any replica."""
    if "maxUnavailable" in spec:
        return str(spec["maxUnavailable"]).rstrip("%") == "0"
    least = spec["minAvailable"]
    if isinstance(least, str):
        least = -(-replicas * int(least.rstrip("%")) // 100)
    return bool(least >= replicas)


def _network_policies(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    for policy in kinds(objects, "NetworkPolicy").values():
        spec = policy["spec"]
        chosen = [w for w in found if selects(spec["podSelector"], w.labels)]
        if not chosen:
            yield Finding(where(policy), "selects no pods")
        for direction, peer in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, ()):
                peers = [p for p in rule.get(peer, ()) if "podSelector" in p]
                others = [
                    w
                    for w in found
                    for p in peers
                    if "namespaceSelector" not in p and selects(p["podSelector"], w.labels)
                ]
                for p in peers:
                    if "namespaceSelector" not in p and not any(
                        selects(p["podSelector"], w.labels) for w in found
                    ):
                        yield Finding(where(policy), f"an {direction} peer selects no pods")
                receivers = chosen if direction == "ingress" else others
                for port in rule.get("ports", ()) if receivers else ():
                    if not any(
                        port_number(c, port["port"]) is not None
                        for w in receivers
                        for c in w.containers
                    ):
                        yield Finding(
                            where(policy),
                            f"{direction} port {port['port']} is not a port of the pods",
                        )


def _targets(objects: list[Object]) -> Iterator[Finding]:
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for item in kinds(objects, kind).values():
            target = item["spec"]["scaleTargetRef"]
            if target["name"] not in kinds(objects, target.get("kind", "Deployment")):
                yield Finding(where(item), f"scales {target['name']}, which does not exist")


def _routes(objects: list[Object]) -> Iterator[Finding]:
    services = kinds(objects, "Service")
    for route in kinds(objects, "GRPCRoute").values():
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                service = services.get(backend["name"])
                ports = [p["port"] for p in service["spec"]["ports"]] if service else []
                if backend["port"] not in ports:
                    name = f"{backend['name']}:{backend['port']}"
                    yield Finding(where(route), f"routes to {name}, which no Service provides")


def _pods(objects: list[Object], workload: Workload) -> Iterator[Finding]:
    pod = workload.pod
    account = pod.get("serviceAccountName", "default")
    if account not in kinds(objects, "ServiceAccount"):
        yield Finding(workload.where, f"uses the service account {account}, which does not exist")
    priority = pod.get("priorityClassName")
    if priority and priority not in {*kinds(objects, "PriorityClass"), *_BUILT_IN_PRIORITIES}:
        yield Finding(workload.where, f"uses the priority class {priority}, which does not exist")
    if not workload.is_job and not selects(workload.spec["selector"], workload.labels):
        yield Finding(workload.where, "does not select its own pods")
    for constraint in pod.get("topologySpreadConstraints", ()):
        if not selects(constraint["labelSelector"], workload.labels):
            yield Finding(
                workload.where, "the topology spread constraint does not select its own pods"
            )
    claims = kinds(objects, "PersistentVolumeClaim")
    for volume in pod.get("volumes", ()):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and claim not in claims:
            yield Finding(workload.where, f"mounts the claim {claim}, which does not exist")
        elif claim and workload.spec.get("replicas", 1) > 1:
            modes = claims[claim]["spec"]["accessModes"]
            if not {"ReadWriteMany", "ReadOnlyMany"} & set(modes):
                yield Finding(
                    workload.where,
                    f"several replicas mount the claim {claim}, whose access modes are {modes}",
                )
    names = {v["name"] for v in pod.get("volumes", ())}
    names |= {t["metadata"]["name"] for t in workload.spec.get("volumeClaimTemplates", ())}
    for container in workload.containers:
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in names:
                yield Finding(
                    workload.where, f"mounts the volume {mount['name']}, which is not defined"
                )
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for action in container.get(probe, {}).values():
                port = action.get("port") if isinstance(action, dict) else None
                if port is not None and port_number(container, port) is None:
                    yield Finding(
                        workload.where, f"the {probe} uses port {port}, which is not defined"
                    )
    yield from _keys(objects, workload)
    if workload.spec.get("serviceName", "") not in {"", *kinds(objects, "Service")}:
        yield Finding(workload.where, "the Service named by serviceName does not exist")


def _keys(objects: list[Object], workload: Workload) -> Iterator[Finding]:
    known: dict[tuple[str, str], frozenset[str]] = dict(PROVIDED)
    for certificate in kinds(objects, "Certificate").values():
        known["Secret", certificate["spec"]["secretName"]] = CERTIFICATE_KEYS
    for kind in ("ConfigMap", "Secret"):
        for name, item in kinds(objects, kind).items():
            known[kind, name] = frozenset({*item.get("data", {}), *item.get("stringData", {})})
    for kind, name, key in referenced_keys(workload):
        if (kind, name) not in known:
            yield Finding(workload.where, f"requires the {kind} {name}, which does not exist")
        elif key and key not in known[kind, name]:
            yield Finding(
                workload.where, f"requires the key {key}, which the {kind} {name} does not have"
            )


def _monitors(objects: list[Object], found: list[Workload]) -> Iterator[Finding]:
    for monitor in kinds(objects, "PodMonitor").values():
        spec = monitor["spec"]
        chosen = [w for w in found if selects(spec["selector"], w.labels) and not w.is_job]
        if not chosen:
            yield Finding(where(monitor), "selects no pods")
        for workload in chosen:
            for endpoint in spec["podMetricsEndpoints"]:
                if all(port_number(c, endpoint["port"]) is None for c in workload.containers):
                    yield Finding(
                        where(monitor), f"port {endpoint['port']} is not a port of {workload.where}"
                    )
