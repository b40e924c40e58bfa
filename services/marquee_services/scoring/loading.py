"""Loads the models of a release and warms them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from marquee_core.arrays import Float32
from marquee_core.errors import ArtifactError, reason_of
from marquee_core.release.contents import ReleaseFiles, gateway_scores, open_release
from marquee_core.release.manifest import ANN, EXACT
from marquee_core.release.store import ReleaseStore
from marquee_core.retrieval.ann import AnnConfig, AnnIndex
from marquee_core.retrieval.exact import ExactIndex, ItemIndex, item_products
from marquee_core.scorers.modelled_items import load_scorer
from marquee_core.scorers.scorer import LoadScorer, Scorer, WarmsUp
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.model_times import NoTimer, Timer
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.ranking import rank

_NO_TIMER = NoTimer()
# The candidates of a page are scored in one pass for all users, many candidates user by user.
_PAGE, _MANY_CANDIDATES = 20, 100


def load_engine(
    store: ReleaseStore,
    release_id: str,
    backend: str,
    loaders: Mapping[str, LoadScorer],
    cache: Path,
    timer: Timer = _NO_TIMER,
) -> Engine:
    """Loads a backend's models of a release, and warms them up.

    Args:
        store: The release store.
        release_id: The release.
        backend: Name of the service, from `marquee_core.service_names`.
        loaders: The functions that load the models of this service, by the model's name.
        cache: Folder of the copies of release files.
        timer: Measures the time of the models.

    Raises:
        ArtifactError: A file of the release is missing or damaged, or the release assigns a model
            to this service that it does not know.
    """
    files, names = open_release(store, release_id, backend, cache)
    return engine_of(files, names, loaders, timer)


def engine_of(
    files: ReleaseFiles,
    names: Sequence[str],
    loaders: Mapping[str, LoadScorer],
    timer: Timer = _NO_TIMER,
) -> Engine:
    """Loads models from the files of a release, and warms them up.

    Args:
        files: The files.
        names: The models.
        loaders: The functions that load the models of a service, by the model's name.
        timer: Measures the time of the models.

    Raises:
        ArtifactError: A file is missing or damaged, or one of the models is unknown.
    """
    entries = {model.name: model for model in files.manifest.models}
    scorers, indexes = {}, {}
    for name in names:
        if name not in loaders:
            raise ArtifactError(f"this server does not know the model {name!r}")
        folder = files.model_folder(name)
        scorers[name] = load_scorer(loaders[name], folder, files.data)
        index = load_index(folder, scorers[name], entries[name].retrieval)
        if index is not None:
            indexes[name] = index
    release_id = files.manifest.release_id
    engine = Engine(release_id, files.data, scorers, indexes, gateway_scores(files))
    warm_up(engine)
    engine = replace(engine, timer=timer)
    _ = engine.unrated_items  # A cached property, which the copy would compute for its first call.
    return engine


def load_index(folder: Path, scorer: Scorer, retrieval: Mapping[str, Any]) -> ItemIndex | None:
    """Loads the index that retrieves a model's best items.

    Args:
        folder: The folder of the model's artifacts.
        scorer: The model's scorer.
        retrieval: The kind of index and its parameters, as in `ModelEntry.retrieval`.

    Returns:
        The index; None if the model's scores are not products of vectors.

    Raises:
        ArtifactError: The entry is damaged, or the model or this server does not support the kind
            of index.
    """
    items = item_products(scorer)
    kind = retrieval.get("kind", EXACT)
    if kind == ANN:
        if items is None:
            raise ArtifactError(
                f"{folder.name}: approximate retrieval needs scores that are products of vectors"
            )
        try:
            config = AnnConfig(**retrieval["parameters"])
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{folder.name}: damaged retrieval entry: {reason_of(error)}"
            ) from error
        return AnnIndex.load(folder, items, config)
    if kind != EXACT:
        raise ArtifactError(f"{folder.name}: unknown kind of retrieval {kind!r}")
    return None if items is None else ExactIndex(items)


def warm_up(engine: Engine) -> None:
    """Executes every kind of request once, so that the first requests are not slow.

    This also detects models that fail before a caller does.

    Raises:
        ArtifactError: A model returns scores that are not finite.
    """
    no_ratings = np.empty(0, np.int32), np.empty(0, np.float32)
    queries = [Query(-1, *no_ratings, None)]
    matrix = engine.data.matrix
    if matrix.rating_count:
        user = int(np.argmax(np.diff(matrix.indptr)))
        profile = matrix.profiles([user])
        queries += [Query(user, *no_ratings, None), Query(-1, profile.items, profile.ratings, None)]
    for scorer in engine.scorers.values():
        if isinstance(scorer, WarmsUp):
            scorer.warm_up()
    if not engine.scorers:
        return
    _check_finite(engine.score(queries, ()))
    rated = queries[1:]
    for count in (_PAGE, _MANY_CANDIDATES):
        candidates = np.arange(min(count, matrix.item_count), dtype=np.int32)
        _check_finite(engine.score([replace(q, candidates=candidates) for q in queries], ()))
    for found in engine.retrieve(queries, (), _PAGE, None).values():
        if not all(np.isfinite(scores).all() for _, scores in found):
            raise ArtifactError("a model retrieves items with scores that are not finite")
    names = tuple(engine.scorers)
    weights = tuple((name, 1.0) for name in names)
    plan = RankingPlan(
        weights, _PAGE, stars_models=names, stars_count=_PAGE, top_count=_MANY_CANDIDATES
    )
    rank(engine, [replace(query, new_only=True) for query in queries], plan)
    _check_finite(engine.compare(0))
    for query in rated:
        engine.explain(replace(query, candidates=np.arange(1, dtype=np.int32)), (), 1)


def _check_finite(scores: Mapping[str, Float32]) -> None:
    for name, values in scores.items():
        if not np.isfinite(values).all():
            raise ArtifactError(f"model {name!r} returns scores that are not finite")
