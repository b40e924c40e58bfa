"""The commands of the manifests run as processes, and answer with mutual TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy_check.processes import Place, Step
from deploy_check.render import render_with
from deploy_check.system import serve_and_call, train

pytestmark = pytest.mark.alone


def test_production_with_mutual_tls_answers(tmp_path: Path) -> None:
    """The CronJob's steps train and promote, the servers pass their probes and answer over mTLS."""
    objects = render_with("production", ("mtls",), tmp_path / "rendered")
    place, passed = Place(tmp_path), list[tuple[str, str]]()

    def on_step(service: str, step: Step) -> None:
        passed.append((service, step.what))

    train(objects, place, on_step)
    serve_and_call(objects, place, on_step)
    assert passed[:2] == [("trainer", "train ended with 0"), ("trainer", "promote ended with 0")]
    for service in ("cf", "inference", "gateway"):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert (service, f"passes its {probe}") in passed
        assert (service, "ends with 0 after SIGTERM") in passed
    assert ("gateway", "answers Recommend over mutual TLS") in passed
