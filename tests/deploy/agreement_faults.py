"""Seeded faults of objects that are sound one by one and contradict each other."""

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
    """Sets the store of a step of the trainer."""

    def edit(objects: list[Object]) -> None:
        env = pod_of(objects, "trainer")[step][number]["env"]
        next(e for e in env if e["name"] == "MARQUEE_STORE").update(value=store)

    return edit


def _another_claim(objects: list[Object]) -> None:
    """Lets the Job of the sample write to a claim of its own."""
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
    """Replaces a text in the expressions of all rules."""

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
    """Admits a proxy to the gateway, and by that nobody else."""
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
        "a release is promoted in another store than it was published in",
        P,
        _set_store("initContainers", 1, "s3://marquee-old"),
    ),
    ManifestFault(
        "old releases are deleted in another store",
        P,
        _set_store("containers", 0, "s3://marquee-old"),
    ),
    ManifestFault(
        "the trainer publishes into the claim of the ratings",
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
        "each apply sets the replicas back",
        P,
        set_field("Deployment", "marquee-cf", "spec/replicas", 2),
    ),
    ManifestFault(
        "an autoscaler scales by what is not requested",
        P,
        set_field(
            "HorizontalPodAutoscaler",
            "marquee-cf",
            "spec/metrics/0/resource/name",
            "ephemeral-storage",
        ),
    ),
    ManifestFault(
        "a disruption budget counts all services",
        P,
        set_field(
            "PodDisruptionBudget",
            "marquee-cf",
            "spec/selector/matchLabels",
            {"app.kubernetes.io/part-of": "marquee"},
        ),
    ),
    ManifestFault(
        "KEDA asks for what no server exposes",
        P,
        set_field("ScaledObject", "marquee-cf", _QUERY, 'sum(marquee_calls_running{service="cf"})'),
        _KEDA,
    ),
    ManifestFault(
        "KEDA scales one service by the calls of another",
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
        "training comes before answers",
        P,
        set_field("PriorityClass", "marquee-serving", "value", 10),
    ),
    ManifestFault(
        "training ends other pods",
        P,
        set_field("PriorityClass", "marquee-training", "preemptionPolicy", "PreemptLowerPriority"),
    ),
    ManifestFault(
        "a priority is that of the whole cluster",
        P,
        set_field("PriorityClass", "marquee-training", "globalDefault", True),
    ),
    ManifestFault(
        "the failure policy is about a step that does not exist",
        S,
        lambda o: put(
            item_of(o, "CronJob", "marquee-trainer"),
            "spec/jobTemplate/spec/podFailurePolicy/rules/0/onExitCodes/containerName",
            "promotion",
        ),
    ),
    ManifestFault(
        "runs are found too late to be started",
        S,
        set_field("CronJob", "marquee-trainer", "spec/startingDeadlineSeconds", 5),
    ),
    # Who reaches whom
    ManifestFault(
        "callers reach pods that are not ready",
        S,
        set_field("Service", "marquee-cf", "spec/publishNotReadyAddresses", True),
    ),
    ManifestFault("Prometheus reaches no server", P, remove("NetworkPolicy", "marquee-metrics")),
    ManifestFault("no caller reaches the gateway", P, remove("NetworkPolicy", "marquee-callers")),
    ManifestFault(
        "nobody reaches object storage", P, remove("NetworkPolicy", "marquee-object-storage")
    ),
    ManifestFault(
        "names are looked up by TCP alone",
        P,
        lambda o: item_of(o, "NetworkPolicy", "marquee-dns")["spec"]["egress"][0]["ports"].pop(0),
    ),
    ManifestFault(
        "a policy for a proxy shuts everybody else out",
        S,
        _admit_proxy,
    ),
    ManifestFault(
        "the database does not admit the trainer",
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
        "a route names a service that does not exist",
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
        "no caller has a certificate",
        S,
        set_field("Certificate", "marquee-caller", "spec/usages", ["server auth"]),
        _MTLS,
    ),
    ManifestFault(
        "certificates come from two authorities",
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
        "series have no label that alerts ask for",
        P,
        set_field("PodMonitor", "marquee", f"{_ENDPOINT}/targetLabel", "server"),
        _MONITORING,
    ),
    ManifestFault(
        "the label of series is taken from another name",
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
        "an alert asks for what no server exposes",
        P,
        _in_rules("marquee_store_errors_total", "marquee_store_failures_total"),
        _MONITORING,
    ),
    ManifestFault(
        "Grafana does not find the dashboards",
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
        "the collector's health is asked where nothing listens",
        S,
        _in_collector("0.0.0.0:13133", "0.0.0.0:13134"),
        _COLLECTOR,
    ),
    ManifestFault(
        "traces go to an exporter that is not configured",
        S,
        _in_collector("exporters: [debug]", "exporters: [otlp]"),
        _COLLECTOR,
    ),
    ManifestFault(
        "a server shows the certificate of another",
        S,
        lambda o: next(v for v in pod_of(o, "cf")["volumes"] if v["name"] == "tls")[
            "secret"
        ].update(secretName="marquee-gateway-tls"),
        _MTLS,
    ),
    ManifestFault(
        "no release is kept",
        S,
        set_in_pod(
            "trainer", "containers/0/command", ["marquee", "releases", "prune", "--keep", "0"]
        ),
    ),
)
