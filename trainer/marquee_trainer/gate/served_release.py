"""Loads all models of a release into one process, as the services load them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from marquee_core.arrays import Float32, Float64
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.errors import ArtifactError
from marquee_core.ratings import Profiles
from marquee_core.release.contents import open_gateway_files, open_recent_counts, open_release
from marquee_core.release.ensemble import (
    BASELINE,
    POPULARITY,
    RECENT_POPULARITY,
    BlendPair,
    Ensemble,
)
from marquee_core.release.manifest import IMPLICIT, Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.modelled_items import load_scorer
from marquee_core.scorers.popularity import popularity_scores
from marquee_core.scorers.scorer import LoadScorer, ReleaseData, Scorer
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from marquee_services.cf.models import CF_SCORERS
from marquee_trainer.models.baselines import BaselineScorer, PopularityScorer
from marquee_trainer.publishing.held_out import FOLDER, HeldOutEvaluation


@dataclass(frozen=True)
class ServedRelease:
    """A release with all its models.

    Attributes:
        manifest: Its manifest.
        users: The ids of its users.
        catalogue: Its items.
        data: Its ratings and the baseline.
        ensemble: Its blends.
        scorers: Its models by name, including those of the gateway.
        held_out: Its evaluation on held-out ratings; None if it does not hold one.
    """

    manifest: Manifest
    users: Vocabulary
    catalogue: Catalogue
    data: ReleaseData
    ensemble: Ensemble
    scorers: Mapping[str, Scorer]
    held_out: HeldOutEvaluation | None

    @classmethod
    def load(cls, store: ReleaseStore, release_id: str, cache: Path) -> ServedRelease:
        """Verifies and loads a release.

        Args:
            store: The store.
            release_id: The release.
            cache: A folder for copies of its files.

        Raises:
            ArtifactError: The release does not exist, a file is missing or damaged, or one of its
                models is unknown to all services.
        """
        files, names = open_release(store, release_id, GATEWAY, cache)
        manifest, data = files.manifest, files.data
        users, catalogue, ensemble, _ = open_gateway_files(files)
        scorers: dict[str, Scorer] = {}
        for name in names:
            scorers[name] = _own_scorer(name, data, lambda: open_recent_counts(files))
        for backend in sorted({m.backend for m in manifest.models} - {GATEWAY}):
            loaders = _loaders(backend)
            files, names = open_release(store, release_id, backend, cache)
            for name in names:
                if name not in loaders:
                    raise ArtifactError(f"no service knows the model {name!r}")
                scorers[name] = load_scorer(loaders[name], files.model_folder(name), data)
        held_out = None
        if any(path.startswith(f"{FOLDER}/") for path in manifest.files):
            folder = store.open(manifest, lambda path: path.startswith(f"{FOLDER}/"), cache)
            held_out = HeldOutEvaluation.load(folder)
        return cls(manifest, users, catalogue, data, ensemble, scorers, held_out)

    @cached_property
    def backends(self) -> frozenset[str]:
        """The backends of the full ensemble."""
        return frozenset(m.backend for m in self.manifest.models) - {GATEWAY}

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating."""
        return self.manifest.data.rating_min, self.manifest.data.rating_max

    @property
    def predicts_stars(self) -> bool:
        """Whether it predicts ratings."""
        return self.manifest.data.feedback != IMPLICIT

    @property
    def relevant_stars(self) -> float:
        """The lowest rating that made an item relevant in its evaluation."""
        training = self.manifest.evaluation.get("training", {})
        return float(training.get("relevant_stars", self.scale[0] + 0.75 * np.ptp(self.scale)))

    def scores(self, profiles: Profiles) -> dict[str, Float32]:
        """Scores all items with each model that any blend uses (float32, B × items each)."""
        pairs = self.ensemble.by_backends.values()
        names = dict.fromkeys(name for pair in pairs for name in pair.models())
        return {name: self.scorers[name].score(profiles) for name in names}

    def ranking(
        self, scores: Mapping[str, Float32], backends: frozenset[str] | None = None
    ) -> Float64:
        """Blends the scores for ranking (float64, B × items).

        Args:
            scores: The scores of the models, from `scores`.
            backends: The backends that are available; None for all.
        """
        return self._blends(backends).ranking.apply(scores)

    def stars(
        self, scores: Mapping[str, Float32], backends: frozenset[str] | None = None
    ) -> Float64:
        """Predicts stars, not clipped (float64, B × items); for the arguments see `ranking`."""
        return self._blends(backends).rating.apply(scores)

    def _blends(self, backends: frozenset[str] | None) -> BlendPair:
        return self.ensemble.blends(sorted(self.backends if backends is None else backends))


def _own_scorer(name: str, data: ReleaseData, recent_counts: Callable[[], Float32]) -> Scorer:
    """Loads a model that the gateway scores itself."""
    if name == BASELINE:
        return BaselineScorer(data.baseline)
    if name == POPULARITY:
        return PopularityScorer(popularity_scores(data.matrix.item_counts))
    if name == RECENT_POPULARITY:
        return PopularityScorer(popularity_scores(recent_counts()))
    raise ArtifactError(f"the gateway does not know the model {name!r}")


def _loaders(backend: str) -> Mapping[str, LoadScorer]:
    """Returns the functions that load a backend's models."""
    if backend == CF:
        return CF_SCORERS
    if backend == INFERENCE:
        # Imports TensorFlow, which takes seconds.
        from marquee_services.inference.models import INFERENCE_SCORERS

        return INFERENCE_SCORERS
    raise ArtifactError(f"no service is called {backend!r}")
