"""Starts a scoring server for the CF service or the inference service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from marquee.v1 import scoring_service_pb2, scoring_service_pb2_grpc
from marquee_core.release.copies import ReleaseCopies
from marquee_core.scorers.scorer import LoadScorer
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.loading import load_engine
from marquee_services.scoring.model_times import ModelTimes
from marquee_services.scoring.servicer import ScoringServicer
from marquee_services.scoring.settings import ScoringSettings
from marquee_services.server.admission.queue_metrics import QueueMetrics
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.releases.fork_server import ForkServer
from marquee_services.server.releases.trial import ReleaseTrial
from marquee_services.server.releases.trial_process import TrialLoader
from marquee_services.server.runtime import (
    BoundServer,
    create_server,
    methods_of,
    until_signalled,
)
from marquee_services.server.state_metrics import release_metrics
from marquee_services.server.telemetry.metrics import Metrics

_DESCRIPTOR = scoring_service_pb2.DESCRIPTOR.services_by_name["ScoringService"]
SERVICE = _DESCRIPTOR.full_name
# Gateways list the loaded releases periodically, to probe whether the server responds.
_PROBES = frozenset({"ListReleases"})


async def start(
    settings: ScoringSettings,
    backend: str,
    loaders: Mapping[str, LoadScorer],
    trial: ReleaseTrial | None = None,
) -> tuple[BoundServer, ReleaseFollower[Engine]]:
    """Starts a scoring server.

    The health status becomes SERVING when a release is loaded and warmed up. The caller must run
    the follower's `follow`, which loads releases.

    Args:
        settings: The server's settings.
        backend: Name of the service, from `marquee_core.service_names`.
        loaders: The functions that load the models of the service, by the model's name.
        trial: Loads releases on trial first; None to load them without a trial.

    Raises:
        OSError: The server cannot listen on its address.
        StoreURLError: The URL of the store cannot be used.
    """
    store = settings.open_store()
    metrics = Metrics(methods_of(_DESCRIPTOR))
    times = ModelTimes(metrics)
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()

    def on_change(engine: Engine) -> None:
        metrics.set_release(engine.release_id)
        task = loop.create_task(bound.set_serving(True))
        pending.add(task)
        task.add_done_callback(pending.discard)

    follower = ReleaseFollower(
        store,
        lambda release_id: load_engine(store, release_id, backend, loaders, settings.cache, times),
        settings.poll_interval,
        settings.keep_releases,
        on_change,
        ReleaseCopies(store, settings.cache),
        settings.scrub_interval,
        trial,
    )
    metrics.read_on_scrape(release_metrics((follower,), lambda: None))
    servicer = ScoringServicer(follower, settings, backend, QueueMetrics(metrics), times.totals)
    bound = await create_server(
        settings,
        (SERVICE,),
        lambda server: scoring_service_pb2_grpc.add_ScoringServiceServicer_to_server(
            servicer, server
        ),
        metrics,
        probes=_PROBES,
        # Gateways legitimately reset many calls: those that another replica has answered.
        guarded=False,
    )
    return bound, follower


def trial_loaders(
    settings: ScoringSettings, backend: str, loaders: Mapping[str, LoadScorer]
) -> Mapping[str, TrialLoader]:
    """Returns the function that loads the backend's part of a release on trial, by service."""
    return {backend: partial(_load_on_trial, settings, backend, loaders)}


async def serve(
    settings: ScoringSettings,
    backend: str,
    loaders: Mapping[str, LoadScorer],
    fork_server: ForkServer | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully; see `start`.

    Args:
        settings: The server's settings.
        backend: Name of the service, from `marquee_core.service_names`.
        loaders: The functions that load the models of the service, by the model's name.
        fork_server: Starts the processes for trial loads; None to load releases without a trial.
    """
    trial = None if fork_server is None else ReleaseTrial(backend, settings, fork_server)
    bound, follower = await start(settings, backend, loaders, trial)
    following = asyncio.create_task(follower.follow())
    try:
        await until_signalled(bound.reloader.reload)
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await bound.stop(settings.grace)


def _load_on_trial(
    settings: ScoringSettings, backend: str, loaders: Mapping[str, LoadScorer], release_id: str
) -> None:
    load_engine(settings.open_store(), release_id, backend, loaders, settings.cache)
