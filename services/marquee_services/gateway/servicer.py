"""`RecommenderService` over gRPC: validates each request, calls the package that answers it.

Deadlines of calls, limits on load and the mapping of errors to statuses are in
`marquee_services.server.interceptor`, which surrounds these methods.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import recommender_service_pb2_grpc, types_pb2
from marquee_services.gateway.answering.lookups import Lookups
from marquee_services.gateway.answering.predict import Predictor
from marquee_services.gateway.answering.recommend import Recommender
from marquee_services.gateway.answering.similar import SimilarItemsFinder
from marquee_services.gateway.answering.status import StatusReporter
from marquee_services.gateway.answering.stored_answers import AnswerOrigin, StoredAnswers
from marquee_services.gateway.batch import recommend_batch
from marquee_services.gateway.caching.message_bytes import SerializedResponse
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.gateway.validation import validate
from marquee_services.server.interceptor import Context, time_left
from marquee_services.server.metrics import Metrics


class RecommenderServicer(recommender_service_pb2_grpc.RecommenderServiceServicer):
    """Serves the public API."""

    def __init__(
        self,
        stored_answers: StoredAnswers,
        recommender: Recommender,
        predictor: Predictor,
        similar_items: SimilarItemsFinder,
        lookups: Lookups,
        status: StatusReporter,
        settings: GatewaySettings,
        metrics: Metrics,
    ) -> None:
        """Creates a servicer.

        Args:
            stored_answers: Answers Recommend and BatchRecommend where no scoring is needed.
            recommender: Computes the other answers to Recommend and BatchRecommend.
            predictor: Answers PredictRatings.
            similar_items: Answers SimilarItems.
            lookups: Answers SearchItems and GetItem.
            status: Answers GetStatus.
            settings: The gateway's settings; the servicer uses its deadlines and batch limits.
            metrics: Counts answers by origin, and degraded answers by reason.
        """
        self._stored_answers = stored_answers
        self._recommender = recommender
        self._predictor = predictor
        self._similar_items = similar_items
        self._lookups = lookups
        self._status = status
        self._settings = settings
        self._metrics = metrics
        self._answers = {origin: metrics.answers.labels(origin) for origin in AnswerOrigin}

    async def Recommend(  # type: ignore[override]  # the interceptor sends serialised responses
        self, request: pb.RecommendRequest, context: Context
    ) -> pb.RecommendResponse | SerializedResponse:
        """Recommends items to one subject."""
        start = time.perf_counter()
        stored = self._stored_answers.single(request, start)
        if stored is not None:
            message, origin = stored
            self._answers[origin].inc()
            return message
        response = await self._recommender.recommend(validate(request), self._deadline(context))
        self._answers[AnswerOrigin.COMPUTED].inc()
        self._finish(response.source, start)
        return response

    async def BatchRecommend(  # type: ignore[override]  # the interceptor sends serialised responses
        self, request: pb.BatchRecommendRequest, context: Context
    ) -> AsyncIterator[SerializedResponse]:
        """Recommends items to each subject of a batch."""
        start = time.perf_counter()
        self._recommender.check_options(validate(request).options)
        async for message in recommend_batch(
            self._recommender,
            self._stored_answers.batch(request, start),
            request,
            self._deadline(context),
            self._settings.batch_parallel,
            lambda source: self._finish(source, start),
        ):
            yield message

    async def PredictRatings(
        self, request: pb.PredictRatingsRequest, context: Context
    ) -> pb.PredictRatingsResponse:
        """Predicts the ratings that a subject would give to items."""
        start = time.perf_counter()
        response = await self._predictor.predict(validate(request), self._deadline(context))
        self._finish(response.source, start)
        return response

    async def SimilarItems(
        self, request: pb.SimilarItemsRequest, context: Context
    ) -> pb.SimilarItemsResponse:
        """Finds the items that are most similar to an item."""
        start = time.perf_counter()
        response = await self._similar_items.similar(validate(request), self._deadline(context))
        self._finish(response.source, start)
        return response

    async def SearchItems(
        self, request: pb.SearchItemsRequest, context: Context
    ) -> pb.SearchItemsResponse:
        """Finds items by the words of their titles."""
        return await self._lookups.search(validate(request))

    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> pb.GetItemResponse:
        """Answers the metadata and rating statistics of an item."""
        return self._lookups.item(validate(request))

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Answers the gateway's state."""
        return self._status.status()

    def _deadline(self, context: Context) -> Deadline:
        """How long the backends may take for a call."""
        seconds = time_left(context, self._settings.default_deadline)
        return Deadline(seconds, self._settings.deadline_reserve)

    def _finish(self, source: types_pb2.AnswerSource, start: float) -> None:
        """Sets the time that an answer took, and counts the reasons for which it is degraded."""
        source.server_time_us = int((time.perf_counter() - start) * 1e6)
        for reason in source.degraded_reasons:
            self._metrics.degraded.labels(types_pb2.DegradedReason.Name(reason)).inc()
