"""Makes a release of what was trained, and stores it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.release.contents import model_folder, save_data
from marquee_core.release.ensemble import BASELINE, POPULARITY, RECENT_POPULARITY, Ensemble
from marquee_core.release.manifest import (
    EXACT,
    DataEntry,
    Manifest,
    ModelEntry,
    digest_of,
    hash_folder,
    new_release_id,
)
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.metrics.item_vectors import item_vectors
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.models.model import Model
from marquee_trainer.publishing.config import PrecomputeConfig
from marquee_trainer.publishing.precomputed import precompute_pages
from marquee_trainer.publishing.retrieval import RetrievalConfig, choose_retrieval

_LIBRARIES = ("tensorflow-cpu", "keras", "numpy", "scipy", "marquee")
_VERSION_DIGITS = 12


def publish_release(
    store: ReleaseStore,
    source: DataEntry,
    users: Vocabulary,
    catalogue: Catalogue,
    data: ReleaseData,
    models: Sequence[Model],
    ensemble: Ensemble,
    metrics: Mapping[str, Mapping[str, float]],
    evaluation: Mapping[str, Any],
    retrieval: RetrievalConfig | None = None,
    seed: int = 0,
    first_pages: PrecomputeConfig | None = None,
) -> Manifest:
    """Writes a release into a store; it is not promoted.

    Args:
        store: The store.
        source: The ratings that the release was trained on.
        users: The users' ids.
        catalogue: The items' metadata.
        data: Training ratings and baseline.
        models: Fitted models.
        ensemble: The blends.
        metrics: By model, its metrics; of `baseline` and `popularity` as well.
        evaluation: The protocol and the ensemble's metrics.
        retrieval: How items are retrieved from a large catalogue; None for the default.
        seed: Of what is random in that.
        first_pages: Whose first pages it holds; None for the default.

    Returns:
        The release's manifest.

    Raises:
        ArrayError: A model learned values that are not finite.
        OSError: The store cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="marquee-release-") as name:
        folder = Path(name)
        save_data(folder, users, catalogue, data, item_vectors(data), ensemble)
        retrievals = {}
        for model in models:
            model.save(model_folder(folder, model.name))
            chosen = choose_retrieval(model.scorer, data, retrieval or RetrievalConfig(), seed)
            if chosen.index is not None:
                chosen.index.save(model_folder(folder, model.name))
            retrievals[model.name] = chosen.entry
        every = (*models, *fitted_baselines(data))
        scale = source.rating_min, source.rating_max
        whose = first_pages or PrecomputeConfig()
        pages = precompute_pages(data, catalogue.items, every, ensemble, scale, whose)
        pages.save(folder)
        files = hash_folder(folder)
        now = datetime.now(UTC)
        entries = [
            ModelEntry(
                name=model.name,
                backend=model.backend,
                output=model.scorer.output,
                version=digest_of(files, _artifacts(model.name))[:_VERSION_DIGITS],
                parameters=model.parameters,
                metrics=metrics.get(model.name, {}),
                retrieval=retrievals.get(model.name, {"kind": EXACT}),
            )
            for model in every
        ]
        manifest = Manifest(
            release_id=new_release_id(files, now),
            published_at=now.isoformat(),
            data=source,
            models=tuple(entries),
            evaluation=evaluation,
            library_versions={name: version(name) for name in _LIBRARIES},
            files=files,
        )
        store.publish(folder, manifest)
    return manifest


def _artifacts(name: str) -> str:
    """Where the artifacts of a model lie: those of the floor come with the release's data."""
    floor = {BASELINE: "baseline/", POPULARITY: "data/", RECENT_POPULARITY: "data/"}
    return floor.get(name, f"models/{name}/")
