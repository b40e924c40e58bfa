"""Faults that are seeded into the manifests and the Dockerfile; each must be found."""

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
        name: What is wrong.
        overlay: The overlay that it is seeded into.
        edit: Puts the fault into the rendered objects.
        components: The components that the overlay is rendered with.
    """

    name: str
    overlay: str
    edit: Edit
    components: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFault:
    """A fault in the Dockerfile: a text that is replaced by another."""

    name: str
    old: str
    new: str


def _item(objects: list[Object], kind: str, name: str) -> Object:
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


def _pod(objects: list[Object], name: str) -> Object:
    kind = "CronJob" if name == "trainer" else "Deployment"
    spec = _item(objects, kind, f"marquee-{name}")["spec"]
    spec = spec["jobTemplate"]["spec"] if kind == "CronJob" else spec
    pod: Object = spec["template"]["spec"]
    return pod


def _set(kind: str, name: str, path: str, value: Any) -> Edit:
    """Sets a field of an object; a path's parts are names and list indexes. None removes it."""

    def edit(objects: list[Object]) -> None:
        _put(_item(objects, kind, name), path, value)

    return edit


def _in_pod(name: str, path: str, value: Any) -> Edit:
    """Sets a field of a pod's specification."""

    def edit(objects: list[Object]) -> None:
        _put(_pod(objects, name), path, value)

    return edit


def _put(item: Any, path: str, value: Any) -> None:
    *parents, last = [int(p) if p.isdecimal() else p for p in path.split("/")]
    for part in parents:
        item = item[part]
    if value is None:
        del item[last]
    else:
        item[last] = value


def _env(name: str, variable: str, value: str, new_name: str | None = None) -> Edit:
    """Sets, or adds, a variable of a pod's first container."""

    def edit(objects: list[Object]) -> None:
        env = _pod(objects, name)["containers"][0]["env"]
        found = next((e for e in env if e["name"] == variable), None)
        if found is None:
            env.append({"name": variable, "value": value})
        else:
            found.update(name=new_name or variable, value=value)

    return edit


def _unmount(name: str, path: str, container: str = "containers") -> Edit:
    """Removes a mount, and its volume, from a pod."""

    def edit(objects: list[Object]) -> None:
        pod = _pod(objects, name)
        mounts = pod[container][0]["volumeMounts"]
        mounts.remove(next(m for m in mounts if m["mountPath"] == path))

    return edit


def _mount(name: str, path: str, read_only: bool, container: str = "containers") -> Edit:
    """Sets whether a mount is read-only."""

    def edit(objects: list[Object]) -> None:
        mounts = _pod(objects, name)[container][0]["volumeMounts"]
        next(m for m in mounts if m["mountPath"] == path)["readOnly"] = read_only

    return edit


def _volume(name: str, volume: str, source: Object) -> Edit:
    """Replaces a pod's volume."""

    def edit(objects: list[Object]) -> None:
        volumes = _pod(objects, name)["volumes"]
        found = next(v for v in volumes if v["name"] == volume)
        found.clear()
        found.update(name=volume, **source)

    return edit


def _duplicate(kind: str, name: str) -> Edit:
    def edit(objects: list[Object]) -> None:
        objects.append(_item(objects, kind, name))

    return edit


def _remove(kind: str, name: str) -> Edit:
    def edit(objects: list[Object]) -> None:
        objects.remove(_item(objects, kind, name))

    return edit


_OTHER = {"app.kubernetes.io/name": "marquee-other"}
S, P, L = "staging", "production", "local"

MANIFEST_FAULTS = (
    # Relations between objects
    ManifestFault(
        "a Service selects nothing", S, _set("Service", "marquee-cf", "spec/selector", _OTHER)
    ),
    ManifestFault(
        "a Service leads to another workload",
        S,
        _set(
            "Service",
            "marquee-cf",
            "spec/selector",
            {"app.kubernetes.io/name": "marquee-inference"},
        ),
    ),
    ManifestFault(
        "a Service's target port does not exist",
        S,
        _set("Service", "marquee-gateway", "spec/ports/0/targetPort", "http"),
    ),
    ManifestFault(
        "a Service's port is not the one that is called",
        S,
        _set("Service", "marquee-cf", "spec/ports/0/port", 50055),
    ),
    ManifestFault(
        "the gateway's Service is not headless",
        S,
        _set("Service", "marquee-gateway", "spec/clusterIP", None),
    ),
    ManifestFault(
        "a backend's Service is not headless",
        S,
        _set("Service", "marquee-inference", "spec/clusterIP", None),
    ),
    ManifestFault(
        "a disruption budget blocks every drain",
        S,
        _set("PodDisruptionBudget", "marquee-cf", "spec/minAvailable", 2),
    ),
    ManifestFault(
        "a disruption budget of 100 % blocks every drain",
        S,
        _set("PodDisruptionBudget", "marquee-cf", "spec/minAvailable", "100%"),
    ),
    ManifestFault(
        "a disruption budget selects nothing",
        S,
        _set("PodDisruptionBudget", "marquee-gateway", "spec/selector/matchLabels", _OTHER),
    ),
    ManifestFault(
        "a server's claim does not exist",
        S,
        _volume(
            "cf",
            "store",
            {"persistentVolumeClaim": {"claimName": "marquee-stores", "readOnly": True}},
        ),
    ),
    ManifestFault(
        "the claim of the ratings does not exist",
        S,
        _remove("PersistentVolumeClaim", "marquee-ratings"),
    ),
    ManifestFault(
        "a service account does not exist", S, _in_pod("gateway", "serviceAccountName", "marquee")
    ),
    ManifestFault(
        "a volume is mounted that the pod lacks",
        S,
        _in_pod("gateway", "containers/0/volumeMounts/1/name", "caches"),
    ),
    ManifestFault(
        "a Deployment does not select its pods",
        S,
        _set("Deployment", "marquee-cf", "spec/selector/matchLabels", _OTHER),
    ),
    ManifestFault(
        "a spread constraint selects other pods",
        S,
        _in_pod("gateway", "topologySpreadConstraints/0/labelSelector/matchLabels", _OTHER),
    ),
    ManifestFault(
        "a network policy protects nothing",
        S,
        _set("NetworkPolicy", "marquee-cf", "spec/podSelector/matchLabels", _OTHER),
    ),
    ManifestFault(
        "a network policy admits pods that do not exist",
        S,
        _set(
            "NetworkPolicy", "marquee-cf", "spec/ingress/0/from/0/podSelector/matchLabels", _OTHER
        ),
    ),
    ManifestFault(
        "a network policy opens the wrong port",
        S,
        _set("NetworkPolicy", "marquee-inference", "spec/ingress/0/ports/0/port", 50052),
    ),
    ManifestFault(
        "an autoscaler scales what does not exist",
        P,
        _set("HorizontalPodAutoscaler", "marquee-cf", "spec/scaleTargetRef/name", "marquee-cfs"),
    ),
    ManifestFault(
        "a priority class does not exist", P, _remove("PriorityClass", "marquee-serving")
    ),
    ManifestFault(
        "a namespace is created by nothing",
        S,
        _set("Service", "marquee-cf", "metadata/namespace", "marquee"),
    ),
    ManifestFault("two objects have the same name", S, _duplicate("Service", "marquee-cf")),
    ManifestFault(
        "a key of a Secret does not exist",
        S,
        lambda o: _put(
            next(
                e
                for e in _pod(o, "gateway")["containers"][0]["env"]
                if e["name"] == "MARQUEE_FEEDBACK"
            ),
            "valueFrom/secretKeyRef/key",
            "uri",
        ),
        ("postgres",),
    ),
    ManifestFault(
        "a certificate is written to another Secret",
        S,
        _set("Certificate", "marquee-cf", "spec/secretName", "cf-tls"),
        ("mtls",),
    ),
    ManifestFault(
        "a route leads to a port that no Service has",
        P,
        _set("GRPCRoute", "marquee-gateway", "spec/rules/0/backendRefs/0/port", 443),
        ("ingress",),
    ),
    # What the processes read
    ManifestFault("metrics are off", S, _env("gateway", "MARQUEE_GATEWAY_METRICS_PORT", "0")),
    ManifestFault(
        "metrics are on another port than the one scraped",
        S,
        _env("cf", "MARQUEE_CF_METRICS_PORT", "9091"),
    ),
    ManifestFault(
        "a server listens on the loopback interface",
        S,
        _env("cf", "MARQUEE_CF_LISTEN", "127.0.0.1:50052"),
    ),
    ManifestFault(
        "a server listens on another port", S, _env("cf", "MARQUEE_CF_LISTEN", "0.0.0.0:50055")
    ),
    ManifestFault(
        "the gateway calls a backend by the wrong name",
        S,
        _env("gateway", "MARQUEE_GATEWAY_CF_TARGET", "dns:///marquee-cfs:50052"),
    ),
    ManifestFault("a variable is misspelt", S, _env("cf", "MARQUEE_CF_MAX_USER", "10")),
    ManifestFault("a value is refused", S, _env("gateway", "MARQUEE_GATEWAY_MAX_CALLS", "many")),
    ManifestFault("the store is mounted elsewhere", S, _env("cf", "MARQUEE_STORE", "/releases")),
    ManifestFault("a server may write the store", S, _mount("inference", "/store", False)),
    ManifestFault(
        "the trainer cannot write the store", S, _mount("trainer", "/store", True, "initContainers")
    ),
    ManifestFault(
        "the trainer's claim is read-only",
        S,
        _volume(
            "trainer",
            "store",
            {"persistentVolumeClaim": {"claimName": "marquee-store", "readOnly": True}},
        ),
    ),
    ManifestFault(
        "several replicas share a claim for one node",
        S,
        _set("PersistentVolumeClaim", "marquee-store", "spec/accessModes", ["ReadWriteOnce"]),
    ),
    ManifestFault(
        "a container may use less memory than it requests",
        S,
        _in_pod("cf", "containers/0/resources/limits/memory", "256Mi"),
    ),
    ManifestFault(
        "the schedule is none", S, _set("CronJob", "marquee-trainer", "spec/schedule", "3 am")
    ),
    ManifestFault("a pod shares the node's network", S, _in_pod("gateway", "hostNetwork", True)),
    ManifestFault("the trainer has no /tmp", S, _unmount("trainer", "/tmp", "initContainers")),  # noqa: S108
    ManifestFault("the cache is not writable", S, _unmount("gateway", "/cache")),
    ManifestFault(
        "readiness asks for an unknown service",
        S,
        _in_pod("cf", "containers/0/readinessProbe/grpc/service", "marquee.v1.RecommenderService"),
    ),
    ManifestFault(
        "readiness asks on the wrong port",
        S,
        _in_pod("cf", "containers/0/readinessProbe/grpc/port", 50051),
    ),
    ManifestFault(
        "liveness needs a release",
        S,
        _in_pod(
            "gateway", "containers/0/livenessProbe/grpc/service", "marquee.v1.RecommenderService"
        ),
    ),
    ManifestFault(
        "liveness passes for a frozen process",
        S,
        _in_pod("gateway", "containers/0/livenessProbe", {"tcpSocket": {"port": "grpc"}}),
    ),
    ManifestFault(
        "the kubelet probes over TLS", S, _env("cf", "MARQUEE_CF_HEALTH_PORT", "0"), ("mtls",)
    ),
    ManifestFault(
        "a server is killed before it has drained",
        S,
        _in_pod("gateway", "terminationGracePeriodSeconds", 12),
    ),
    # Policies
    ManifestFault(
        "a server stops before callers notice",
        S,
        _in_pod("gateway", "containers/0/lifecycle", None),
    ),
    ManifestFault(
        "two trainings at a time",
        S,
        _set("CronJob", "marquee-trainer", "spec/concurrencyPolicy", "Allow"),
    ),
    ManifestFault(
        "a release is promoted unchecked", S, _in_pod("trainer", "initContainers/0/args", None)
    ),
    ManifestFault(
        "finished jobs stay for ever",
        L,
        _set("Job", "marquee-sample", "spec/ttlSecondsAfterFinished", None),
    ),
    ManifestFault("a volume may fill the node", S, _volume("cf", "cache", {"emptyDir": {}})),
    ManifestFault(
        "a container has no memory limit", S, _in_pod("cf", "containers/0/resources/limits", None)
    ),
    ManifestFault(
        "a pod may run as root", S, _in_pod("trainer", "securityContext/runAsNonRoot", None)
    ),
    ManifestFault(
        "a root file system is writable",
        S,
        _in_pod("inference", "containers/0/securityContext/readOnlyRootFilesystem", False),
    ),
    ManifestFault(
        "an image has no tag",
        S,
        _in_pod("gateway", "containers/0/image", "registry.example.com/marquee/gateway"),
    ),
    ManifestFault(
        "an image has the tag latest",
        S,
        _in_pod("gateway", "containers/0/image", "registry.example.com/marquee/gateway:latest"),
    ),
    # Schemas
    ManifestFault("a field is misspelt", S, _set("Deployment", "marquee-cf", "spec/replica", 2)),
    ManifestFault(
        "a field has the wrong type", S, _set("Deployment", "marquee-cf", "spec/replicas", "two")
    ),
    ManifestFault(
        "a field of a custom resource is misspelt",
        S,
        _set("Certificate", "marquee-cf", "spec/dnsName", "cf"),
        ("mtls",),
    ),
)

_INSTALL = "RUN /build/install.sh gateway"
IMAGE_FAULTS = (
    ImageFault("there is no constraints file", "COPY constraints.txt /build/constraints.txt\n", ""),
    ImageFault(
        "packages are installed without the constraints", _INSTALL, "RUN pip install gateway"
    ),
    ImageFault("the base has no digest", "python:3.11-slim@sha256:", "python:3.11-slim\n#"),
    ImageFault("the base has no tag", "python:3.11-slim@", "python@"),
    ImageFault("a COPY source does not exist", "COPY constraints.txt", "COPY requirements.txt"),
    ImageFault("a COPY source is ignored", "COPY constraints.txt", "COPY tests"),
    ImageFault("a stage is copied that does not exist", "--from=cf-build", "--from=cf-builder"),
    ImageFault(
        "an image runs as root",
        'USER 10001\nENTRYPOINT ["marquee", "serve", "cf"]',
        'ENTRYPOINT ["marquee", "serve", "cf"]',
    ),
    ImageFault(
        "an image runs as a user that does not exist", "useradd --uid 10001", "useradd --uid 1000"
    ),
    ImageFault("an image holds pip", "FROM runtime AS gateway\n", "FROM build AS gateway\n"),
    ImageFault("an image installs another's packages", _INSTALL, "RUN /build/install.sh cf"),
    ImageFault("an extra does not exist", "ann,inference", "faiss,inference"),
    ImageFault(
        "a shell is between the kubelet and the server",
        'ENTRYPOINT ["marquee", "serve", "gateway"]',
        "ENTRYPOINT marquee serve gateway",
    ),
)
