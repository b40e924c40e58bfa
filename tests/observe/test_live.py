"""The manifests' commands run as processes, answer over mutual TLS, and can be monitored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_check.processes import Step, read_metrics
from deploy_check.system import METRICS_PORT, USER_IDS, await_full_answer
from observe.__main__ import queries_without_data
from observe.monitoring import rules
from observe.production import SERVICES, Load, ProductionSystem, damaged_release, running_production
from observe.prometheus import Prometheus, program

pytestmark = pytest.mark.alone
Passed = list[tuple[str, str]]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ProductionSystem, Passed]]:
    """The overlay `production` with mutual TLS, and the steps that it has passed so far."""
    passed: Passed = []

    def on_step(service: str, step: Step) -> None:
        passed.append((service, step.what))

    with running_production(tmp_path_factory.mktemp("system"), on_step) as system:
        yield system, passed
    for service in SERVICES:
        assert (service, "exits with 0 after SIGTERM") in passed


def test_production_with_mutual_tls_answers(started: tuple[ProductionSystem, Passed]) -> None:
    """The CronJob trains, promotes and prunes; servers pass their probes and answer over mTLS."""
    system, passed = started
    steps = ("train", "promote", "prune")
    assert passed[:3] == [("trainer", f"{step} exited with 0") for step in steps]
    for service in SERVICES:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert (service, f"passes its {probe}") in passed
        assert "marquee_call_seconds_bucket" in read_metrics(
            system.workspace, service, METRICS_PORT
        )
    assert system.secrets.caller
    with system.client() as client:
        await_full_answer(client, USER_IDS[0])


def test_every_query_has_data(started: tuple[ProductionSystem, Passed], tmp_path: Path) -> None:
    """No panel stays empty under load, and every series that an alert reads is exposed."""
    if program("prometheus") is None:
        pytest.skip("needs Prometheus (Debian's package `prometheus`)")
    system, _ = started
    with (
        Prometheus(tmp_path, system.metrics_ports, rules()) as prometheus,
        Load(system),
        # Some series exist only after a release has been refused.
        damaged_release(system),
    ):
        assert queries_without_data(prometheus) == []
