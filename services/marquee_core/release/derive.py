"""Derives a release with different ranking weights from a published one.

It is used to promote an experiment's arm that has its own ranking weights.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marquee_core.errors import ArtifactError
from marquee_core.release.contents import ENSEMBLE, EVALUATION, PRECOMPUTED
from marquee_core.release.ensemble import Blend, BlendPair, Ensemble
from marquee_core.release.manifest import Manifest, hash_file, new_release_id
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY

DERIVED = "derived_from"
"""The field of `Manifest.evaluation` that describes what a release was derived from."""

# Prefixes of the metrics of predicted stars, which do not depend on the ranking weights.
_STARS_METRICS = ("test_", "train_")


def with_ranking(
    ensemble: Ensemble, backend_of: Mapping[str, str], weights: Mapping[str, float]
) -> Ensemble:
    """Returns the ensemble with different ranking weights; predicted stars do not change.

    If a backend is unavailable, the remaining models rank with the given weights. If none of the
    weighted models remains, the release's own blend for the remaining backends is used.

    Args:
        ensemble: The blends of a release.
        backend_of: The service of each of its models.
        weights: The weight of each ranking model.

    Raises:
        KeyError: A model has no service.
    """
    pairs = {}
    for backends, pair in ensemble.by_backends.items():
        left = {n: w for n, w in weights.items() if w and backend_of[n] in backends | {GATEWAY}}
        pairs[backends] = BlendPair(pair.rating, Blend(left, 0.0) if left else pair.ranking)
    return Ensemble(pairs)


def derive(
    store: ReleaseStore, release_id: str, weights: Mapping[str, float], why: str, folder: Path
) -> tuple[Path, Manifest]:
    """Prepares a release that differs from a published one only in its ranking weights.

    It has the same models, ratings and position in the feedback log. It has no precomputed pages
    and no evaluation of its ranking, because neither exists for the new weights. Gateways compute
    the missing pages on request, and the promotion gate asks for approval.

    Args:
        store: The store of the published release.
        release_id: The published release.
        weights: The weights of the ranking models, by name.
        why: The origin of the weights, for the manifest.
        folder: An empty folder for the files.

    Returns:
        The folder of the files and the manifest, ready to be published.

    Raises:
        ArtifactError: The release does not exist or is damaged, lacks one of the models, or the
            weights are not valid.
        OSError: The store cannot be read, or the folder cannot be written to.
    """
    source = store.manifest(release_id)
    backend_of = {model.name: model.backend for model in source.models}
    missing = sorted(set(weights) - set(backend_of))
    if missing:
        raise ArtifactError(f"release {release_id} has no model {', '.join(missing)}")
    left_out = (f"{PRECOMPUTED}/", f"{EVALUATION}/")
    kept = {path: entry for path, entry in source.files.items() if not path.startswith(left_out)}
    opened = store.open(source, lambda path: path in kept, folder / "opened")
    derived = folder / "derived"
    for path in kept:
        (derived / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(opened / path, derived / path)
    with_ranking(Ensemble.load(derived / ENSEMBLE, source), backend_of, weights).save(
        derived / ENSEMBLE
    )
    files = {**kept, ENSEMBLE: hash_file(derived / ENSEMBLE)}
    now = datetime.now(UTC)
    manifest = dataclasses.replace(
        source,
        release_id=new_release_id(files, now),
        published_at=now.isoformat(),
        evaluation={
            **_without_ranking(source.evaluation),
            DERIVED: {
                "release_id": release_id,
                "ranking_weights": dict(weights),
                "why": why,
            },
        },
        files=files,
        gate=None,
    )
    # Fail here if a server would refuse the release.
    Ensemble.load(derived / ENSEMBLE, manifest)
    return derived, manifest


def _without_ranking(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    metrics = evaluation.get("ensemble_metrics")
    if not isinstance(metrics, Mapping):
        return dict(evaluation)
    kept = {name: value for name, value in metrics.items() if name.startswith(_STARS_METRICS)}
    return {**evaluation, "ensemble_metrics": kept}
