"""The Kubernetes manifests build, and say what the servers understand."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from marquee_services.gateway.settings import GatewaySettings
from marquee_services.scoring_service.settings import CFSettings, InferenceSettings
from marquee_trainer.settings import TrainSettings

ROOT = Path(__file__).parents[1]
SERVICES = {
    "gateway": (GatewaySettings, "MARQUEE_GATEWAY", "marquee.v1.RecommenderService"),
    "cf": (CFSettings, "MARQUEE_CF", "marquee.v1.ScoringService"),
    "inference": (InferenceSettings, "MARQUEE_INFERENCE", "marquee.v1.ScoringService"),
}


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    """All objects, as kustomize builds them."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    folder = str(ROOT / "deploy/kustomize/base")
    built = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True)
    # kubectl prints what it would apply as JSON without asking a cluster.
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


def environment(cls: type[Any], prefix: str) -> set[str]:
    """The environment variables that a process reads."""
    fields = [field for field in dataclasses.fields(cls) if field.metadata]
    return {field.metadata["env"] or f"{prefix}_{field.name.upper()}" for field in fields}


def deployments(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods of the services, by name of the service."""
    return {
        found["metadata"]["name"].removeprefix("marquee-"): found["spec"]["template"]["spec"]
        for found in manifests
        if found["kind"] == "Deployment"
    }


def test_each_service_is_deployed_with_settings_that_it_reads(
    manifests: list[dict[str, Any]],
) -> None:
    """No variable in a manifest is one that the process does not know."""
    pods = deployments(manifests)
    assert set(pods) == set(SERVICES)
    for name, (cls, prefix, _) in SERVICES.items():
        (container,) = pods[name]["containers"]
        used = {variable["name"] for variable in container["env"]}
        assert used <= environment(cls, prefix)
    (job,) = [found for found in manifests if found["kind"] == "CronJob"]
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    used = {variable["name"] for variable in container["env"]}
    assert used <= environment(TrainSettings, "MARQUEE_TRAIN") | {"MARQUEE_TFDS_DIR"}


def test_readiness_asks_for_the_service_that_waits_for_a_release(
    manifests: list[dict[str, Any]],
) -> None:
    """The probe names the server's own service, on the port that it listens on."""
    for name, pod in deployments(manifests).items():
        (container,) = pod["containers"]
        probe = container["readinessProbe"]["grpc"]
        listen = {v["name"]: v["value"] for v in container["env"]}[f"{SERVICES[name][1]}_LISTEN"]
        assert probe == {"port": int(listen.rsplit(":", 1)[1]), "service": SERVICES[name][2]}


def test_pods_are_unprivileged(manifests: list[dict[str, Any]]) -> None:
    """Not root, nothing writable but volumes, no capability, no token."""
    pods = list(deployments(manifests).values())
    pods += [
        found["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for found in manifests
        if found["kind"] == "CronJob"
    ]
    assert len(pods) == len(SERVICES) + 1
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_every_image_is_built() -> None:
    """The Dockerfile has a stage for each image that the manifests name."""
    stages = re.findall(
        r"^FROM .* AS (\w+)$", (ROOT / "deploy/images/Dockerfile").read_text(), re.M
    )
    images = set()
    for path in (ROOT / "deploy/kustomize/base").glob("*.yaml"):
        images |= set(re.findall(r"image: marquee-(\w+)", path.read_text()))
    assert images
    assert images <= set(stages)
