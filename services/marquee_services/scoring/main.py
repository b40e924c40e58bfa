"""Runs a scoring service: the CF service or the inference service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from marquee.v1 import scoring_service_pb2, scoring_service_pb2_grpc
from marquee_core.errors import ArtifactError
from marquee_core.release.contents import open_release
from marquee_core.release.manifest import ANN, EXACT
from marquee_core.release.store import ReleaseStore
from marquee_core.retrieval.ann import AnnConfig, AnnIndex
from marquee_core.retrieval.exact import ExactIndex, ItemIndex, item_products
from marquee_core.scorers.scorer import LoadScorer, Scorer, WarmsUp
from marquee_services.scoring.engine import Engine, Query
from marquee_services.scoring.servicer import ScoringServicer
from marquee_services.scoring.settings import CFSettings
from marquee_services.server.follower import ReleaseFollower
from marquee_services.server.metrics import Metrics
from marquee_services.server.runtime import BoundServer, create_server, until_signalled

SERVICE = scoring_service_pb2.DESCRIPTOR.services_by_name["ScoringService"].full_name


def load_engine(
    store: ReleaseStore,
    release_id: str,
    backend: str,
    loaders: Mapping[str, LoadScorer],
    cache: Path,
) -> Engine:
    """Opens a release, loads a backend's models and warms them up.

    Args:
        store: The release store.
        release_id: The release.
        backend: `cf` or `inference`.
        loaders: Reads each model that this backend knows.
        cache: Where files of a remote store are kept.

    Raises:
        ArtifactError: A file is not what it should be, or the release holds an unknown model.
    """
    files, names = open_release(store, release_id, backend, cache)
    entries = {model.name: model for model in files.manifest.models}
    scorers, indexes = {}, {}
    for name in names:
        if name not in loaders:
            raise ArtifactError(f"this server knows no model {name!r}")
        folder = files.model_folder(name)
        scorers[name] = loaders[name](folder, files.data)
        index = load_index(folder, scorers[name], entries[name].retrieval)
        if index is not None:
            indexes[name] = index
    engine = Engine(release_id, files.data, scorers, indexes)
    warm_up(engine)
    return engine


def load_index(folder: Path, scorer: Scorer, retrieval: Mapping[str, Any]) -> ItemIndex | None:
    """What finds a model's best items, as its release says; None for a model without products.

    Args:
        folder: The model's artifacts.
        scorer: The model.
        retrieval: As in `ModelEntry`.

    Raises:
        ArtifactError: The release asks for what the model or this server cannot do.
    """
    items = item_products(scorer)
    kind = retrieval.get("kind", EXACT)
    if kind == ANN:
        if items is None:
            raise ArtifactError(f"{folder.name}: only products have approximate neighbours")
        try:
            config = AnnConfig(**retrieval["parameters"])
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{folder.name}: damaged retrieval: {error!r}") from error
        return AnnIndex.load(folder, items, config)
    if kind != EXACT:
        raise ArtifactError(f"{folder.name}: unknown retrieval {kind!r}")
    return None if items is None else ExactIndex(items)


def warm_up(engine: Engine) -> None:
    """Scores for a known user and for a visitor, so that no request pays for first times.

    Raises:
        ArtifactError: A model answers with something other than finite scores.
    """
    none_rated = np.empty(0, np.int32), np.empty(0, np.float32)
    queries = [Query(-1, *none_rated, None)]
    matrix = engine.data.matrix
    if matrix.rating_count:
        user = int(np.argmax(np.diff(matrix.indptr)))
        profile = matrix.profiles([user])
        queries += [Query(user, *none_rated, None), Query(-1, profile.items, profile.ratings, None)]
    for scorer in engine.scorers.values():
        if isinstance(scorer, WarmsUp):
            scorer.warm_up()
    for name, scores in engine.score(queries, ()).items():
        if not np.isfinite(scores).all():
            raise ArtifactError(f"model {name!r} answers with scores that are not finite")


async def start(
    settings: CFSettings, backend: str, loaders: Mapping[str, LoadScorer]
) -> tuple[BoundServer, ReleaseFollower[Engine]]:
    """Starts a scoring server; health says SERVING once a release is loaded and warm.

    The caller runs the follower's `follow`.

    Raises:
        OSError: The address cannot be listened on.
        ValueError: The store's URL is not known.
    """
    store = ReleaseStore(settings.store)
    metrics = Metrics()
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()

    def on_change(engine: Engine) -> None:
        metrics.in_service(engine.release_id)
        task = loop.create_task(bound.set_serving(True))
        pending.add(task)
        task.add_done_callback(pending.discard)

    follower = ReleaseFollower(
        store,
        lambda release_id: load_engine(store, release_id, backend, loaders, settings.cache),
        settings.poll_interval,
        settings.keep_releases,
        on_change,
    )
    servicer = ScoringServicer(follower, settings)
    bound = await create_server(
        settings,
        SERVICE,
        lambda server: scoring_service_pb2_grpc.add_ScoringServiceServicer_to_server(
            servicer, server
        ),
        metrics,
    )
    return bound, follower


async def serve(settings: CFSettings, backend: str, loaders: Mapping[str, LoadScorer]) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    bound, follower = await start(settings, backend, loaders)
    following = asyncio.create_task(follower.follow())
    try:
        await until_signalled()
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await bound.stop(settings.grace)
