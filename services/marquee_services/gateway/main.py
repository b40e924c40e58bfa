"""Runs the gateway."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from marquee.v1 import recommender_service_pb2, recommender_service_pb2_grpc
from marquee_core.release.store import ReleaseStore
from marquee_services.gateway.answering.lookups import Lookups
from marquee_services.gateway.answering.recommender import Recommender
from marquee_services.gateway.answering.stored_answers import StoredAnswers
from marquee_services.gateway.backends.backend import Backend
from marquee_services.gateway.caching.answer_cache import AnswerCache
from marquee_services.gateway.caching.list_cache import ListCache
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.releases.release import GatewayRelease, load_gateway_release
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.servicer import RecommenderServicer
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.follower import ReleaseFollower
from marquee_services.server.metrics import Metrics
from marquee_services.server.runtime import BoundServer, create_server, until_signalled

SERVICE = recommender_service_pb2.DESCRIPTOR.services_by_name["RecommenderService"].full_name


@dataclass
class Gateway:
    """A running gateway.

    Attributes:
        bound: The server.
        follower: Follows the promoted release.
        backends: The backends.
        releases: Which releases are answered with.
        metrics: The gateway's metrics.
    """

    bound: BoundServer
    follower: ReleaseFollower[GatewayRelease]
    backends: tuple[Backend, ...]
    releases: Releases
    metrics: Metrics
    _tasks: list[asyncio.Task[None]]

    async def stop(self, grace: float) -> None:
        """Drains, and stops following and watching."""
        await self.bound.stop(grace)
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        for backend in self.backends:
            await backend.close()


async def start(settings: GatewaySettings) -> Gateway:
    """Starts a gateway; health says SERVING once a release is loaded.

    Raises:
        OSError: The address cannot be listened on.
        ValueError: The store's URL is not known.
    """
    store = ReleaseStore(settings.store)
    backends = (
        Backend("cf", settings.cf_target, settings),
        Backend("inference", settings.inference_target, settings),
    )
    follower: ReleaseFollower[GatewayRelease] = ReleaseFollower(
        store,
        lambda release_id: load_gateway_release(store, release_id, settings.cache),
        settings.poll_interval,
        settings.keep_releases,
    )
    releases = Releases(follower, backends)
    router = Router({backend.name: backend for backend in backends})
    lists = ListCache(settings.list_memory * 1024 * 1024)
    answer_cache = AnswerCache(settings.answer_memory * 1024 * 1024)
    ready = StoredAnswers(
        releases,
        router,
        answer_cache,
        settings.first_pages,
        settings.dense_limit,
    )
    recommender = Recommender(
        releases,
        router,
        lists,
        answer_cache,
        settings.dense_limit,
        settings.candidates,
    )
    metrics = Metrics()
    servicer = RecommenderServicer(
        recommender, ready, Lookups(releases), releases, router, settings, metrics
    )
    bound = await create_server(
        settings,
        SERVICE,
        lambda server: recommender_service_pb2_grpc.add_RecommenderServiceServicer_to_server(
            servicer, server
        ),
        metrics,
        settings.max_request_bytes,
    )
    tasks = [asyncio.create_task(backend.watch()) for backend in backends]
    tasks.append(asyncio.create_task(follower.follow()))
    tasks.append(asyncio.create_task(_keep_up(releases, bound, metrics, settings)))
    return Gateway(bound, follower, backends, releases, metrics, tasks)


async def _keep_up(
    releases: Releases, bound: BoundServer, metrics: Metrics, settings: GatewaySettings
) -> None:
    """Puts releases in service as they and the backends become ready."""
    while True:
        if releases.update():
            metrics.in_service(releases.serving.release_id)
            await bound.set_serving(True)
        await asyncio.sleep(min(settings.probe_interval, settings.poll_interval) / 2)


async def serve(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    gateway = await start(settings)
    try:
        await until_signalled()
    finally:
        await gateway.stop(settings.grace)
