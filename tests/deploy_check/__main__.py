"""Checks the whole deployment and prints a table: `make deploy-check`."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from deploy_check.cluster import OLDEST, Cluster, ClusterError, kinds_of, split_custom
from deploy_check.images import DOCKERFILE, check_images
from deploy_check.objects import Object
from deploy_check.processes import ProcessError, Step, Workspace
from deploy_check.render import COMPONENTS, KUSTOMIZE, OVERLAYS, RenderError, render, render_with
from deploy_check.static import check_objects
from deploy_check.system import serve_and_call, train
from termination import interrupt_on_sigterm

# The overlays whose commands are started, with the components added to them.
_STARTED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("staging", ()),
    ("local", ()),
    ("production", ("mtls",)),
)


# Every overlay, with no component, each component and all of them.
_COMBINATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((overlay, ()) for overlay in OVERLAYS),
    *((overlay, (component,)) for overlay in OVERLAYS for component in COMPONENTS),
    *((overlay, COMPONENTS) for overlay in OVERLAYS),
)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        what: The overlay and its components, or the overlay and the service.
        check: What was checked.
        result: The result of the check.
        passed: Whether the check passed.
    """

    what: str
    check: str
    result: str
    passed: bool

    def __str__(self) -> str:
        verdict = (
            click.style("ok    ", fg="green") if self.passed else click.style("FAILED", fg="red")
        )
        return f"{verdict} {self.what:<36} {self.check:<36} {self.result}"


def static_rows(folder: Path) -> Iterator[Row]:
    """Renders and checks the base, every overlay, and every component in every overlay."""
    for overlay, components in [("base", ()), *_COMBINATIONS]:
        name = _name(overlay, components)
        try:
            objects = _objects(overlay, components, folder / name.replace(" ", ""))
        except RenderError as error:
            yield Row(name, "renders", str(error), passed=False)
            continue
        findings = check_objects(objects, is_overlay=overlay != "base")
        result = f"{len(objects)} objects"
        yield Row(name, "schemas, references, settings", result, passed=not findings)
        for finding in findings:
            yield Row(name, "", str(finding), passed=False)
    problems = check_images()
    yield Row("Dockerfile", "stages, sources, packages, users", "", passed=not problems)
    for problem in problems:
        yield Row("Dockerfile", "", str(problem), passed=False)


def cluster_rows(folder: Path) -> Iterator[Row]:
    """Checks whether the cluster of `KUBECONFIG` accepts all objects and their pods."""
    what, unknown = "cluster", []
    try:
        with Cluster() as cluster:
            oldest = ".".join(map(str, OLDEST))
            result = cluster.version + ("" if cluster.is_supported else f", older than {oldest}")
            yield Row(what, "version", result, passed=cluster.is_supported)
            for overlay, components in _COMBINATIONS:
                name = _name(overlay, components)
                objects = _objects(overlay, components, folder / f"cluster-{overlay}{components}")
                unknown += cluster.unknown(objects)
                count, refusals = cluster.refusals(objects)
                result = f"{count} further objects and pods"
                yield Row(name, "applies server-side", result, passed=not refusals)
                for refusal in refusals:
                    yield Row(name, "", refusal, passed=False)
            own, custom = split_custom(unknown)
            if own:
                yield Row(what, "does not know", kinds_of(own), passed=False)
            if custom:
                yield Row(what, "lacks operators for", kinds_of(custom), passed=True)
    except ClusterError as error:
        yield Row(what, "answers", str(error), passed=False)


def policy_rows(folder: Path, checkov: str, hadolint: str) -> Iterator[Row]:
    """Runs checkov on every overlay and the Dockerfile, and hadolint on the Dockerfile."""
    rendered = folder / "checkov"
    rendered.mkdir()
    for overlay in OVERLAYS:
        objects = _objects(overlay, COMPONENTS, folder / f"{overlay}-all")
        (rendered / f"{overlay}.yaml").write_text(yaml.safe_dump_all(objects))
    shutil.copy(DOCKERFILE, rendered)
    config = KUSTOMIZE.parent / "checkov.yaml"
    command = [checkov, "--directory", str(rendered), "--config-file", str(config)]
    command += ["--framework", "kubernetes", "dockerfile", "--skip-download", "--output", "json"]
    ended = subprocess.run([*command, "--quiet"], capture_output=True, text=True)
    reports = json.loads(ended.stdout)
    for report in reports if isinstance(reports, list) else [reports]:
        name, counts = f"checkov: {report['check_type']}", report["summary"]
        result = f"{counts['passed']} passed, {counts['skipped']} skipped"
        yield Row(name, "policies", result, passed=counts["failed"] == 0)
        for found in report["results"]["failed_checks"]:
            what = f"{found['check_id']} {found['check_name']}: {found['resource']}"
            yield Row(name, "", what, passed=False)
    linted = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    result = linted.stdout.strip() + linted.stderr.strip()
    yield Row("hadolint", "Dockerfile", result, passed=linted.returncode == 0)


def process_rows(folder: Path) -> Iterator[Row]:
    """Starts the commands of overlays, calls their probes, and sends a Recommend."""
    for overlay, components in _STARTED:
        name = " + ".join((overlay, *components))
        workspace = Workspace(folder / overlay)
        objects = _objects(overlay, components, folder / f"{overlay}-rendered")
        rows: list[Row] = []

        def on_step(service: str, step: Step, name: str = name, rows: list[Row] = rows) -> None:
            rows.append(Row(f"{name}: {service}", step.what, f"{step.seconds:.1f} s", passed=True))

        try:
            train(objects, workspace, on_step)
            serve_and_call(objects, workspace, on_step)
        except ProcessError as error:
            rows.append(Row(name, "", str(error), passed=False))
        yield from rows


def _name(overlay: str, components: tuple[str, ...]) -> str:
    added = "all components" if components == COMPONENTS else " ".join(components)
    return f"{overlay} + {added}" if components else overlay


def _objects(overlay: str, components: tuple[str, ...], folder: Path) -> list[Object]:
    if overlay == "base":
        return render(KUSTOMIZE / "base")
    if components:
        return render_with(overlay, components, folder)
    return render(KUSTOMIZE / "overlays" / overlay)


@click.command()
@click.option("--processes/--no-processes", default=True, help="Start the rendered commands.")
@click.option("--checkov", default="", help="Path of checkov; not run by default.")
@click.option("--hadolint", default="", help="Path of hadolint, run together with checkov.")
def run(processes: bool, checkov: str, hadolint: str) -> None:
    """Checks the deployment; fails if a check fails."""
    begun, failed, count = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="marquee-deploy-check-") as made:
        folder = Path(made)
        parts = [static_rows(folder)]
        if os.environ.get("KUBECONFIG"):
            parts.append(cluster_rows(folder))
        if checkov:
            parts.append(policy_rows(folder, checkov, hadolint))
        if processes:
            parts.append(process_rows(folder))
        for row in itertools.chain.from_iterable(parts):
            click.echo(str(row))
            count += 1
            failed += not row.passed
    click.echo(f"{count} checks, {failed} failed, {time.monotonic() - begun:.0f} s")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    interrupt_on_sigterm()
    run()
