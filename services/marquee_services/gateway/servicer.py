"""`RecommenderService` over gRPC: validate, call the recommender, say how long it took."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from importlib.metadata import version

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import recommender_service_pb2_grpc, types_pb2
from marquee_services.errors import NoRelease
from marquee_services.gateway.answering.lookups import Lookups
from marquee_services.gateway.answering.messages import release_status
from marquee_services.gateway.answering.recommender import Recommender
from marquee_services.gateway.answering.stored_answers import StoredAnswers
from marquee_services.gateway.batch import recommend_batch
from marquee_services.gateway.ranking.router import Deadline, Router
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.gateway.validation import validate
from marquee_services.server.interceptor import Context, time_left
from marquee_services.server.metrics import Metrics


class RecommenderServicer(recommender_service_pb2_grpc.RecommenderServiceServicer):
    """Serves the public API."""

    def __init__(
        self,
        recommender: Recommender,
        ready: StoredAnswers,
        lookups: Lookups,
        releases: Releases,
        router: Router,
        settings: GatewaySettings,
        metrics: Metrics,
    ) -> None:
        """Takes its collaborators."""
        self._recommender = recommender
        self._ready = ready
        self._lookups = lookups
        self._releases = releases
        self._router = router
        self._settings = settings
        self._metrics = metrics
        self._answers = {
            origin: metrics.answers.labels(origin) for origin in ("kept", "release", "computed")
        }

    async def Recommend(  # type: ignore[override]  # bytes are messages: see the interceptor
        self, request: pb.RecommendRequest, context: Context
    ) -> pb.RecommendResponse | bytes:
        """Recommends to one subject."""
        start = time.perf_counter()
        ready = self._ready.single(request, start)
        if ready is not None:
            message, origin = ready
            self._answers[origin].inc()
            return message
        response = await self._recommender.recommend(validate(request), self._deadline(context))
        self._answers["computed"].inc()
        self._finish(response.source, start)
        return response

    async def BatchRecommend(  # type: ignore[override]  # bytes are messages: see the interceptor
        self, request: pb.BatchRecommendRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Recommends to many subjects."""
        start = time.perf_counter()
        self._recommender.check_options(validate(request).options)
        async for message in recommend_batch(
            self._recommender,
            self._ready.batch(request, start),
            request,
            self._deadline(context),
            self._settings.batch_parallel,
            lambda source: self._finish(source, start),
        ):
            yield message

    async def PredictRatings(
        self, request: pb.PredictRatingsRequest, context: Context
    ) -> pb.PredictRatingsResponse:
        """Predicts ratings."""
        start = time.perf_counter()
        response = await self._recommender.predict(validate(request), self._deadline(context))
        self._finish(response.source, start)
        return response

    async def SimilarItems(
        self, request: pb.SimilarItemsRequest, context: Context
    ) -> pb.SimilarItemsResponse:
        """Finds similar items."""
        start = time.perf_counter()
        response = await self._recommender.similar(validate(request), self._deadline(context))
        self._finish(response.source, start)
        return response

    async def SearchItems(
        self, request: pb.SearchItemsRequest, context: Context
    ) -> pb.SearchItemsResponse:
        """Finds items by title."""
        return self._lookups.search(validate(request))

    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> pb.GetItemResponse:
        """Tells about one item."""
        return self._lookups.item(validate(request))

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Tells the gateway's state."""
        try:
            release = release_status(self._releases.serving)
        except NoRelease:
            release = None
        return pb.GetStatusResponse(
            release=release,
            loaded_release_ids=[release.release_id for release in self._releases.loaded],
            backends=[
                pb.BackendStatus(
                    backend=backend.name,
                    target=backend.target,
                    healthy=backend.healthy,
                    loaded_release_ids=backend.releases,
                    last_error=backend.last_error.text,
                    last_error_at=backend.last_error.at,
                )
                for backend in self._router.backends.values()
            ],
            server_version=version("marquee"),
            pending_release_reason=self._releases.pending_reason,
        )

    def _deadline(self, context: Context) -> Deadline:
        seconds = time_left(context, self._settings.default_deadline)
        return Deadline(seconds, self._settings.deadline_reserve)

    def _finish(self, source: types_pb2.AnswerSource, start: float) -> None:
        source.server_time_us = int((time.perf_counter() - start) * 1e6)
        for reason in source.degraded_reasons:
            self._metrics.degraded.labels(types_pb2.DegradedReason.Name(reason)).inc()
