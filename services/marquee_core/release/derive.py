"""Makes a release with other ranking weights from one in the store, for an arm that has won."""

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
"""The field of `Manifest.evaluation` that says what a release was derived from."""

# Metrics of predicted stars, which ranking weights do not change.
_STARS_METRICS = ("test_", "train_")


def with_ranking(
    ensemble: Ensemble, backend_of: Mapping[str, str], weights: Mapping[str, float]
) -> Ensemble:
    """Returns the ensemble with other ranking weights; stars are predicted as before.

    While a backend is unavailable, the weights of the remaining models rank; if none remain, the
    release's own blend for the remaining backends does.

    Args:
        ensemble: The blends of a release.
        backend_of: The service of each of its models.
        weights: The weight of each model that ranks.

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
    """Prepares a release that differs from another one in its ranking weights alone.

    It has the same models, ratings and place in the feedback log, but neither precomputed pages nor
    an evaluation of its ranking: nobody has computed these with the new weights. Gateways compute
    what they have no page for, and the gate asks for approval.

    Args:
        store: The store of the other release.
        release_id: The other release.
        weights: The weights of the models that rank, by name.
        why: Where the weights come from, for the manifest.
        folder: An empty folder for the files.

    Returns:
        The folder of the files and the manifest, ready to be published.

    Raises:
        ArtifactError: The release does not exist or is damaged, it lacks one of the models, or no
            release may have these weights.
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
    made = folder / "made"
    for path in kept:
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(opened / path, made / path)
    with_ranking(Ensemble.load(made / ENSEMBLE, source), backend_of, weights).save(made / ENSEMBLE)
    files = {**kept, ENSEMBLE: hash_file(made / ENSEMBLE)}
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
    # What a server would refuse is refused before anything is published.
    Ensemble.load(made / ENSEMBLE, manifest)
    return made, manifest


def _without_ranking(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    metrics = evaluation.get("ensemble_metrics")
    if not isinstance(metrics, Mapping):
        return dict(evaluation)
    kept = {name: value for name, value in metrics.items() if name.startswith(_STARS_METRICS)}
    return {**evaluation, "ensemble_metrics": kept}
