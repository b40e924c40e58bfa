"""Builds images and runs containers with buildah, without a daemon and in a private store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from locations import PROJECT

DEBIAN_BASE = "localhost/marquee-python:bookworm"
# Needed only to create a virtual environment; removed afterwards.
_ONLY_FOR_ENSUREPIP = (
    "python3-venv",
    "python3.11-venv",
    "python3-pip-whl",
    "python3-setuptools-whl",
)


class BuildError(RuntimeError):
    """An image cannot be built or started."""


@dataclass(frozen=True)
class Buildah:
    """Runs buildah.

    Attributes:
        folder: Folder for images and containers.
        volumes: Volumes for builds as FROM:TO, such as pip's configuration.
    """

    folder: Path
    volumes: Sequence[str] = field(default=())

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line of a buildah command."""
        roots = ["--root", str(self.folder / "store"), "--runroot", str(self.folder / "run")]
        return ["buildah", *roots, *arguments]

    def run(self, *arguments: str) -> str:
        """Runs a buildah command, and returns its output.

        Raises:
            BuildError: The command failed.
        """
        ended = subprocess.run(self.command(*arguments), capture_output=True, text=True)
        if ended.returncode:
            output = (ended.stdout + ended.stderr)[-2000:]
            raise BuildError(f"buildah {arguments[0]} exited with {ended.returncode}: {output}")
        return ended.stdout.strip()

    def unmount_all(self) -> None:
        """Unmounts all mounts that buildah left in the folder, so that it can be deleted."""
        points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for point in reversed(points):
            if Path(point).is_relative_to(self.folder.resolve()):
                subprocess.run(["umount", point], check=True)

    def pull(self, image: str) -> bool:
        """Pulls an image from its registry, and returns whether that succeeded."""
        # Docker accepts a tag together with a digest and ignores the tag; buildah rejects it.
        name, _, digest = image.partition("@")
        return not subprocess.run(
            self.command("pull", "--quiet", f"docker.io/library/{name.split(':')[0]}@{digest}"),
            capture_output=True,
        ).returncode

    def make_debian_base(self, mirror: str) -> None:
        """Makes a base image from Debian's packages, unless it exists.

        Python is in a virtual environment at /usr/local, where the Dockerfile expects it.

        Args:
            mirror: URL of a Debian mirror.

        Raises:
            BuildError: A step failed.
        """
        if DEBIAN_BASE in self.run("images", "--format", "{{.Name}}:{{.Tag}}").split():
            return
        root = self.folder / "debian"
        packages = "--include=python3,python3-venv,ca-certificates"
        if not root.exists():
            bootstrap = [
                "debootstrap",
                "--variant=minbase",
                packages,
                "bookworm",
                str(root),
                mirror,
            ]
            ended = subprocess.run(bootstrap, capture_output=True, text=True)
            if ended.returncode:
                raise BuildError(
                    f"debootstrap exited with {ended.returncode}: {ended.stdout[-2000:]}"
                )
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(root), "/")
        self.run_in(container, "python3", "-m", "venv", "/usr/local")
        self.run_in(container, "dpkg", "--purge", "--force-depends", *_ONLY_FOR_ENSUREPIP)
        path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.run("config", "--env", path, "--cmd", "python3", container)
        self.run("commit", "--quiet", container, DEBIAN_BASE)
        self.run("rm", container)

    def build(self, target: str, base: str | None) -> str:
        """Builds a target of the Dockerfile, and returns the name of the image.

        Args:
            target: The target.
            base: The base image; None for the one in the Dockerfile.

        Raises:
            BuildError: A step failed.
        """
        name = f"localhost/marquee-{target}:check"
        self.run(
            *("build", "--isolation", "chroot", "--layers", "--target", target, "--tag", name),
            *(f"--volume={volume}" for volume in self.volumes),
            *(() if base is None else ("--from", base)),
            *("--file", str(PROJECT / "deploy" / "images" / "Dockerfile"), str(PROJECT)),
        )
        return name

    def settings(self, image: str) -> dict[str, Any]:
        """Returns an image's configuration, with `User`, `Entrypoint` and so on."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--type", "image", image))
        settings: dict[str, Any] = found["OCIv1"]["config"]
        return settings

    def run_in(self, container: str, *arguments: str) -> str:
        """Runs a command in a container, and returns its output."""
        return self.run("run", "--isolation", "chroot", container, "--", *arguments)

    @contextmanager
    def mounted(self, image: str) -> Iterator[tuple[str, Path]]:
        """Creates a container from an image; yields it and the folder with its files."""
        container = self.run("from", "--pull-never", image)
        try:
            yield container, Path(self.run("mount", container))
        finally:
            self.run("rm", container)
