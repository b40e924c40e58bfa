"""A release as the gateway holds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from marquee_core.arrays import Float32, Int64
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.errors import ArtifactError
from marquee_core.release.contents import open_names, open_recent_counts, open_release
from marquee_core.release.ensemble import (
    BASELINE,
    GATEWAY_MODELS,
    POPULARITY,
    RECENT_POPULARITY,
    Ensemble,
)
from marquee_core.release.manifest import Manifest, ModelEntry
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.popularity import popularity_scores
from marquee_core.scorers.scorer import ReleaseData
from marquee_services.errors import ModelNotFound
from marquee_services.gateway.releases.precomputed import FirstPages
from marquee_services.gateway.releases.titles import TitleIndex


@dataclass(frozen=True)
class GatewayRelease:
    """What the gateway needs of a release.

    Attributes:
        manifest: The manifest.
        users: The users' ids.
        catalogue: The items' metadata.
        data: Training ratings and baseline.
        ensemble: The blends.
        item_vectors: Unit vectors whose products are item similarities (float32, items × d).
        popularity: The popularity model's scores (float32, items).
        recent_popularity: The same of late; None where the release has no such model.
        rating_counts: Training ratings of each item (int64, items).
        first_pages: The first pages of known users.
    """

    manifest: Manifest
    users: Vocabulary
    catalogue: Catalogue
    data: ReleaseData
    ensemble: Ensemble
    item_vectors: Float32
    popularity: Float32
    recent_popularity: Float32 | None
    rating_counts: Int64
    first_pages: FirstPages

    @property
    def release_id(self) -> str:
        """The release's id."""
        return self.manifest.release_id

    @property
    def item_count(self) -> int:
        """How many items the release has."""
        return len(self.catalogue)

    @cached_property
    def models(self) -> dict[str, ModelEntry]:
        """The models by name."""
        return {model.name: model for model in self.manifest.models}

    def model(self, name: str) -> ModelEntry:
        """A model by name.

        Raises:
            ModelNotFound: The release has no such model.
        """
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotFound(name) from None

    @cached_property
    def backends(self) -> frozenset[str]:
        """The backends that the full ensemble needs."""
        return frozenset(m.backend for m in self.manifest.models if m.backend != "gateway")

    @cached_property
    def mean_stars(self) -> Float32:
        """The mean rating of each item in stars, NaN without ratings (float32, items)."""
        matrix = self.data.matrix
        totals = np.bincount(matrix.items, matrix.ratings, minlength=self.item_count)
        with np.errstate(invalid="ignore"):
            return (totals / self.rating_counts).astype(np.float32)

    @cached_property
    def titles(self) -> TitleIndex:
        """The index for searches by title."""
        return TitleIndex([self.catalogue.title(i) for i in range(self.item_count)])


def load_gateway_release(store: ReleaseStore, release_id: str, cache: Path) -> GatewayRelease:
    """Opens, verifies and warms a release for the gateway.

    Raises:
        ArtifactError: A file is not what it should be.
    """
    files, names = open_release(store, release_id, "gateway", cache)
    if not {BASELINE, POPULARITY} <= set(names) <= set(GATEWAY_MODELS):
        raise ArtifactError(f"the gateway scores {GATEWAY_MODELS}, the release has {names}")
    users, catalogue, ensemble, item_vectors = open_names(files)
    counts = files.data.matrix.item_counts
    has_recent = RECENT_POPULARITY in names
    release = GatewayRelease(
        files.manifest,
        users,
        catalogue,
        files.data,
        ensemble,
        item_vectors,
        popularity_scores(counts),
        popularity_scores(open_recent_counts(files)) if has_recent else None,
        counts,
        FirstPages.load(files.folder, files.manifest, catalogue.items),
    )
    # Computed once here rather than within the first requests.
    _ = release.titles, release.mean_stars, release.backends, release.models
    return release
