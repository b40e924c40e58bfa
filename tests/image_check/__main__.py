"""Builds all images, inspects their contents, and runs them together: `make image-check`.

Needs root and buildah, and debootstrap if the registry of the base image cannot be reached.
Containers run in a chroot as the image's user, and share this machine's network.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import click

from deploy_check.images import TARGETS, images
from deploy_check.objects import Object, Workload, variables, workloads
from deploy_check.processes import ProcessError, Server, Workspace, await_probe, container_of
from deploy_check.render import KUSTOMIZE, render
from deploy_check.settings import command_line
from deploy_check.system import (
    QUICK,
    SMALL_SAMPLE,
    any_user,
    await_full_answer,
    check_metrics,
    gateway_address,
)
from image_check.buildah import DEBIAN_BASE, Buildah, BuildError
from image_check.contents import build_tools, megabytes, unused_folders
from marquee import Client
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from termination import interrupt_on_sigterm

_USER = 10001
_CALL_TIMEOUT_S = 60.0
_STOP_S = 30.0
_SERVERS = (CF, INFERENCE, GATEWAY)


def base_of(buildah: Buildah, mirror: str) -> str | None:
    """Returns the base image: None for the one in the Dockerfile, else one with Debian's Python."""
    begun, pinned = time.monotonic(), images()["python"].base
    if buildah.pull(pinned):
        _row("base", "the pinned image", pinned)
        return None
    buildah.make_debian_base(mirror)
    what = "Debian's Python, because the registry of the pinned image cannot be reached"
    _row("base", what, f"{time.monotonic() - begun:.0f} s")
    return DEBIAN_BASE


def check_image(buildah: Buildah, target: str, base: str | None) -> Iterator[str]:
    """Builds an image, and yields the problems found in it."""
    begun = time.monotonic()
    image = buildah.build(target, base)
    seconds = time.monotonic() - begun
    with buildah.mounted(image) as (_, root):
        whole, own = megabytes(root), megabytes(root / "opt" / "marquee")
        found = sorted((*build_tools(root), *unused_folders(root)))
    _row(target, "builds", f"{seconds:.0f} s; {whole:,.0f} MB, {own:,.0f} of them packages")
    if found:
        yield f"holds {', '.join(found)}"
    settings, entry_point = buildah.settings(image), images()[target].entry_point
    if settings.get("User") != str(_USER):
        yield f"runs as {settings.get('User')}"
    if settings.get("Entrypoint") != entry_point:
        yield f"starts {settings.get('Entrypoint')}"


def run_together(buildah: Buildah, folder: Path) -> None:
    """Trains with the trainer's image, serves with the others as in `local`, and makes a call.

    Raises:
        ProcessError: A container failed, or the answer is degraded.
    """
    objects, workspace = render(KUSTOMIZE / "overlays" / "local"), Workspace(folder)
    by_name = {w.name.removeprefix("marquee-"): w for w in workloads(objects)}
    (job,) = (w for w in by_name.values() if w.is_job)
    with ExitStack() as stack:
        containers = {t: stack.enter_context(buildah.mounted(_name(t)))[0] for t in TARGETS}
        begun = time.monotonic()
        training = _command(
            buildah, workspace, "trainer", containers, job, {**QUICK, **SMALL_SAMPLE}
        )
        ended = subprocess.run(training, capture_output=True, text=True)
        if ended.returncode:
            raise ProcessError(
                f"the trainer exited with {ended.returncode}: {ended.stderr[-2000:]}"
            )
        _row("trainer", "trains, publishes and promotes", f"{time.monotonic() - begun:.1f} s")
        servers = []
        for name in _SERVERS:
            command = _command(buildah, workspace, name, containers, by_name[name], {})
            servers.append(Server(name, command, dict(os.environ), folder / f"{name}.log"))
            stack.callback(_stop, servers[-1])
        for server in servers:
            probed = container_of(by_name[server.name])
            step = await_probe(workspace, server, probed, "readinessProbe")
            _row(server.name, step.what, f"{step.seconds:.1f} s")
        begun = time.monotonic()
        with Client(gateway_address(objects, workspace), timeout=_CALL_TIMEOUT_S) as client:
            await_full_answer(client, any_user(workspace))
        _row(GATEWAY, "answers Recommend with both backends", f"{time.monotonic() - begun:.1f} s")
        for server in servers:
            check_metrics(workspace, server.name)
            _row(server.name, "exposes its metrics", "")


def _name(target: str) -> str:
    return f"localhost/marquee-{target}:check"


def _command(
    buildah: Buildah,
    workspace: Workspace,
    service: str,
    containers: Mapping[str, str],
    workload: Workload,
    extra: Mapping[str, str],
) -> list[str]:
    """Returns the command that runs a workload's container with local volumes and free ports."""
    manifest: Object = container_of(workload)
    given = {
        name: value if value.startswith("/") else workspace.localise(service, name, value)
        for name, value in variables(manifest).items()
    }
    options = [f"--env={name}={value}" for name, value in {**given, **extra}.items()]
    for mount in manifest["volumeMounts"]:
        own = "" if mount["mountPath"] == "/store" else f"/{service}"
        folder = workspace.volume(f"{own}{mount['mountPath']}")
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, _USER, _USER)
        mode = "ro" if mount.get("readOnly") else "rw"
        options.append(f"--volume={folder}:{mount['mountPath']}:{mode}")
    line = command_line(manifest, images()[service])
    return buildah.command(
        "run", "--isolation", "chroot", *options, containers[service], "--", *line
    )


def _stop(server: Server) -> None:
    """Stops a container; its processes end together with buildah."""
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()


def _row(what: str, check: str, result: str, passed: bool = True) -> None:
    click.echo(f"{'ok    ' if passed else 'FAILED'} {what:<10} {check:<40} {result}")


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder for layers, kept for the next run."
)
@click.option("--volume", "volumes", multiple=True, help="Volume for builds, FROM:TO[:ro].")
@click.option("--mirror", default="http://deb.debian.org/debian", show_default=True)
@click.option(
    "--target", "targets", multiple=True, default=TARGETS, help="Build only this image; repeatable."
)
def run(
    folder: Path | None, volumes: tuple[str, ...], mirror: str, targets: tuple[str, ...]
) -> None:
    """Builds, inspects and runs the images; fails if a check fails."""
    failed = 0
    with ExitStack() as stack:
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="marquee-images-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
        buildah = Buildah(folder, volumes)
        stack.callback(buildah.unmount_all)
        try:
            base = base_of(buildah, mirror)
            for target in targets:
                for problem in check_image(buildah, target, base):
                    failed += 1
                    _row(target, "", problem, passed=False)
            if set(targets) == set(TARGETS):
                run_together(buildah, Path(tempfile.mkdtemp(dir=folder)))
        except (BuildError, ProcessError) as error:
            failed += 1
            _row("", "", str(error), passed=False)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    interrupt_on_sigterm()
    run()
