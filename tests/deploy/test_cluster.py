"""The check against a cluster: pods to submit, custom kinds, and clusters that do not answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from deploy_check.__main__ import cluster_rows
from deploy_check.cluster import pods, refusals_of, split_custom
from deploy_check.objects import workloads
from deploy_check.render import COMPONENTS, render_with
from deploy_check.schemas import check_schemas


def test_pods_are_derived_from_workloads(tmp_path: Path) -> None:
    """Each workload yields a valid pod whose mounts refer only to its own volumes."""
    objects = render_with("production", COMPONENTS, tmp_path)
    made = list(pods(objects))
    assert len(made) == len(workloads(objects))
    assert check_schemas(made) == []
    for pod in made:
        volumes = {v["name"] for v in pod["spec"]["volumes"]}
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            assert {m["name"] for m in container["volumeMounts"]} <= volumes


def test_custom_kinds_are_separated_from_built_in_ones(tmp_path: Path) -> None:
    """A missing operator is not a fault of the manifests, but an unknown built-in kind is."""
    own, custom = split_custom(render_with("production", COMPONENTS, tmp_path))
    assert {"CronJob", "PodDisruptionBudget"} <= {o["kind"] for o in own}
    assert {o["kind"] for o in custom} == {
        "Certificate",
        "GRPCRoute",
        "Issuer",
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
    }


def test_refusals_are_listed_separately() -> None:
    """Continuation lines in the output of kubectl belong to the preceding refusal."""
    text = 'The Pod "a" is invalid: \n* spec.x: Required value\n* spec.y: Invalid\n\nError: b\n'
    assert refusals_of(text) == [
        'The Pod "a" is invalid: * spec.x: Required value * spec.y: Invalid',
        "Error: b",
    ]


def test_a_cluster_that_does_not_answer_is_reported(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row names the address that refused the connection, and the other checks continue."""
    server = f"http://127.0.0.1:{free_port()}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    (row,) = cluster_rows(tmp_path)
    assert not row.passed
    assert server.removeprefix("http://") in row.result
