"""The Kubernetes manifests build, and match the servers' settings, ports and images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from typing import Any

import click
import pytest

from locations import PROJECT
from marquee.cli import main
from marquee_core.service_names import STANDALONE
from marquee_services.cli import serve
from marquee_services.gateway.main import SERVICE as RECOMMENDER_SERVICE
from marquee_services.scoring.main import SERVICE as SCORING_SERVICE
from marquee_trainer.commands.cli import train
from marquee_trainer.data.source import _TFDS_CACHE

DOCKERFILE = (PROJECT / "deploy/images/Dockerfile").read_text()
# The standalone server is for places without a cluster.
COMMANDS = {
    **{name: command for name, command in serve.commands.items() if name != STANDALONE},
    "trainer": train,
}
PROBED = {"gateway": RECOMMENDER_SERVICE, "cf": SCORING_SERVICE, "inference": SCORING_SERVICE}


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    """All objects that kustomize builds."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    folder = str(PROJECT / "deploy/kustomize/base")
    built = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True)
    # `patch --local` with an empty patch converts the objects to JSON without a cluster.
    listed = subprocess.run(
        ["kubectl", "patch", "--local", "--type=merge", "-p", "{}", "-o", "json", "-f", "-"],
        input=built.stdout,
        check=True,
        capture_output=True,
    )
    decoder, text, objects = json.JSONDecoder(), listed.stdout.decode(), []
    while text.strip():
        found, end = decoder.raw_decode(text.lstrip())
        objects.append(found)
        text = text.lstrip()[end:]
    return objects


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pod specifications of the services and of the trainer, by name."""
    found = {}
    for item in manifests:
        if item["kind"] in ("Deployment", "CronJob"):
            spec = item["spec"]
            spec = spec["jobTemplate"]["spec"] if item["kind"] == "CronJob" else spec
            found[item["metadata"]["name"].removeprefix("marquee-")] = spec["template"]["spec"]
    assert set(found) == set(COMMANDS)
    return found


def settings(name: str, pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that a process reads from the environment of its pod's only container."""
    command = COMMANDS[name]
    known = {o.envvar for o in command.params if isinstance(o, click.Option)}
    (container,) = pod["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables.keys() <= known | {_TFDS_CACHE}
    with monkeypatch.context() as patch:
        for variable, value in variables.items():
            patch.setenv(variable, value)
        return command.make_context(name, []).params


def test_processes_read_their_settings(
    manifests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process knows every variable in its manifest, and accepts its value."""
    for name, pod in pods(manifests).items():
        parsed = settings(name, pod, monkeypatch)
        assert parsed["store"] == "/store"


def test_gateway_finds_each_pod_of_the_backends(
    manifests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's targets are headless Services, so it resolves and balances over all pods."""
    by_name = {item["metadata"]["name"]: item for item in manifests if item["kind"] == "Service"}
    parsed = settings("gateway", pods(manifests)["gateway"], monkeypatch)
    for backend in ("cf", "inference"):
        spec = by_name[f"marquee-{backend}"]["spec"]
        (port,) = spec["ports"]
        assert spec["clusterIP"] == "None"
        assert parsed[f"{backend}_target"] == f"dns:///marquee-{backend}:{port['port']}"


def test_probes_and_services_use_the_port_of_the_server(
    manifests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness checks the health of the gRPC service; liveness only opens the port."""
    by_name = {item["metadata"]["name"]: item for item in manifests if item["kind"] == "Service"}
    for name, service in PROBED.items():
        pod = pods(manifests)[name]
        (container,) = pod["containers"]
        port = int(settings(name, pod, monkeypatch)["listen"].rsplit(":", 1)[1])
        assert container["readinessProbe"]["grpc"] == {"port": port, "service": service}
        named = {p["name"]: p["containerPort"] for p in container["ports"]}
        assert named[container["livenessProbe"]["tcpSocket"]["port"]] == port
        (exposed,) = by_name[f"marquee-{name}"]["spec"]["ports"]
        assert (exposed["port"], named[exposed["targetPort"]]) == (port, port)


def test_pods_have_time_to_drain(
    manifests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preStop sleep and the server's grace period fit into the termination grace period."""
    for name in PROBED:
        pod = pods(manifests)[name]
        wait = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace = settings(name, pod, monkeypatch)["grace"]
        assert wait + grace < pod["terminationGracePeriodSeconds"]


def test_only_the_trainer_writes_the_store(manifests: list[dict[str, Any]]) -> None:
    """Servers mount the store read-only."""
    writers = set()
    for name, pod in pods(manifests).items():
        (store,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "store"]
        writers |= set() if store.get("readOnly") else {name}
    assert writers == {"trainer"}


def test_only_the_gateway_calls_the_backends(manifests: list[dict[str, Any]]) -> None:
    """A network policy admits only the gateway's pods to the port of a backend."""
    policies = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "NetworkPolicy"}
    gateway = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "marquee-gateway"}}}
    for name in ("marquee-cf", "marquee-inference"):
        (service,) = [
            m for m in manifests if m["kind"] == "Service" and m["metadata"]["name"] == name
        ]
        spec = policies[name]["spec"]
        assert spec["podSelector"]["matchLabels"] == service["spec"]["selector"]
        (port,) = service["spec"]["ports"]
        (rule,) = [
            r for r in spec["ingress"] if {"port": port["port"]}.items() <= r["ports"][0].items()
        ]
        assert rule["from"] == [gateway]


def test_pods_are_unprivileged(manifests: list[dict[str, Any]]) -> None:
    """Pods run without root, capabilities or token, on a read-only root file system."""
    for pod in pods(manifests).values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_each_pod_has_its_image(manifests: list[dict[str, Any]]) -> None:
    """The Dockerfile has a stage for each pod, which runs as the pod's user."""
    stages = dict(re.findall(r"^FROM .* AS (\w+)\n((?:(?!FROM ).*\n?)*)", DOCKERFILE, re.M))
    for name, pod in pods(manifests).items():
        assert pod["containers"][0]["image"] == f"marquee-{name}"
        assert f"USER {pod['securityContext']['runAsUser']}\n" in stages[name]


def test_images_start_commands_that_exist() -> None:
    """Each entry point is a command of `marquee`, and the extra that provides it is installed."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    started = set()
    for names, entry in re.findall(r"\[([\w,]+)\]\"\n.*\nENTRYPOINT (.*)", DOCKERFILE):
        # The last extra is that of the service; the others are optional dependencies.
        extra = names.split(",")[-1]
        assert set(names.split(",")) <= set(extras)
        program, *arguments = json.loads(entry)
        assert program == "marquee"
        command: click.Command | None = main
        for argument in arguments:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), argument)
        assert command is COMMANDS[extra]
        started.add(extra)
    assert started == set(COMMANDS)
