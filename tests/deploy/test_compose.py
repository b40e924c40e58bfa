"""The compose file refers to existing files, stages and services, and its settings are valid."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from deploy_check.images import images
from deploy_check.settings import parse
from locations import PROJECT
from observe.monitoring import rules

DEPLOY = PROJECT / "deploy"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the compose file, by name."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def test_processes_read_their_settings(services: dict[str, Any]) -> None:
    """Each of the project's processes knows its environment variables and accepts their values."""
    built = {name: s for name, s in services.items() if "build" in s}
    assert set(built) == {"trainer", "cf", "inference", "gateway"}
    for name, service in built.items():
        stage = images()[service["build"]["target"]]
        assert stage.name == name
        values = parse(stage.entry_point, service["environment"])
        if name != "trainer":
            assert values["metrics_port"] == 9090


def test_files_and_dependencies_exist(services: dict[str, Any]) -> None:
    """Mounted files exist, and so do the services that others depend on."""
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source == "store" or (DEPLOY / source).exists()
        assert set(service.get("depends_on", {})) <= set(services)


def test_the_gateway_calls_the_backends(services: dict[str, Any]) -> None:
    """The gateway's targets are the backends, on the ports that they listen on."""
    gateway = services["gateway"]["environment"]
    for backend in ("cf", "inference"):
        port = services[backend]["environment"][f"MARQUEE_{backend.upper()}_LISTEN"].split(":")[1]
        target = gateway[f"MARQUEE_GATEWAY_{backend.upper()}_TARGET"]
        assert target == f"dns:///{backend}:{port}"


def test_prometheus_scrapes_all_servers(services: dict[str, Any]) -> None:
    """Every server is scraped with the service label that dashboards and alerts use."""
    config = yaml.safe_load((DEPLOY / "compose/prometheus.yaml").read_text())
    scraped = {
        target: group["labels"]["service"]
        for group in config["scrape_configs"][0]["static_configs"]
        for target in group["targets"]
    }
    assert scraped == {f"{name}:9090": name for name in ("gateway", "cf", "inference")}


def test_prometheus_loads_the_alerts(services: dict[str, Any]) -> None:
    """The container's command extracts a valid rule file from the PrometheusRule object."""
    (command,) = services["prometheus"]["command"]
    path = DEPLOY / "kustomize/components/monitoring/rules.yaml"
    extract = command.split(" > ")[0].replace("/kit/rules.yaml", str(path))
    made = subprocess.run(["sh", "-c", extract], check=True, capture_output=True)
    assert yaml.safe_load(made.stdout) == rules()
