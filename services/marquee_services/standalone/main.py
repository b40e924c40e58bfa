"""Starts the standalone server: the gateway, and the engines of both backends beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.scorer import LoadScorer
from marquee_core.service_names import CF, INFERENCE
from marquee_services.gateway.main import Gateway
from marquee_services.gateway.main import start as start_gateway
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.loading import load_engine
from marquee_services.server.follower import ReleaseFollower
from marquee_services.server.runtime import until_signalled
from marquee_services.standalone.backend import LocalBackend
from marquee_services.standalone.settings import StandaloneSettings

_log = structlog.get_logger()


async def start(
    settings: StandaloneSettings, loaders: Mapping[str, Mapping[str, LoadScorer]]
) -> tuple[Gateway, list[ReleaseFollower[Engine]]]:
    """Starts a gateway with local backends, once they have loaded the promoted release.

    A gateway serves as soon as it has loaded a release itself, and without backends its answers
    would be degraded. The caller must run the followers' `follow`, which loads later releases.

    Args:
        settings: The server's settings.
        loaders: For each backend, the function that loads each of its models, by name.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    store = ReleaseStore(settings.store)
    # One thread scores for both backends: more would only compete for the interpreter's lock.
    executor = ThreadPoolExecutor(1, thread_name_prefix="scoring")
    followers, backends = [], []
    for name, own_loaders in loaders.items():
        follower = _follower(store, name, own_loaders, settings)
        followers.append(follower)
        backends.append(
            LocalBackend(
                name,
                follower,
                executor,
                settings.max_batch,
                settings.max_waiting,
                settings.probe_interval,
                settings.backend_timeout,
            )
        )
    await asyncio.gather(*map(_load_promoted, followers))
    return await start_gateway(settings, backends), followers


async def _load_promoted(follower: ReleaseFollower[Engine]) -> None:
    """Loads the promoted release, if there is one; `ReleaseFollower.follow` tries again."""
    try:
        await follower.poll()
    except Exception as error:
        _log.error("release_poll_failed", exc_info=error)


def _follower(
    store: ReleaseStore,
    backend: str,
    loaders: Mapping[str, LoadScorer],
    settings: StandaloneSettings,
) -> ReleaseFollower[Engine]:
    return ReleaseFollower(
        store,
        lambda release_id: load_engine(store, release_id, backend, loaders, settings.cache),
        settings.poll_interval,
        settings.keep_releases,
    )


async def serve(settings: StandaloneSettings) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    from marquee_services.cf.models import CF_SCORERS
    from marquee_services.inference.models import loaders

    gateway, followers = await start(
        settings, {CF: CF_SCORERS, INFERENCE: loaders(settings.tensorflow_threads)}
    )
    following = [asyncio.create_task(follower.follow()) for follower in followers]
    try:
        await until_signalled(gateway.bound.reloader.reload)
    finally:
        for task in following:
            task.cancel()
        for task in following:
            with suppress(asyncio.CancelledError):
                await task
        await gateway.stop(settings.grace)
