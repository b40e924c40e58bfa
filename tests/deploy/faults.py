"""Faults seeded into the manifests and the Dockerfile; the checks must find each of them."""

from __future__ import annotations

from deploy.seeding import (
    ImageFault,
    ManifestFault,
    duplicate,
    pod_of,
    put,
    remove,
    replace_volume,
    set_field,
    set_in_pod,
    set_read_only,
    set_variable,
    unmount,
)

_OTHER = {"app.kubernetes.io/name": "marquee-other"}
_OF_CF = {"selector": {"matchLabels": {"app.kubernetes.io/name": "marquee-cf"}}}
S, P, L = "staging", "production", "local"

MANIFEST_FAULTS = (
    # References between objects
    ManifestFault(
        "a Service selects no pods", S, set_field("Service", "marquee-cf", "spec/selector", _OTHER)
    ),
    ManifestFault(
        "a Service selects another workload",
        S,
        set_field(
            "Service",
            "marquee-cf",
            "spec/selector",
            {"app.kubernetes.io/name": "marquee-inference"},
        ),
    ),
    ManifestFault(
        "a Service's target port does not exist",
        S,
        set_field("Service", "marquee-gateway", "spec/ports/0/targetPort", "http"),
    ),
    ManifestFault(
        "a Service's port is not the one that callers use",
        S,
        set_field("Service", "marquee-cf", "spec/ports/0/port", 50055),
    ),
    ManifestFault(
        "the gateway's Service is not headless",
        S,
        set_field("Service", "marquee-gateway", "spec/clusterIP", None),
    ),
    ManifestFault(
        "a backend's Service is not headless",
        S,
        set_field("Service", "marquee-inference", "spec/clusterIP", None),
    ),
    ManifestFault(
        "a disruption budget blocks every drain",
        S,
        set_field("PodDisruptionBudget", "marquee-cf", "spec", {**_OF_CF, "minAvailable": 2}),
    ),
    ManifestFault(
        "a disruption budget allows no disruption",
        S,
        set_field("PodDisruptionBudget", "marquee-cf", "spec/maxUnavailable", 0),
    ),
    ManifestFault(
        "a disruption budget of 100 % blocks every drain",
        S,
        set_field("PodDisruptionBudget", "marquee-cf", "spec", {**_OF_CF, "minAvailable": "100%"}),
    ),
    ManifestFault(
        "a disruption budget selects no pods",
        S,
        set_field("PodDisruptionBudget", "marquee-gateway", "spec/selector/matchLabels", _OTHER),
    ),
    ManifestFault(
        "a server's claim does not exist",
        S,
        replace_volume(
            "cf",
            "store",
            {"persistentVolumeClaim": {"claimName": "marquee-stores", "readOnly": True}},
        ),
    ),
    ManifestFault(
        "the claim for ratings does not exist",
        S,
        remove("PersistentVolumeClaim", "marquee-ratings"),
    ),
    ManifestFault(
        "a service account does not exist",
        S,
        set_in_pod("gateway", "serviceAccountName", "marquee"),
    ),
    ManifestFault(
        "a mounted volume is not defined",
        S,
        set_in_pod("gateway", "containers/0/volumeMounts/1/name", "caches"),
    ),
    ManifestFault(
        "a Deployment does not select its pods",
        S,
        set_field("Deployment", "marquee-cf", "spec/selector/matchLabels", _OTHER),
    ),
    ManifestFault(
        "a spread constraint selects other pods",
        S,
        set_in_pod("gateway", "topologySpreadConstraints/0/labelSelector/matchLabels", _OTHER),
    ),
    ManifestFault(
        "a network policy selects no pods",
        S,
        set_field("NetworkPolicy", "marquee-cf", "spec/podSelector/matchLabels", _OTHER),
    ),
    ManifestFault(
        "a network policy admits pods that do not exist",
        S,
        set_field(
            "NetworkPolicy", "marquee-cf", "spec/ingress/0/from/0/podSelector/matchLabels", _OTHER
        ),
    ),
    ManifestFault(
        "a network policy opens the wrong port",
        S,
        set_field("NetworkPolicy", "marquee-inference", "spec/ingress/0/ports/0/port", 50052),
    ),
    ManifestFault(
        "an autoscaler's target does not exist",
        P,
        set_field(
            "HorizontalPodAutoscaler", "marquee-cf", "spec/scaleTargetRef/name", "marquee-cfs"
        ),
    ),
    ManifestFault("a priority class does not exist", P, remove("PriorityClass", "marquee-serving")),
    ManifestFault(
        "a namespace is not created",
        S,
        set_field("Service", "marquee-cf", "metadata/namespace", "marquee"),
    ),
    ManifestFault("two objects have the same name", S, duplicate("Service", "marquee-cf")),
    ManifestFault(
        "a key of a Secret does not exist",
        S,
        lambda o: put(
            next(
                e
                for e in pod_of(o, "gateway")["containers"][0]["env"]
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
        set_field("Certificate", "marquee-cf", "spec/secretName", "cf-tls"),
        ("mtls",),
    ),
    ManifestFault(
        "a route's backend is a port that no Service has",
        P,
        set_field("GRPCRoute", "marquee-gateway", "spec/rules/0/backendRefs/0/port", 443),
        ("ingress",),
    ),
    # Settings of the processes
    ManifestFault(
        "metrics are disabled", S, set_variable("gateway", "MARQUEE_GATEWAY_METRICS_PORT", "0")
    ),
    ManifestFault(
        "metrics are not on the port that is scraped",
        S,
        set_variable("cf", "MARQUEE_CF_METRICS_PORT", "9091"),
    ),
    ManifestFault(
        "a server listens on the loopback interface",
        S,
        set_variable("cf", "MARQUEE_CF_LISTEN", "127.0.0.1:50052"),
    ),
    ManifestFault(
        "a server listens on a port that the manifest does not declare",
        S,
        set_variable("cf", "MARQUEE_CF_LISTEN", "0.0.0.0:50055"),
    ),
    ManifestFault(
        "the gateway calls a backend by the wrong name",
        S,
        set_variable("gateway", "MARQUEE_GATEWAY_CF_TARGET", "dns:///marquee-cfs:50052"),
    ),
    ManifestFault("a variable is misspelt", S, set_variable("cf", "MARQUEE_CF_MAX_USER", "10")),
    ManifestFault(
        "a value is not valid", S, set_variable("gateway", "MARQUEE_GATEWAY_MAX_CALLS", "many")
    ),
    ManifestFault(
        "the store is mounted elsewhere", S, set_variable("cf", "MARQUEE_STORE", "/releases")
    ),
    ManifestFault(
        "a server may write to the store", S, set_read_only("inference", "/store", False)
    ),
    ManifestFault(
        "the trainer cannot write to the store",
        S,
        set_read_only("trainer", "/store", True, "initContainers"),
    ),
    ManifestFault(
        "the trainer's claim is read-only",
        S,
        replace_volume(
            "trainer",
            "store",
            {"persistentVolumeClaim": {"claimName": "marquee-store", "readOnly": True}},
        ),
    ),
    ManifestFault(
        "several replicas share a ReadWriteOnce claim",
        S,
        set_field("PersistentVolumeClaim", "marquee-store", "spec/accessModes", ["ReadWriteOnce"]),
    ),
    ManifestFault(
        "a container's memory limit is below its request",
        S,
        set_in_pod("cf", "containers/0/resources/limits/memory", "256Mi"),
    ),
    ManifestFault(
        "the schedule is not valid",
        S,
        set_field("CronJob", "marquee-trainer", "spec/schedule", "3 am"),
    ),
    ManifestFault("a pod shares the node's network", S, set_in_pod("gateway", "hostNetwork", True)),
    ManifestFault("the trainer has no /tmp", S, unmount("trainer", "/tmp", "initContainers")),  # noqa: S108
    ManifestFault("the cache is not writable", S, unmount("gateway", "/cache")),
    ManifestFault(
        "the readiness probe checks another service",
        S,
        set_in_pod(
            "cf", "containers/0/readinessProbe/grpc/service", "marquee.v1.RecommenderService"
        ),
    ),
    ManifestFault(
        "the readiness probe uses the wrong port",
        S,
        set_in_pod("cf", "containers/0/readinessProbe/grpc/port", 50051),
    ),
    ManifestFault(
        "the liveness probe requires a release",
        S,
        set_in_pod(
            "gateway", "containers/0/livenessProbe/grpc/service", "marquee.v1.RecommenderService"
        ),
    ),
    ManifestFault(
        "the liveness probe passes for a frozen process",
        S,
        set_in_pod("gateway", "containers/0/livenessProbe", {"tcpSocket": {"port": "grpc"}}),
    ),
    ManifestFault(
        "the kubelet probes over TLS",
        S,
        set_variable("cf", "MARQUEE_CF_HEALTH_PORT", "0"),
        ("mtls",),
    ),
    ManifestFault(
        "a server is killed before it has drained",
        S,
        set_in_pod("gateway", "terminationGracePeriodSeconds", 12),
    ),
    # Policies
    ManifestFault(
        "a server stops before callers notice",
        S,
        set_in_pod("gateway", "containers/0/lifecycle", None),
    ),
    ManifestFault(
        "two training runs may overlap",
        S,
        set_field("CronJob", "marquee-trainer", "spec/concurrencyPolicy", "Allow"),
    ),
    ManifestFault(
        "a release is promoted without the gate",
        S,
        set_in_pod("trainer", "initContainers/0/args", None),
    ),
    ManifestFault(
        "finished Jobs are never deleted",
        L,
        set_field("Job", "marquee-sample", "spec/ttlSecondsAfterFinished", None),
    ),
    ManifestFault("a volume has no size limit", S, replace_volume("cf", "cache", {"emptyDir": {}})),
    ManifestFault(
        "a container has no memory limit",
        S,
        set_in_pod("cf", "containers/0/resources/limits", None),
    ),
    ManifestFault(
        "a pod may run as root", S, set_in_pod("trainer", "securityContext/runAsNonRoot", None)
    ),
    ManifestFault(
        "a root file system is writable",
        S,
        set_in_pod("inference", "containers/0/securityContext/readOnlyRootFilesystem", False),
    ),
    ManifestFault(
        "an image has no tag",
        S,
        set_in_pod("gateway", "containers/0/image", "registry.example.com/marquee/gateway"),
    ),
    ManifestFault(
        "an image has the tag latest",
        S,
        set_in_pod("gateway", "containers/0/image", "registry.example.com/marquee/gateway:latest"),
    ),
    # Schemas
    ManifestFault(
        "a field is misspelt", S, set_field("Deployment", "marquee-cf", "spec/replica", 2)
    ),
    ManifestFault(
        "a field has the wrong type",
        S,
        set_field("Deployment", "marquee-cf", "spec/replicas", "two"),
    ),
    ManifestFault(
        "a field of a custom resource is misspelt",
        S,
        set_field("Certificate", "marquee-cf", "spec/dnsName", "cf"),
        ("mtls",),
    ),
)

_INSTALL = "RUN /build/install.sh gateway"
IMAGE_FAULTS = (
    ImageFault(
        "the constraints file is missing", "COPY constraints.txt /build/constraints.txt\n", ""
    ),
    ImageFault(
        "packages are installed without the constraints", _INSTALL, "RUN pip install gateway"
    ),
    ImageFault("the base image has no digest", "python:3.11-slim@sha256:", "python:3.11-slim\n#"),
    ImageFault("the base image has no tag", "python:3.11-slim@", "python@"),
    ImageFault("a COPY source does not exist", "COPY constraints.txt", "COPY requirements.txt"),
    ImageFault("a COPY source is ignored", "COPY constraints.txt", "COPY tests"),
    ImageFault("a copied stage does not exist", "--from=cf-build", "--from=cf-builder"),
    ImageFault(
        "an image runs as root",
        'USER 10001\nENTRYPOINT ["marquee", "serve", "cf"]',
        'ENTRYPOINT ["marquee", "serve", "cf"]',
    ),
    ImageFault(
        "an image runs as a user that does not exist", "useradd --uid 10001", "useradd --uid 1000"
    ),
    ImageFault("an image contains pip", "FROM runtime AS gateway\n", "FROM build AS gateway\n"),
    ImageFault("an image installs the packages of another", _INSTALL, "RUN /build/install.sh cf"),
    ImageFault("an extra does not exist", "ann,inference", "faiss,inference"),
    ImageFault(
        "the entry point runs in a shell",
        'ENTRYPOINT ["marquee", "serve", "gateway"]',
        "ENTRYPOINT marquee serve gateway",
    ),
    ImageFault("an image starts an unknown command", '"serve", "cf"]', '"server", "cf"]'),
    ImageFault("an image starts another server", '"serve", "cf"]', '"serve", "gateway"]'),
    ImageFault(
        "a compiler is installed",
        "FROM runtime AS cf\n",
        "FROM runtime AS cf\nRUN apt-get install --yes clang\n",
    ),
    ImageFault("the programs are not on PATH", "ENV PATH=/opt/marquee/bin:$PATH ", "ENV "),
    ImageFault(
        "packages are copied elsewhere",
        "COPY --from=cf-build /opt/marquee /opt/marquee",
        "COPY --from=cf-build /opt/marquee /opt/cf",
    ),
    ImageFault("an image contains a secret", "ENV PATH", "ENV AWS_SECRET_ACCESS_KEY=x PATH"),
    ImageFault(
        "a file is downloaded with ADD",
        "FROM runtime AS cf\n",
        "FROM runtime AS cf\nADD https://example.com/x.sh /x.sh\n",
    ),
    ImageFault(
        "a script is downloaded and run",
        "FROM python AS build\n",
        "FROM python AS build\nRUN curl https://example.com/x.sh | sh\n",
    ),
    ImageFault(
        "files are world-writable",
        "FROM runtime AS cf\n",
        "FROM runtime AS cf\nRUN chmod -R 777 /opt\n",
    ),
    ImageFault("the base image has the tag latest", "python:3.11-slim@", "python:latest@"),
    ImageFault("the base image has an old Python", "python:3.11-slim@", "python:3.9-slim@"),
    ImageFault("the wheel is missing", "COPY --from=wheel /wheels /wheels\n", ""),
    ImageFault(
        "the install script is missing", "COPY deploy/images/install.sh /build/install.sh\n", ""
    ),
    ImageFault(
        "an image also installs the packages of another",
        _INSTALL,
        "RUN /build/install.sh inference,gateway",
    ),
    ImageFault("a build tool is not pinned", "build==1.3.0", "build"),
    ImageFault(
        "an image contains the source tree",
        "FROM runtime AS cf\n",
        "FROM runtime AS cf\nCOPY . .\n",
    ),
)
