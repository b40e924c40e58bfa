"""Starts and stops the gateway, and puts its parts together.

`_update_release_in_service` switches to a promoted release once it is ready; `releases/serving.py`
decides when that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from marquee.v1 import recommender_service_pb2, recommender_service_pb2_grpc
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, INFERENCE
from marquee_services.gateway.answering.lookups import Lookups
from marquee_services.gateway.answering.page_scorer import PageScorer
from marquee_services.gateway.answering.predict import Predictor
from marquee_services.gateway.answering.reasons import Explainer
from marquee_services.gateway.answering.recommend import Recommender
from marquee_services.gateway.answering.similar import SimilarItemsFinder
from marquee_services.gateway.answering.status import StatusReporter
from marquee_services.gateway.answering.stored_answers import StoredAnswers
from marquee_services.gateway.backends.backend import Backend
from marquee_services.gateway.backends.interface import AnyBackend
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
_MIB = 1024 * 1024


@dataclass
class Gateway:
    """A running gateway.

    Attributes:
        bound: The gRPC server, which is listening.
        follower: Loads the promoted release.
        backends: The CF and the inference service.
        releases: The loaded releases, and the one in service.
        metrics: The gateway's metrics.
    """

    bound: BoundServer
    follower: ReleaseFollower[GatewayRelease]
    backends: Sequence[AnyBackend]
    releases: Releases
    metrics: Metrics
    _tasks: list[asyncio.Task[None]]

    async def stop(self, grace: float) -> None:
        """Refuses new calls, lets calls in progress finish, and stops the background tasks.

        Args:
            grace: Seconds that calls in progress may still take.
        """
        await self.bound.stop(grace)
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        for backend in self.backends:
            await backend.close()


async def start(settings: GatewaySettings, backends: Sequence[AnyBackend] | None = None) -> Gateway:
    """Starts a gateway. Its health is NOT_SERVING until a release is in service.

    Args:
        settings: The gateway's settings.
        backends: The CF and the inference service; None to call those of the settings.

    Raises:
        OSError: The gateway cannot listen on the address.
        StoreURLError: The URL of the store cannot be used.
    """
    store = ReleaseStore(settings.store)
    if backends is None:
        backends = (
            Backend(CF, settings.cf_target, settings),
            Backend(INFERENCE, settings.inference_target, settings),
        )
    follower: ReleaseFollower[GatewayRelease] = ReleaseFollower(
        store,
        lambda release_id: load_gateway_release(store, release_id, settings.cache),
        settings.poll_interval,
        settings.keep_releases,
    )
    releases = Releases(follower, backends)
    router = Router({backend.name: backend for backend in backends})
    answer_cache = AnswerCache(settings.answer_cache_mib * _MIB)
    page_scorer = PageScorer(
        router,
        ListCache(settings.list_cache_mib * _MIB),
        settings.dense_limit,
        settings.candidates,
    )
    metrics = Metrics()
    servicer = RecommenderServicer(
        stored_answers=StoredAnswers(
            releases, router, answer_cache, settings.precomputed_pages, settings.dense_limit
        ),
        recommender=Recommender(releases, page_scorer, Explainer(router), answer_cache),
        predictor=Predictor(releases, router),
        similar_items=SimilarItemsFinder(releases, router),
        lookups=Lookups(releases),
        status=StatusReporter(releases, backends),
        settings=settings,
        metrics=metrics,
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
    gateway = Gateway(bound, follower, backends, releases, metrics, tasks)
    tasks.append(asyncio.create_task(_update_release_in_service(gateway, settings)))
    return gateway


async def _update_release_in_service(gateway: Gateway, settings: GatewaySettings) -> None:
    """Puts releases in service as they and the backends become ready, until cancelled."""
    while True:
        release = gateway.releases.update()
        if release is not None:
            for backend in gateway.backends:
                backend.keep_loaded(release.release_id)
            gateway.metrics.set_release(release.release_id)
            await gateway.bound.set_serving(True)
        await asyncio.sleep(min(settings.probe_interval, settings.poll_interval) / 2)


async def serve(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully."""
    gateway = await start(settings)
    try:
        await until_signalled()
    finally:
        await gateway.stop(settings.grace)
