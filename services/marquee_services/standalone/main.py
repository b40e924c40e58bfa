"""Starts the standalone server: the gateway and the engines of both backends in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from marquee_core.release.copies import ReleaseCopies
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.scorer import LoadScorer
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from marquee_services.gateway.gateway import Gateway
from marquee_services.gateway.main import new_monitor, trial_loader
from marquee_services.gateway.main import start as start_gateway
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.loading import load_engine
from marquee_services.scoring.model_times import ModelTimes
from marquee_services.server.admission.priority import PriorityExecutor
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.releases.fork_server import ForkServer
from marquee_services.server.releases.poll_log import PollLog
from marquee_services.server.releases.trial import ReleaseTrial
from marquee_services.server.releases.trial_process import TrialLoader
from marquee_services.server.runtime import until_signalled
from marquee_services.standalone.backend import LocalBackend
from marquee_services.standalone.settings import StandaloneSettings


async def start(
    settings: StandaloneSettings,
    loaders: Mapping[str, Mapping[str, LoadScorer]],
    store: ReleaseStore | None = None,
    fork_server: ForkServer | None = None,
    with_experiments: bool = True,
) -> tuple[Gateway, list[ReleaseFollower[Engine]]]:
    """Starts a gateway with local backends, after they have loaded the promoted release.

    A gateway serves as soon as it has loaded a release itself, and its answers would be degraded
    without backends. The caller must run the followers' `follow`, which loads later releases.

    Args:
        settings: The server's settings.
        loaders: For each backend, the functions that load its models, by the model's name.
        store: The release store; None to open the one of the settings.
        fork_server: Starts the processes for trial loads; None to load releases without a trial.
        with_experiments: Whether to follow the experiments in the store.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    store = store or settings.open_store()
    # One thread scores for both backends; more would only compete for the interpreter's lock.
    executor = PriorityExecutor("scoring")
    monitor = new_monitor()
    times = ModelTimes(monitor.metrics)
    followers, backends = [], []
    for name, own_loaders in loaders.items():
        trial = None if fork_server is None else ReleaseTrial(name, settings, fork_server)
        follower = _follower(store, name, own_loaders, settings, trial, with_experiments, times)
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
                times.totals,
                monitor.queues,
            )
        )
    await asyncio.gather(*map(_load_promoted, followers))
    trial = None if fork_server is None else ReleaseTrial(GATEWAY, settings, fork_server)
    gateway = await start_gateway(
        settings, backends, store, trial, with_experiments, monitor, followers
    )
    return gateway, followers


async def _load_promoted(follower: ReleaseFollower[Engine]) -> None:
    """Loads the promoted release, if there is one; ignores errors.

    `ReleaseFollower.follow` tries again, and reports an error that persists.
    """
    with suppress(Exception):
        await follower.poll()


def _follower(
    store: ReleaseStore,
    backend: str,
    loaders: Mapping[str, LoadScorer],
    settings: StandaloneSettings,
    trial: ReleaseTrial | None,
    with_experiments: bool,
    times: ModelTimes,
) -> ReleaseFollower[Engine]:
    return ReleaseFollower(
        store,
        lambda release_id: load_engine(store, release_id, backend, loaders, settings.cache, times),
        settings.poll_interval,
        settings.keep_releases,
        copies=ReleaseCopies(store, settings.cache),
        scrub_interval=settings.scrub_interval,
        trial=trial,
        with_experiments=with_experiments,
        poll_log=PollLog(backend, warns=False),  # The gateway's follower warns.
    )


def _load_on_trial(
    settings: StandaloneSettings, backend: str, loaders: Mapping[str, LoadScorer], release_id: str
) -> None:
    load_engine(settings.open_store(), release_id, backend, loaders, settings.cache)


def trial_loaders(settings: StandaloneSettings) -> Mapping[str, TrialLoader]:
    """Returns the functions that load each service's part of a release on trial, by service."""
    from marquee_services.cf.models import CF_SCORERS
    from marquee_services.inference.models import loaders as inference_loaders

    loaders = {CF: CF_SCORERS, INFERENCE: inference_loaders(settings.tensorflow_threads)}
    tried = {name: partial(_load_on_trial, settings, name, own) for name, own in loaders.items()}
    return {GATEWAY: trial_loader(settings), **tried}


async def serve(settings: StandaloneSettings, fork_server: ForkServer | None) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully.

    Args:
        settings: The server's settings.
        fork_server: Starts the processes for trial loads; None to load releases without a trial.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    from marquee_services.cf.models import CF_SCORERS
    from marquee_services.inference.models import loaders

    gateway, followers = await start(
        settings,
        {CF: CF_SCORERS, INFERENCE: loaders(settings.tensorflow_threads)},
        fork_server=fork_server,
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
