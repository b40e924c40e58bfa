"""Seeded faults that the schemas allow but an API server or a controller rejects."""

from __future__ import annotations

from deploy.seeding import (
    ManifestFault,
    item_of,
    put,
    repeat_first,
    replace_volume,
    set_field,
    set_in_pod,
    truncate_dashboards,
)

S, P, L, _C = "staging", "production", "local", "containers/0"

API_FAULTS = (
    ManifestFault(
        "a variable is set twice",
        S,
        repeat_first("cf", f"{_C}/env"),
    ),
    ManifestFault("two volumes have the same name", S, repeat_first("cf", "volumes")),
    ManifestFault("two ports have the same name", S, repeat_first("cf", f"{_C}/ports")),
    ManifestFault(
        "two volumes are mounted at the same path",
        S,
        set_in_pod("cf", f"{_C}/volumeMounts/1/mountPath", "/store"),
    ),
    ManifestFault(
        "a limit is not a quantity", S, set_in_pod("cf", f"{_C}/resources/limits/memory", "512Megs")
    ),
    ManifestFault(
        "a request is not a quantity", S, set_in_pod("cf", f"{_C}/resources/requests/cpu", "half")
    ),
    ManifestFault(
        "a rollout may neither add nor remove a pod",
        S,
        set_field(
            "Deployment",
            "marquee-cf",
            "spec/strategy/rollingUpdate",
            {"maxSurge": 0, "maxUnavailable": 0},
        ),
    ),
    ManifestFault(
        "an autoscaler's minimum exceeds its maximum",
        P,
        set_field("HorizontalPodAutoscaler", "marquee-cf", "spec/minReplicas", 30),
    ),
    ManifestFault(
        "a claim requests no storage",
        S,
        set_field("PersistentVolumeClaim", "marquee-store", "spec/resources", None),
    ),
    ManifestFault(
        "a probe's failure threshold is 0",
        S,
        set_in_pod("cf", f"{_C}/livenessProbe/failureThreshold", 0),
    ),
    ManifestFault(
        "a probe's period is 0", S, set_in_pod("cf", f"{_C}/livenessProbe/periodSeconds", 0)
    ),
    ManifestFault(
        "a session affinity does not exist",
        S,
        set_field("Service", "marquee-cf", "spec/sessionAffinity", "Client"),
    ),
    ManifestFault("a DNS policy does not exist", S, set_in_pod("gateway", "dnsPolicy", "Custom")),
    ManifestFault(
        "a time zone does not exist",
        S,
        set_field("CronJob", "marquee-trainer", "spec/timeZone", "Mars/Olympus"),
    ),
    ManifestFault(
        "a label's value is not valid",
        S,
        lambda o: item_of(o, "Deployment", "marquee-cf")["metadata"].update(labels={"tier": "a b"}),
    ),
    ManifestFault(
        "a port's name is too long",
        S,
        set_in_pod("cf", f"{_C}/ports/1/name", "metrics-of-the-server"),
    ),
    ManifestFault(
        "a port's number is too high",
        S,
        set_field("Service", "marquee-cf", "spec/ports/0/port", 70000),
    ),
    ManifestFault(
        "a digest is too short",
        P,
        set_in_pod("cf", f"{_C}/image", "registry.example.com/marquee/cf@sha256:123"),
    ),
    ManifestFault("a dashboard cannot be parsed", S, truncate_dashboards, ("monitoring",)),
    ManifestFault(
        "an alert's expression is incomplete",
        S,
        lambda o: put(
            item_of(o, "PrometheusRule", "marquee"), "spec/groups/0/rules/0/expr", "sum(rate("
        ),
        ("monitoring",),
    ),
    # Accepted, but does not work
    ManifestFault(
        "a local image is pulled",
        L,
        set_in_pod("cf", f"{_C}/imagePullPolicy", "Always"),
    ),
    ManifestFault(
        "an image from a registry is never pulled",
        P,
        set_in_pod("cf", f"{_C}/imagePullPolicy", "Never"),
    ),
    ManifestFault(
        "a server's store is an empty volume",
        S,
        replace_volume("cf", "store", {"emptyDir": {"sizeLimit": "1Gi"}}),
    ),
    ManifestFault(
        "the pod's group may not read the volumes",
        S,
        set_in_pod("cf", "securityContext/fsGroup", 1),
    ),
    ManifestFault(
        "the liveness probe runs while a server starts",
        S,
        set_in_pod("cf", f"{_C}/startupProbe", None),
    ),
    ManifestFault(
        "a pod stops without a preStop delay",
        S,
        set_in_pod("cf", f"{_C}/lifecycle/preStop/sleep/seconds", 0),
    ),
    ManifestFault(
        "no node has the topology key",
        S,
        set_in_pod("cf", "topologySpreadConstraints/0/topologyKey", "kubernetes.io/host"),
    ),
    ManifestFault(
        "a container uses a host port", S, set_in_pod("cf", f"{_C}/ports/0/hostPort", 50052)
    ),
)
