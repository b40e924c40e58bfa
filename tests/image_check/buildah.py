"""Builds images and runs containers with buildah, without a daemon and in a store of its own."""

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
# What the Dockerfile expects of Docker's Python image: Python and pip below /usr/local.
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
        folder: Holds images and containers.
        volumes: What is mounted while images are built, as FROM:TO; pip's settings, for example.
    """

    folder: Path
    volumes: Sequence[str] = field(default=())

    def command(self, *arguments: str) -> list[str]:
        """A command line."""
        roots = ["--root", str(self.folder / "store"), "--runroot", str(self.folder / "run")]
        return ["buildah", *roots, *arguments]

    def run(self, *arguments: str) -> str:
        """Runs a command, and returns what it prints.

        Raises:
            BuildError: It failed.
        """
        ended = subprocess.run(self.command(*arguments), capture_output=True, text=True)
        if ended.returncode:
            what = (ended.stdout + ended.stderr)[-2000:]
            raise BuildError(f"buildah {arguments[0]} ended with {ended.returncode}: {what}")
        return ended.stdout.strip()

    def unmount_all(self) -> None:
        """Unmounts what buildah has left mounted in the folder, so that it can be deleted."""
        points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for point in reversed(points):
            if Path(point).is_relative_to(self.folder.resolve()):
                subprocess.run(["umount", point], check=True)

    def pull(self, image: str) -> bool:
        """Whether an image can be had from its registry."""
        # Docker accepts a tag beside a digest, which decides alone; buildah does not.
        name, _, digest = image.partition("@")
        return not subprocess.run(
            self.command("pull", "--quiet", f"docker.io/library/{name.split(':')[0]}@{digest}"),
            capture_output=True,
        ).returncode

    def make_debian_base(self, mirror: str) -> None:
        """Makes a base image from Debian's packages, unless there is one.

        Python is in a virtual environment, where the Dockerfile expects it.

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
                    f"debootstrap ended with {ended.returncode}: {ended.stdout[-2000:]}"
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
            base: The image to start from; None for that of the Dockerfile.

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
        """What an image says about its process: `User`, `Entrypoint` and so on."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--type", "image", image))
        settings: dict[str, Any] = found["OCIv1"]["config"]
        return settings

    def run_in(self, container: str, *arguments: str) -> str:
        """Runs a command in a container, and returns what it prints."""
        return self.run("run", "--isolation", "chroot", container, "--", *arguments)

    @contextmanager
    def mounted(self, image: str) -> Iterator[tuple[str, Path]]:
        """A container of an image, and the folder that has its files."""
        container = self.run("from", "--pull-never", image)
        try:
            yield container, Path(self.run("mount", container))
        finally:
            self.run("rm", container)
