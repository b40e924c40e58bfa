"""Writes the files of a release (in the trainer) and reads them (in the servers)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marquee_core.arrays import Float32, load_array, save_array
from marquee_core.attributes import Attributes
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.errors import ArtifactError
from marquee_core.ratings import RatingsMatrix
from marquee_core.release.ensemble import BASELINE, POPULARITY, RECENT_POPULARITY, Ensemble
from marquee_core.release.manifest import EXPLICIT, DataEntry, Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.popularity import popularity_scores
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.service_names import GATEWAY

ENSEMBLE = "ensemble.json"
# The folder of the precomputed recommendations, read by the gateway only.
PRECOMPUTED = "precomputed"
# The folder of the evaluation data, read by the promotion gate only.
EVALUATION = "evaluation"
# The folder of the items' custom attributes, read by the gateway only; may be absent.
_ATTRIBUTES = "attributes"
_DATA = "data"
_USERS = "data/users.npy"
_ITEM_VECTORS = "data/item_vectors.npy"
_BASELINE = "baseline"
_RECENT_COUNTS = "data/recent_counts.npy"
# The tolerance for ratings, which are stored in single precision.
_SCALE_SLACK = 1e-4


@dataclass(frozen=True)
class ReleaseFiles:
    """The files of a release that one server needs, verified and in a local folder.

    Attributes:
        manifest: The manifest.
        folder: The folder of the files.
        data: The training ratings and the baseline, which are shared by all models.
    """

    manifest: Manifest
    folder: Path
    data: ReleaseData

    def model_folder(self, name: str) -> Path:
        """Returns the folder of a model's artifacts."""
        return model_folder(self.folder, name)


def load_users(store: ReleaseStore, manifest: Manifest, cache: Path) -> Vocabulary:
    """Loads only the ids of a release's users.

    Args:
        store: The store of the release.
        manifest: The release's manifest.
        cache: The folder for copies of release files.

    Raises:
        ArtifactError: The file is missing, damaged or does not match the manifest.
    """
    folder = store.open(manifest, lambda path: path == _USERS, cache)
    try:
        users = Vocabulary.load(folder / _USERS)
    except ValueError as error:
        raise ArtifactError(str(error)) from error
    if len(users) != manifest.data.user_count:
        raise ArtifactError("the number of users differs from the manifest")
    return users


def model_folder(folder: Path, name: str) -> Path:
    """Returns the folder of a model's artifacts within the folder of a release."""
    return folder / "models" / name


def save_data(
    folder: Path,
    users: Vocabulary,
    catalogue: Catalogue,
    data: ReleaseData,
    item_vectors: Float32,
    ensemble: Ensemble,
    attributes: Attributes | None = None,
) -> None:
    """Writes all files of a release except its models and its manifest.

    Args:
        folder: The release's folder.
        users: The ids of the users.
        catalogue: The ids and metadata of the items.
        data: The training ratings and the baseline.
        item_vectors: Unit vectors whose dot products are item similarities (float32, items × d).
        ensemble: The ensemble's weights.
        attributes: The custom attributes of the items; None if there are none.
    """
    if attributes is not None:
        attributes.save(folder / _ATTRIBUTES)
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
    """Verifies and opens the files of a release that one server needs.

    Args:
        store: The release store.
        release_id: The release.
        backend: The name of the service, from `marquee_core.service_names`.
        cache: The folder for copies of release files.

    Returns:
        The files, and the names of the models that this service scores.

    Raises:
        ArtifactError: The release does not exist, or a file is missing or damaged.
    """
    manifest = store.manifest(release_id)
    names = [model.name for model in manifest.models if model.backend == backend]
    prefixes = (f"{_DATA}/", f"{_BASELINE}/", *(f"models/{name}/" for name in names))
    if backend == GATEWAY:
        prefixes += (f"{PRECOMPUTED}/", f"{_ATTRIBUTES}/")
    folder = store.open(manifest, lambda path: path.startswith(prefixes) or path == ENSEMBLE, cache)
    return read_release(manifest, folder), names


def read_release(manifest: Manifest, folder: Path) -> ReleaseFiles:
    """Reads the data of a release that every server needs.

    Args:
        manifest: The release's manifest.
        folder: The folder of its files, whose digests have been verified.

    Raises:
        ArtifactError: A file is missing or damaged.
    """
    matrix = RatingsMatrix.load(folder / _DATA, manifest.data.user_count, manifest.data.item_count)
    baseline = Baseline.load(folder / _BASELINE, manifest.data.item_count)
    _check_ratings(matrix, baseline, manifest.data)
    limit = manifest.data.dislike_limit
    data = ReleaseData(matrix, baseline, dislike_limit=-math.inf if limit is None else limit)
    return ReleaseFiles(manifest, folder, data)


def _check_ratings(matrix: RatingsMatrix, baseline: Baseline, data: DataEntry) -> None:
    """Checks the ratings and the baseline against the manifest.

    Raises:
        ArtifactError: A rating or the mean is outside the rating scale, the number of ratings
            differs from the manifest, an item bias is too large, or the damping is negative.
    """
    if matrix.rating_count != data.rating_count:
        raise ArtifactError(
            f"there are {matrix.rating_count} ratings, but the manifest lists {data.rating_count}"
        )
    low, high = data.rating_min, data.rating_max
    slack = _SCALE_SLACK * (high - low)
    if matrix.rating_count and not (
        low - slack <= matrix.ratings.min() and matrix.ratings.max() <= high + slack
    ):
        raise ArtifactError(f"a rating is outside the scale of {low} to {high}")
    if data.feedback == EXPLICIT and matrix.rating_count:
        if not low - slack <= baseline.mean <= high + slack:
            raise ArtifactError(f"the mean of {baseline.mean} stars is outside the scale")
        if np.abs(baseline.item_bias).max(initial=0.0) > 2 * (high - low):
            raise ArtifactError("the bias of an item is larger than the scale allows")
    if baseline.user_damping < 0:
        raise ArtifactError("the damping of the baseline is negative")


def open_recent_counts(files: ReleaseFiles) -> Float32:
    """Reads the recency-weighted rating counts, `Recency.counts` (float32, items).

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    return load_array(files.folder / _RECENT_COUNTS, np.float32, (files.manifest.data.item_count,))


def gateway_scores(files: ReleaseFiles) -> dict[str, Float32]:
    """Returns the scores of the models that the gateway evaluates itself.

    They rank items alike for all subjects; the scores of the baseline exclude the user bias.

    Returns:
        The scores of all items, by the name of the model (float32, items).

    Raises:
        ArtifactError: A file is missing or damaged.
    """
    names = {model.name for model in files.manifest.models if model.backend == GATEWAY}
    baseline = files.data.baseline
    scores = {
        BASELINE: baseline.item_bias + np.float32(baseline.mean),
        POPULARITY: popularity_scores(files.data.matrix.item_counts),
    }
    if RECENT_POPULARITY in names:
        scores[RECENT_POPULARITY] = popularity_scores(open_recent_counts(files))
    return scores


def open_attributes(files: ReleaseFiles) -> Attributes:
    """Reads the custom attributes of the items, which are empty if the release has none.

    Raises:
        ArtifactError: A file is missing or damaged.
    """
    item_count = files.manifest.data.item_count
    if not any(path.startswith(f"{_ATTRIBUTES}/") for path in files.manifest.files):
        return Attributes.empty(item_count)
    return Attributes.load(files.folder / _ATTRIBUTES, item_count)


def open_gateway_files(files: ReleaseFiles) -> tuple[Vocabulary, Catalogue, Ensemble, Float32]:
    """Reads the data that only the gateway needs.

    Returns:
        The ids of the users, the catalogue, the ensemble, and the item vectors (float32,
        items × d).

    Raises:
        ArtifactError: A file is missing or damaged.
    """
    manifest = files.manifest
    try:
        users = Vocabulary.load(files.folder / _USERS)
        catalogue = Catalogue.load(files.folder / _DATA, manifest.data.genres)
    except ValueError as error:
        raise ArtifactError(str(error)) from error
    if (len(users), len(catalogue)) != (manifest.data.user_count, manifest.data.item_count):
        raise ArtifactError("the number of users or items differs from the manifest")
    vectors = load_array(files.folder / _ITEM_VECTORS, np.float32, (len(catalogue), None))
    return users, catalogue, Ensemble.load(files.folder / ENSEMBLE, manifest), vectors
