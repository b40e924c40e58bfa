"""A release with the engines of its backends, loaded into this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from marquee_core.release.contents import read_release
from marquee_core.release.manifest import Manifest
from marquee_core.service_names import GATEWAY
from marquee_services.gateway.releases.release import (
    GatewayRelease,
    gateway_release,
    load_gateway_release,
)
from marquee_services.lists.request import ListRequest, Loaders
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.loading import engine_of, load_engine
from marquee_services.server.settings import open_store


@dataclass(frozen=True)
class LoadedRelease:
    """A release in memory, for computing lists.

    Attributes:
        gateway: The gateway's part of the release.
        engines: The models of each backend of the release, by the backend's name.
    """

    gateway: GatewayRelease
    engines: Mapping[str, Engine]


def load_release(request: ListRequest) -> LoadedRelease:
    """Verifies and loads a release.

    Raises:
        ArtifactError: A file is missing or damaged, or a model is unknown.
        OSError: The store cannot be read.
    """
    store = open_store(request.store, request.trusted_keys)
    cache = Path(request.cache_dir).expanduser()
    gateway = load_gateway_release(store, request.release_id, cache)
    loaders = request.loaders()
    return LoadedRelease(
        gateway,
        {
            name: load_engine(store, request.release_id, name, loaders[name], cache)
            for name in sorted(gateway.backends)
        },
    )


def release_in_folder(manifest: Manifest, folder: Path, loaders: Loaders) -> LoadedRelease:
    """Loads a release from a folder of files that this process has just written itself.

    Only models that the full ensemble uses are loaded.

    Args:
        manifest: The manifest.
        folder: The folder of the files, which are not verified again.
        loaders: The loaders of the models.

    Raises:
        ArtifactError: A file is missing or damaged, or a model is unknown.
    """
    files = read_release(manifest, folder)
    names: dict[str, list[str]] = {}
    for model in manifest.models:
        names.setdefault(model.backend, []).append(model.name)
    gateway = gateway_release(files, names[GATEWAY])
    used = gateway.ensemble.by_backends[gateway.backends].models()
    return LoadedRelease(
        gateway,
        {
            backend: engine_of(files, [n for n in names[backend] if n in used], loaders[backend])
            for backend in sorted(gateway.backends)
        },
    )
