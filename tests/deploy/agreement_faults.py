"""Seeded faults in which objects are valid by themselves but contradict each other."""

from __future__ import annotations

from deploy.seeding import (
    Edit,
    ManifestFault,
    item_of,
    pod_of,
    put,
    remove,
    replace_volume,
    set_field,
    set_in_pod,
    set_variable,
)
from deploy_check.objects import Object

S, P, L = "staging", "production", "local"
_KEDA, _MONITORING, _MTLS = ("autoscaling-keda",), ("monitoring",), ("mtls",)
_COLLECTOR, _POSTGRES, _INGRESS = ("otel-collector",), ("postgres",), ("ingress",)
_ENDPOINT = "spec/podMetricsEndpoints/0/relabelings/0"
_QUERY = "spec/triggers/0/metadata/query"


def _set_store(step: str, number: int, store: str) -> Edit:
    """Sets the store of one of the trainer's containers."""

    def edit(objects: list[Object]) -> None:
        env = pod_of(objects, "trainer")[step][number]["env"]
        next(e for e in env if e["name"] == "MARQUEE_STORE").update(value=store)

    return edit


def _another_claim(objects: list[Object]) -> None:
    """Makes the sample Job write to a separate claim."""
    other = {**item_of(objects, "PersistentVolumeClaim", "marquee-store")}
    other["metadata"] = {**other["metadata"], "name": "marquee-sample"}
    objects.append(other)
    volumes = item_of(objects, "Job", "marquee-sample")["spec"]["template"]["spec"]["volumes"]
    found = next(v for v in volumes if v["name"] == "store")
    found["persistentVolumeClaim"] = {"claimName": "marquee-sample"}


def _second_scaler(objects: list[Object]) -> None:
    scaled = item_of(objects, "ScaledObject", "marquee-gateway")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "marquee-gateway"}
    spec = {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5}
    objects.append(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": scaled["metadata"],
            "spec": spec,
        }
    )


def _in_rules(old: str, new: str) -> Edit:
    """Replaces text in the expressions of all rules."""

    def edit(objects: list[Object]) -> None:
        for group in item_of(objects, "PrometheusRule", "marquee")["spec"]["groups"]:
            for rule in group["rules"]:
                rule["expr"] = rule["expr"].replace(old, new)

    return edit


def _record_renamed(objects: list[Object]) -> None:
    groups = item_of(objects, "PrometheusRule", "marquee")["spec"]["groups"]
    groups[0]["rules"][0]["record"] = "marquee:call_errors:rate5m"


def _in_collector(old: str, new: str) -> Edit:
    def edit(objects: list[Object]) -> None:
        for item in objects:
            if item["kind"] == "ConfigMap" and "config.yaml" in item["data"]:
                text = item["data"]["config.yaml"]
                item["data"]["config.yaml"] = text.replace(old, new)

    return edit


def _without_feedback(objects: list[Object]) -> None:
    train = pod_of(objects, "trainer")["initContainers"][0]
    train["env"] = [e for e in train["env"] if e["name"] != "MARQUEE_FEEDBACK"]


def _other_labels(objects: list[Object]) -> None:
    job = item_of(objects, "CronJob", "marquee-trainer")["spec"]["jobTemplate"]["spec"]
    job["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = "marquee-training"


def _data_elsewhere(objects: list[Object]) -> None:
    pod = item_of(objects, "StatefulSet", "marquee-postgres")["spec"]["template"]["spec"]
    env = pod["containers"][0]["env"]
    next(e for e in env if e["name"] == "PGDATA").update(value="/data/pgdata")


def _admit_proxy(objects: list[Object]) -> None:
    """Admits only a proxy to the gateway, and thereby blocks all other callers."""
    policy = item_of(objects, "NetworkPolicy", "marquee-cf")
    names = {"matchLabels": {"app.kubernetes.io/name": "marquee-gateway"}}
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
    objects.append(
        {
            **policy,
            "metadata": {**policy["metadata"], "name": "marquee-proxy"},
            "spec": {
                "podSelector": names,
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [peer], "ports": [{"port": 50051}]}],
            },
        }
    )


AGREEMENT_FAULTS = (
    # Stores and feedback
    ManifestFault(
        "a backend reads another bucket",
        P,
        set_variable("inference", "MARQUEE_STORE", "s3://marquee-release"),
    ),
    ManifestFault(
        "a release is published in one store and promoted in another",
        P,
        _set_store("initContainers", 1, "s3://marquee-old"),
    ),
    ManifestFault(
        "old releases are pruned in another store",
        P,
        _set_store("containers", 0, "s3://marquee-old"),
    ),
    ManifestFault(
        "the trainer publishes to the claim for ratings",
        S,
        replace_volume(
            "trainer", "store", {"persistentVolumeClaim": {"claimName": "marquee-ratings"}}
        ),
    ),
    ManifestFault("the sample is published into a claim of its own", L, _another_claim),
    ManifestFault("the trainer does not learn from the feedback", S, _without_feedback, _POSTGRES),
    ManifestFault("the database writes into the container", S, _data_elsewhere, _POSTGRES),
    # Replicas
    ManifestFault("two autoscalers scale one service", P, _second_scaler, _KEDA),
    ManifestFault(
        "applying the manifests resets the replicas",
        P,
        set_field("Deployment", "marquee-cf", "spec/replicas", 2),
    ),
    ManifestFault(
        "an autoscaler scales by a resource that is not requested",
        P,
        set_field(
            "HorizontalPodAutoscaler",
            "marquee-cf",
            "spec/metrics/0/resource/name",
            "ephemeral-storage",
        ),
    ),
    ManifestFault(
        "a disruption budget selects all services",
        P,
        set_field(
            "PodDisruptionBudget",
            "marquee-cf",
            "spec/selector/matchLabels",
            {"app.kubernetes.io/part-of": "marquee"},
        ),
    ),
    ManifestFault(
        "KEDA queries a metric that no server exposes",
        P,
        set_field("ScaledObject", "marquee-cf", _QUERY, 'sum(marquee_calls_running{service="cf"})'),
        _KEDA,
    ),
    ManifestFault(
        "KEDA scales a service by the calls of another",
        P,
        set_field(
            "ScaledObject",
            "marquee-cf",
            _QUERY,
            'sum(marquee_calls_in_progress{service="gateway"})',
        ),
        _KEDA,
    ),
    # Priorities and jobs
    ManifestFault(
        "training has priority over serving",
        P,
        set_field("PriorityClass", "marquee-serving", "value", 10),
    ),
    ManifestFault(
        "training preempts other pods",
        P,
        set_field("PriorityClass", "marquee-training", "preemptionPolicy", "PreemptLowerPriority"),
    ),
    ManifestFault(
        "a priority class applies to the whole cluster",
        P,
        set_field("PriorityClass", "marquee-training", "globalDefault", True),
    ),
    ManifestFault(
        "the failure policy names a missing container",
        S,
        lambda o: put(
            item_of(o, "CronJob", "marquee-trainer"),
            "spec/jobTemplate/spec/podFailurePolicy/rules/0/onExitCodes/containerName",
            "promotion",
        ),
    ),
    ManifestFault(
        "the starting deadline is too short",
        S,
        set_field("CronJob", "marquee-trainer", "spec/startingDeadlineSeconds", 5),
    ),
    # Who reaches whom
    ManifestFault(
        "a Service publishes pods that are not ready",
        S,
        set_field("Service", "marquee-cf", "spec/publishNotReadyAddresses", True),
    ),
    ManifestFault("Prometheus reaches no server", P, remove("NetworkPolicy", "marquee-metrics")),
    ManifestFault("no caller reaches the gateway", P, remove("NetworkPolicy", "marquee-callers")),
    ManifestFault(
        "object storage cannot be reached", P, remove("NetworkPolicy", "marquee-object-storage")
    ),
    ManifestFault(
        "names can be resolved over TCP only",
        P,
        lambda o: item_of(o, "NetworkPolicy", "marquee-dns")["spec"]["egress"][0]["ports"].pop(0),
    ),
    ManifestFault(
        "a policy for a proxy blocks all other callers",
        S,
        _admit_proxy,
    ),
    ManifestFault(
        "a policy blocks the trainer from the database",
        P,
        set_field(
            "NetworkPolicy",
            "marquee-postgres",
            "spec/ingress/0/from/0/podSelector/matchExpressions/0/values",
            ["marquee-gateway"],
        ),
        _POSTGRES,
    ),
    ManifestFault("the trainer has other labels than is admitted", P, _other_labels, _POSTGRES),
    ManifestFault(
        "a route names a gRPC service that does not exist",
        P,
        set_field(
            "GRPCRoute",
            "marquee-gateway",
            "spec/rules/0/matches/0/method/service",
            "marquee.v1.RecommendationService",
        ),
        _INGRESS,
    ),
    # Certificates
    ManifestFault(
        "a certificate expires before it is renewed",
        S,
        set_field("Certificate", "marquee-cf", "spec/renewBefore", "2200h"),
        _MTLS,
    ),
    ManifestFault(
        "callers have no certificate",
        S,
        set_field("Certificate", "marquee-caller", "spec/usages", ["server auth"]),
        _MTLS,
    ),
    ManifestFault(
        "certificates are issued by two authorities",
        S,
        set_field("Certificate", "marquee-cf", "spec/issuerRef/name", "marquee-self-signed"),
        _MTLS,
    ),
    ManifestFault(
        "two certificates are written into one Secret",
        S,
        set_field("Certificate", "marquee-cf", "spec/secretName", "marquee-inference-tls"),
        _MTLS,
    ),
    # Metrics and traces
    ManifestFault(
        "series lack a label that alerts use",
        P,
        set_field("PodMonitor", "marquee", f"{_ENDPOINT}/targetLabel", "server"),
        _MONITORING,
    ),
    ManifestFault(
        "the service label is derived from another label",
        P,
        set_field("PodMonitor", "marquee", f"{_ENDPOINT}/regex", "mq-(.+)"),
        _MONITORING,
    ),
    ManifestFault(
        "a service is not scraped",
        P,
        set_field(
            "PodMonitor",
            "marquee",
            "spec/selector/matchExpressions/0/values",
            ["marquee-gateway", "marquee-cf"],
        ),
        _MONITORING,
    ),
    ManifestFault("alerts ask for what nothing records", P, _record_renamed, _MONITORING),
    ManifestFault(
        "an alert reads a metric that no server exposes",
        P,
        _in_rules("marquee_store_errors_total", "marquee_store_failures_total"),
        _MONITORING,
    ),
    ManifestFault(
        "the dashboards lack the label for Grafana",
        S,
        set_field("ConfigMap", "marquee-dashboards", "metadata/labels/grafana_dashboard", None),
        _MONITORING,
    ),
    ManifestFault(
        "the collector listens on another port",
        S,
        _in_collector("0.0.0.0:4317", "0.0.0.0:4318"),
        _COLLECTOR,
    ),
    ManifestFault(
        "the collector listens on the loopback interface",
        S,
        _in_collector("0.0.0.0:4317", "localhost:4317"),
        _COLLECTOR,
    ),
    ManifestFault(
        "the collector's health check is on another port",
        S,
        _in_collector("0.0.0.0:13133", "0.0.0.0:13134"),
        _COLLECTOR,
    ),
    ManifestFault(
        "traces are sent to an unconfigured exporter",
        S,
        _in_collector("exporters: [debug]", "exporters: [otlp]"),
        _COLLECTOR,
    ),
    ManifestFault(
        "a server presents the certificate of another",
        S,
        lambda o: next(v for v in pod_of(o, "cf")["volumes"] if v["name"] == "tls")[
            "secret"
        ].update(secretName="marquee-gateway-tls"),
        _MTLS,
    ),
    ManifestFault(
        "pruning keeps no release",
        S,
        set_in_pod(
            "trainer", "containers/0/command", ["marquee", "releases", "prune", "--keep", "0"]
        ),
    ),
)
