"""Assembles a release from trained models, and publishes it to a store."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from marquee_core.arrays import Int32, Int64
from marquee_core.attributes import Attributes
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.feedback.events import Mark
from marquee_core.release.contents import PRECOMPUTED, model_folder, save_data
from marquee_core.release.ensemble import BASELINE, POPULARITY, RECENT_POPULARITY, Ensemble
from marquee_core.release.manifest import (
    EXACT,
    IMPLICIT,
    DataEntry,
    Manifest,
    ModelEntry,
    digest_of,
    hash_folder,
    new_release_id,
)
from marquee_core.release.staging import stage
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Verdict
from marquee_core.scorers.modelled_items import expand_to_catalogue, save_modelled_items
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.item_vectors import item_vectors
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.models.coverage import partial_coverage
from marquee_trainer.models.model import Model
from marquee_trainer.publishing.config import PrecomputeConfig, RetrievalConfig
from marquee_trainer.publishing.held_out import HeldOutEvaluation
from marquee_trainer.publishing.precomputed import OnUsers, precompute_pages
from marquee_trainer.publishing.retrieval import Retrieval, choose_retrieval
from marquee_trainer.threads import blas_threads
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.preparation import all_rows
from marquee_trainer.training.results import TrainingResult
from marquee_trainer.training.versions import library_versions

Judge: TypeAlias = Callable[[ReleaseStore, str], Verdict | None]
"""Judges a release before it is published, given a store that holds only that release, and its
id."""

_VERSION_DIGITS = 12
# Artifacts of the baselines are part of the release's shared data, not of a model folder.
_BASELINE_ARTIFACTS = {BASELINE: "baseline/", POPULARITY: "data/", RECENT_POPULARITY: "data/"}


def publish_trained(
    store: ReleaseStore,
    dataset: RatingsDataset,
    split: Split,
    trained: TrainingResult,
    config: TrainingConfig,
    retrieval: RetrievalConfig | None = None,
    precompute: PrecomputeConfig | None = None,
    mark: Mark | None = None,
    judge: Judge | None = None,
    on_users: OnUsers = lambda _, __: None,
) -> Manifest:
    """Publishes the result of training as a release, without promoting it.

    The release serves the models that were refitted on all ratings, if any, and records the metrics
    of the evaluation.

    Args:
        store: The store to publish to.
        dataset: The ratings that were loaded.
        split: Their training and test part.
        trained: The models, the ensemble and the evaluation.
        config: The configuration of the training.
        retrieval: How candidates are generated from a large catalogue; None for the default.
        precompute: Which first pages are precomputed; None for the default.
        mark: The position in the feedback log up to which events are among the ratings; None
            without a log.
        judge: The gate, whose verdict becomes part of the manifest; None for no verdict.
        on_users: Reports the progress of precomputing pages.

    Returns:
        The release's manifest.

    Raises:
        ArrayError: A model's parameters are not finite.
        ArtifactError: A model's scores are not finite.
        OSError: The store cannot be written to.
    """
    refitted = trained.refit is not None
    rows = all_rows(split) if refitted else split.train
    source = data_entry(dataset, trained.served_data, rows, refitted=refitted)
    evaluation = {
        "split": split.description,
        "seed": config.seed,
        "training_ratings": len(split.train),
        "training_fingerprint": dataset.fingerprint(split.train),
        "test_ratings": len(trained.evaluation.tested),
        "ranked_users": trained.evaluation.ranked_users,
        "training": asdict(config),
        "ensemble_metrics": trained.evaluation.metrics[ENSEMBLE],
        # Only of models that do not use all ratings, or treat parts of the catalogue differently.
        "coverage": {
            name: asdict(coverage)
            for name, coverage in partial_coverage(
                trained.served_models, trained.served_data.matrix
            ).items()
        },
    }
    return publish_release(
        store,
        source,
        dataset.user_ids,
        dataset.catalogue,
        trained.served_data,
        trained.served_models,
        trained.ensemble,
        trained.evaluation.metrics,
        evaluation,
        retrieval,
        config.seed,
        precompute,
        dataset.attributes,
        mark,
        HeldOutEvaluation.of(dataset, split, trained),
        dataset.modelled_items,
        judge,
        on_users,
    )


def data_entry(
    dataset: RatingsDataset, data: ReleaseData, rows: Int64, *, refitted: bool = False
) -> DataEntry:
    """Describes the data of a release.

    Args:
        dataset: The ratings.
        data: What the models were fitted with.
        rows: The rows of the data set that they were fitted with (int64, n).
        refitted: Whether the models were fitted again after the evaluation.
    """
    limit = data.dislike_limit
    return DataEntry(
        source=dataset.source,
        fingerprint=dataset.fingerprint(rows),
        user_count=data.matrix.user_count,
        item_count=len(dataset.catalogue),
        rating_count=data.matrix.rating_count,
        rating_min=dataset.scale.low,
        rating_max=dataset.scale.high,
        genres=dataset.catalogue.genres,
        feedback=dataset.feedback.value,
        refitted=refitted,
        dislike_limit=limit if math.isfinite(limit) else None,
    )


@blas_threads(1)
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
    precompute: PrecomputeConfig | None = None,
    attributes: Mapping[str, Sequence[str]] | None = None,
    mark: Mark | None = None,
    held_out: HeldOutEvaluation | None = None,
    modelled_items: Int32 | None = None,
    judge: Judge | None = None,
    on_users: OnUsers = lambda _, __: None,
) -> Manifest:
    """Writes the files and the manifest of a release into a store, without promoting it.

    Args:
        store: The store to publish to.
        source: The manifest's entry for the ratings.
        users: The user ids.
        catalogue: The items' metadata.
        data: The ratings that the models were fitted on, and the bias baseline.
        models: The fitted models, without the baselines.
        ensemble: The blends of the models and the baselines.
        metrics: The metrics of each model and each baseline, by model name.
        evaluation: The evaluation protocol and the ensemble's metrics.
        retrieval: How candidates are generated from a large catalogue; None for the default.
        seed: Seed of the choices that `retrieval` makes at random.
        precompute: Which first pages are precomputed; None for the default.
        attributes: The items' attributes: for each name, one text per item, empty if unknown.
        mark: The position in the feedback log up to which events are part of `data`; None without a
            log.
        held_out: The evaluation on held-out ratings; None to store none.
        modelled_items: The items of the catalogue that `data` and the models cover, ascending
            (int32, m); None for all.
        judge: The gate, whose verdict becomes part of the manifest; None for no verdict.
        on_users: Reports the progress of precomputing pages.

    Returns:
        The release's manifest.

    Raises:
        ArrayError: A model's parameters are not finite.
        ArtifactError: A model's scores are not finite.
        ValueError: The attributes of an item exceed the limit of a release.
        OSError: The store cannot be written to.
    """
    packed = Attributes.of(attributes, len(catalogue)) if attributes else None
    whole, vectors = data, item_vectors(data)
    if modelled_items is not None:
        whole = expand_to_catalogue(data, modelled_items, len(catalogue))
        own = vectors
        vectors = np.zeros((len(catalogue), own.shape[1]), np.float32)
        vectors[modelled_items] = own
    with tempfile.TemporaryDirectory(prefix="marquee-release-") as name:
        folder = Path(name) / "new"
        folder.mkdir()
        save_data(folder, users, catalogue, whole, vectors, ensemble, packed)
        retrieval_entries = {}
        for model in models:
            own_folder = model_folder(folder, model.name)
            model.save(own_folder)
            chosen = Retrieval()
            if modelled_items is None:
                chosen = choose_retrieval(model.scorer, data, retrieval or RetrievalConfig(), seed)
            else:
                save_modelled_items(own_folder, modelled_items)
            if chosen.index is not None:
                chosen.index.save(own_folder)
            retrieval_entries[model.name] = chosen.entry
        all_models = (*models, *fitted_baselines(data, source.feedback == IMPLICIT))
        if held_out is not None:
            held_out.save(folder)
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
                retrieval=retrieval_entries.get(model.name, {"kind": EXACT}),
            )
            for model in all_models
        ]
        manifest = Manifest(
            release_id=new_release_id(files, now),
            published_at=now.isoformat(),
            data=source,
            models=tuple(entries),
            evaluation=evaluation,
            library_versions=library_versions(),
            files=files,
            feedback_position=0 if mark is None else mark.position,
            feedback_mark="" if mark is None else mark.token,
        )
        manifest = _with_pages(manifest, folder, now, precompute or PrecomputeConfig(), on_users)
        if judge is not None:
            candidates, folder = stage(Path(name) / "staged", folder, manifest)
            manifest = replace(manifest, gate=judge(candidates, manifest.release_id))
        store.publish(folder, manifest)
    return manifest


def _with_pages(
    manifest: Manifest,
    folder: Path,
    now: datetime,
    config: PrecomputeConfig,
    on_users: OnUsers,
) -> Manifest:
    """Adds the precomputed pages to the files of a release, and returns its new manifest."""
    computed = precompute_pages(manifest, folder, config, on_users)
    computed.pages.save(folder)
    if computed.users < computed.wanted:
        cut = {"users": computed.users, "wanted": computed.wanted}
        manifest = replace(manifest, evaluation={**manifest.evaluation, "first_pages": cut})
    added = hash_folder(folder / PRECOMPUTED)
    files = {**manifest.files, **{f"{PRECOMPUTED}/{path}": added[path] for path in added}}
    files = dict(sorted(files.items()))
    return replace(manifest, release_id=new_release_id(files, now), files=files)


def _artifacts(name: str) -> str:
    """The folder of a model's artifacts, relative to the release's."""
    return _BASELINE_ARTIFACTS.get(name, f"models/{name}/")
