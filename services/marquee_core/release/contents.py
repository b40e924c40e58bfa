"""Reads the parts of a release that the servers need, and writes them for the trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marquee_core.arrays import Float32, load_array, save_array
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.errors import ArtifactError
from marquee_core.ratings import RatingsMatrix
from marquee_core.release.ensemble import Ensemble
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData

ENSEMBLE = "ensemble.json"
# What only the gateway reads.
FIRST_PAGES = "first_pages"
_DATA = "data"
_USERS = "data/users.npy"
_ITEM_VECTORS = "data/item_vectors.npy"
_BASELINE = "baseline"
_RECENT_COUNTS = "data/recent_counts.npy"


@dataclass(frozen=True)
class ReleaseFiles:
    """A release whose files for one server are at hand, verified.

    Attributes:
        manifest: The manifest.
        folder: Holds the files.
        data: What all models build on.
    """

    manifest: Manifest
    folder: Path
    data: ReleaseData

    def model_folder(self, name: str) -> Path:
        """Where a model's artifacts lie."""
        return model_folder(self.folder, name)


def model_folder(folder: Path, name: str) -> Path:
    """Where the artifacts of a model lie in a release's folder."""
    return folder / "models" / name


def save_data(
    folder: Path,
    users: Vocabulary,
    catalogue: Catalogue,
    data: ReleaseData,
    item_vectors: Float32,
    ensemble: Ensemble,
) -> None:
    """Writes everything but the models and the manifest into a release's folder.

    Args:
        folder: The release's folder.
        users: The users' ids.
        catalogue: The items' metadata.
        data: Training ratings and baseline.
        item_vectors: Unit vectors whose products are item similarities (float32, items × d).
        ensemble: The blends.
    """
    catalogue.save(folder / _DATA)
    users.save(folder / _USERS)
    data.matrix.save(folder / _DATA)
    data.baseline.save(folder / _BASELINE)
    if data.recency is not None:
        save_array(folder / _RECENT_COUNTS, data.recency.counts)
    save_array(folder / _ITEM_VECTORS, item_vectors)
    ensemble.save(folder / ENSEMBLE)


def open_release(
    store: ReleaseStore, release_id: str, backend: str, cache: Path
) -> tuple[ReleaseFiles, list[str]]:
    """Opens what a server needs of a release.

    Args:
        store: The store.
        release_id: The release.
        backend: Which server: `cf`, `inference` or `gateway`.
        cache: Where files of a remote store are kept.

    Returns:
        The files, and the names of the backend's models.

    Raises:
        ArtifactError: There is no such release, or a file is not what it should be.
    """
    manifest = store.manifest(release_id)
    names = [model.name for model in manifest.models if model.backend == backend]
    prefixes = (f"{_DATA}/", f"{_BASELINE}/", *(f"models/{name}/" for name in names))
    if backend == "gateway":
        prefixes += (f"{FIRST_PAGES}/",)
    folder = store.open(manifest, lambda path: path.startswith(prefixes) or path == ENSEMBLE, cache)
    matrix = RatingsMatrix.load(folder / _DATA, manifest.data.user_count, manifest.data.item_count)
    baseline = Baseline.load(folder / _BASELINE, manifest.data.item_count)
    return ReleaseFiles(manifest, folder, ReleaseData(matrix, baseline)), names


def open_recent_counts(files: ReleaseFiles) -> Float32:
    """How often items were rated of late, as `Recency.counts` (float32, items).

    Raises:
        ArtifactError: The file is not what it should be.
    """
    return load_array(files.folder / _RECENT_COUNTS, np.float32, (files.manifest.data.item_count,))


def open_names(files: ReleaseFiles) -> tuple[Vocabulary, Catalogue, Ensemble, Float32]:
    """Opens what only the gateway needs: users, items, the ensemble and the item vectors.

    Raises:
        ArtifactError: A file is not what it should be.
    """
    manifest = files.manifest
    try:
        users = Vocabulary.load(files.folder / _USERS)
        catalogue = Catalogue.load(files.folder / _DATA, manifest.data.genres)
    except ValueError as error:
        raise ArtifactError(str(error)) from error
    if (len(users), len(catalogue)) != (manifest.data.user_count, manifest.data.item_count):
        raise ArtifactError("the vocabularies are not of the manifest's size")
    vectors = load_array(files.folder / _ITEM_VECTORS, np.float32, (len(catalogue), None))
    return users, catalogue, Ensemble.load(files.folder / ENSEMBLE, manifest), vectors
