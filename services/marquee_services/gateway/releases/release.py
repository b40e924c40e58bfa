"""The parts of a release that the gateway loads."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from cachetools import LRUCache

from marquee_core.arrays import Bool, Float32, Float64, Int32, Int64
from marquee_core.attributes import Attributes
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.release.contents import (
    ReleaseFiles,
    gateway_scores,
    open_attributes,
    open_gateway_files,
    open_release,
)
from marquee_core.release.ensemble import (
    BASELINE,
    GATEWAY_MODELS,
    POPULARITY,
    RECENT_POPULARITY,
    Blend,
    BlendPair,
    Ensemble,
)
from marquee_core.release.manifest import IMPLICIT, Manifest, ModelEntry
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.service_names import GATEWAY
from marquee_services.errors import ModelNotFound
from marquee_services.gateway.allowed_stars import AllowedStars
from marquee_services.gateway.releases.precomputed import PrecomputedPages
from marquee_services.gateway.releases.titles import TitleIndex
from marquee_services.scoring.plan import RankingPlan

_T = TypeVar("_T")
# The most cached results for blends; requests for single models create additional blends.
_MAX_CACHED = 64
# Memory for the masks of filters, with one byte for each item: this many bytes, or this many masks
# if those need more.
_FILTER_BYTES, _FILTERS = 1 << 20, 16


@dataclass(frozen=True)
class GatewayRelease:
    """A release in the gateway's memory.

    Attributes:
        manifest: The release's manifest.
        users: The ids of the known users.
        catalogue: The items' ids and metadata.
        data: The training ratings and the baseline.
        ensemble: The blends for each set of backends.
        item_vectors: Unit vectors whose products are item similarities (float32, items × d).
        popularity: The scores of the popularity model (float32, items).
        recent_popularity: The scores of the popularity model that gives recent ratings more weight
            (float32, items); None if the release has no such model.
        rating_counts: The number of training ratings of each item (int64, items).
        precomputed_pages: The precomputed first pages of known users.
        attributes: The items' free attributes.
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
    precomputed_pages: PrecomputedPages
    attributes: Attributes

    @cached_property
    def release_id(self) -> str:
        """The release's id."""
        return self.manifest.release_id

    @cached_property
    def predicts_stars(self) -> bool:
        """Whether the release predicts ratings; False if it was trained on implicit feedback."""
        return self.manifest.data.feedback != IMPLICIT

    @cached_property
    def item_count(self) -> int:
        """The number of items in the catalogue."""
        return len(self.catalogue)

    @cached_property
    def models(self) -> dict[str, ModelEntry]:
        """The manifest's entries of all models, by name."""
        return {model.name: model for model in self.manifest.models}

    def model(self, name: str) -> ModelEntry:
        """Returns the manifest's entry of a model.

        Raises:
            ModelNotFound: The release has no model with that name.
        """
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotFound(name) from None

    @cached_property
    def backends(self) -> frozenset[str]:
        """The names of the backends that the full ensemble needs."""
        return frozenset(m.backend for m in self.manifest.models if m.backend != GATEWAY)

    def weights_of(self, blend: Blend, backend: str) -> tuple[tuple[str, float], ...]:
        """Returns the models of a blend that a backend scores, with their weights."""
        return tuple(
            (name, weight)
            for name, weight in blend.weights.items()
            if self.models[name].backend == backend
        )

    def plan(
        self,
        blends: BlendPair,
        backend: str,
        best_count: int,
        stars_count: int,
        top_count: int = 0,
        retrieve_count: int = 0,
    ) -> RankingPlan:
        """Returns the plan by which a backend ranks.

        Args:
            blends: The blends of the answer.
            backend: The backend.
            best_count: The maximum number of each model's own best items.
            stars_count: The number of best items that the backend's rating predictors also score.
            top_count: The number of best items to return instead of all scores; 0 for all.
            retrieve_count: The number of candidates that each model retrieves; 0 to rank every
                item.

        Returns:
            The plan, without weights if none of the backend's models is in the ranking blend.
        """

        def compute() -> RankingPlan:
            stars = self.weights_of(blends.rating, backend) if stars_count else ()
            return RankingPlan(
                self.weights_of(blends.ranking, backend),
                best_count,
                self.weights_of(blends.ranking, GATEWAY),
                tuple(name for name, _ in stars),
                stars_count if stars else 0,
                top_count,
                retrieve_count,
            )

        what = backend, best_count, stars_count, top_count, retrieve_count
        return self.cached((blends.rating, blends.ranking), what, compute)

    @cached_property
    def own_scores(self) -> Mapping[str, Float32]:
        """The scores of all items by each of the gateway's own models (float32, items).

        Those of the baseline do not include the subject's bias.
        """
        baseline = self.data.baseline
        scores = {
            BASELINE: baseline.item_bias + np.float32(baseline.mean),
            POPULARITY: self.popularity,
        }
        if self.recent_popularity is not None:
            scores[RECENT_POPULARITY] = self.recent_popularity
        return scores

    def shared_ranking(self, blend: Blend) -> Float64:
        """Returns the part of the ranking scores that all subjects share.

        It consists of the intercept and the gateway's own models.

        Args:
            blend: The ranking blend.

        Returns:
            The scores (float64, items; read-only).
        """

        def compute() -> Float64:
            total = np.full(self.item_count, blend.intercept)
            for name, weight in blend.weights.items():
                if name in self.own_scores:
                    total += weight * self.own_scores[name]
            total.flags.writeable = False
            return total

        return self.cached((blend,), "shared ranking", compute)

    def cached(self, blends: tuple[Blend, ...], what: Hashable, compute: Callable[[], _T]) -> _T:
        """Returns a result that depends on blends of this release, computed once and then cached.

        Args:
            blends: The blends, which are compared by identity.
            what: Identifies the result among those for the same blends.
            compute: Computes the result.
        """
        key = *map(id, blends), what
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            # The entry keeps the blends alive, so that no other objects get their identities.
            found = self._cache[key] = blends, compute()
        result: _T = found[1]
        return result

    @cached_property
    def _cache(self) -> dict[Hashable, tuple[tuple[Blend, ...], Any]]:
        """Blends, and the cached results for them."""
        return {}

    @cached_property
    def filter_masks(self) -> LRUCache[Hashable, Bool]:
        """The items that filters by genres and years allow, by filter (bool, items)."""
        size = max(_FILTER_BYTES, _FILTERS * self.item_count)
        return LRUCache(size, getsizeof=lambda mask: mask.nbytes)

    @cached_property
    def metadata_bytes(self) -> dict[int, bytes]:
        """The serialised metadata of recommended items, by the item's index, as far as known."""
        return {}

    @cached_property
    def allowed_stars(self) -> AllowedStars:
        """The ratings that requests and events may contain."""
        data = self.manifest.data
        return AllowedStars(data.rating_min, data.rating_max if self.predicts_stars else math.inf)

    @cached_property
    def stars_models(self) -> frozenset[str]:
        """The names of the rating predictors."""
        return frozenset(m.name for m in self.manifest.models if m.output is Output.STARS)

    @cached_property
    def orders(self) -> Mapping[str, Int32]:
        """The items ordered by each of the gateway's own models, the best first (int32, items).

        The order is the same for all subjects, because a subject's bias shifts all items equally.
        Items with equal scores are ordered by index.
        """
        return {
            name: np.argsort(-values, kind="stable").astype(np.int32)
            for name, values in self.own_scores.items()
        }

    @cached_property
    def mean_stars(self) -> Float32:
        """The mean training rating of each item in stars; NaN without ratings (float32, items)."""
        matrix = self.data.matrix
        totals = np.bincount(matrix.items, matrix.ratings, minlength=self.item_count)
        with np.errstate(invalid="ignore"):
            return (totals / self.rating_counts).astype(np.float32)

    @cached_property
    def unrated_items(self) -> Int32:
        """The items without training ratings (int32, n)."""
        return np.flatnonzero(self.rating_counts == 0).astype(np.int32)

    @cached_property
    def titles(self) -> TitleIndex:
        """The index for title searches."""
        return TitleIndex(self.catalogue.titles(), self.rating_counts)


def load_gateway_release(
    store: ReleaseStore, release_id: str, cache: Path, was_tried: bool = False
) -> GatewayRelease:
    """Downloads and verifies a release, and loads the gateway's part of it.

    Args:
        store: The store that holds the release.
        release_id: The id of the release.
        cache: The folder of the copies of release files.
        was_tried: Whether the release has passed its trial, which loads it in another process.

    Raises:
        ArtifactError: A file is missing or damaged, or the release assigns an unknown model to the
            gateway.
    """
    files, names = open_release(store, release_id, GATEWAY, cache)
    return gateway_release(files, names, was_tried)


def gateway_release(
    files: ReleaseFiles, names: Sequence[str], was_tried: bool = False
) -> GatewayRelease:
    """Loads the gateway's part of a release from its files.

    Args:
        files: The files.
        names: The models that the release assigns to the gateway.
        was_tried: Whether the release has passed its trial. The precomputed pages are then not
            checked again: that takes a tenth of a millisecond for each user, and delays calls.

    Raises:
        ArtifactError: A file is missing or damaged, or the release assigns an unknown model to the
            gateway.
    """
    optional = {RECENT_POPULARITY}
    if files.manifest.data.feedback == IMPLICIT:
        optional.add(BASELINE)
    if not set(GATEWAY_MODELS) - optional <= set(names) <= set(GATEWAY_MODELS):
        raise ArtifactError(
            f"the release assigns {', '.join(names) or 'no models'} to the gateway, which scores "
            f"{', '.join(GATEWAY_MODELS)}; only {', '.join(sorted(optional))} may be missing"
        )
    users, catalogue, ensemble, item_vectors = open_gateway_files(files)
    counts = files.data.matrix.item_counts
    own = gateway_scores(files)
    pages = PrecomputedPages.load(files.folder, files.manifest)
    if not was_tried:
        pages.check(catalogue.items, files.data.matrix)
    release = GatewayRelease(
        files.manifest,
        users,
        catalogue,
        files.data,
        ensemble,
        item_vectors,
        own[POPULARITY],
        own.get(RECENT_POPULARITY),
        counts,
        pages,
        open_attributes(files),
    )
    # Compute the cached properties now, to save the first requests the time.
    _ = release.titles, release.mean_stars, release.backends, release.models
    _ = release.stars_models, release.orders, release.unrated_items, release.filter_masks
    _ = users.index_by_id, catalogue.items.index_by_id
    return release
