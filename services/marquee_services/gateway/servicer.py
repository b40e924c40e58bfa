"""Implements `RecommenderService`: validates each request and calls the package that answers it.

`marquee_services.server.interceptor` wraps these methods: it enforces deadlines and limits on load,
and maps errors to statuses.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import recommender_service_pb2_grpc, types_pb2
from marquee_services.gateway.answering.lookups import Lookups
from marquee_services.gateway.answering.predict import Predictor
from marquee_services.gateway.answering.recommend import ComputedAnswer, Recommender
from marquee_services.gateway.answering.similar import SimilarItemsFinder
from marquee_services.gateway.answering.status import StatusReporter
from marquee_services.gateway.answering.stored_answers import (
    AnswerOrigin,
    StoredAnswers,
    microseconds_since,
)
from marquee_services.gateway.batch import recommend_batch
from marquee_services.gateway.batch_budget import BatchBudget, subject_cost
from marquee_services.gateway.caching.message_bytes import SerializedResponse
from marquee_services.gateway.caching.request_key import RequestKey
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.rated_items import RatedItems
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.gateway.validation import validate
from marquee_services.server.admission.adaptive_limit import AdaptiveLimit
from marquee_services.server.interceptor import Context, time_left
from marquee_services.server.telemetry.metrics import Metrics

# Methods whose answers are always computed.
_COMPUTED = frozenset({"PredictRatings", "SimilarItems"})
# Below this share of stored answers among about the last hundred Recommend calls, a call is assumed
# to need computation.
_FEW_STORED = 0.05
_SHARE_STEP = 0.02


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
        computing: AdaptiveLimit,
        batch_budget: BatchBudget,
    ) -> None:
        """Creates a servicer.

        Args:
            stored_answers: Answers Recommend and BatchRecommend when no scoring is needed.
            recommender: Computes all other answers to Recommend and BatchRecommend.
            predictor: Answers PredictRatings.
            similar_items: Answers SimilarItems.
            lookups: Answers SearchItems and GetItem.
            status: Answers GetStatus.
            settings: The gateway's settings; the servicer uses the deadlines and batch limits.
            metrics: Counts answers by origin, and degraded answers by reason.
            computing: Admits single calls whose answers must be computed.
            batch_budget: The budget that all batches share.
        """
        self._stored_answers = stored_answers
        self._recommender = recommender
        self._predictor = predictor
        self._similar_items = similar_items
        self._lookups = lookups
        self._status = status
        self._settings = settings
        self._metrics = metrics
        self._computing = computing
        self._batch_budget = batch_budget
        # The recent share of Recommend calls that need no computation.
        self._stored_share = 1.0
        self._answers = {origin: metrics.answers.labels(origin) for origin in AnswerOrigin}
        self._computed = self._answers[AnswerOrigin.COMPUTED]

    def early_admission(self, method: str) -> AbstractAsyncContextManager[None] | None:
        """Returns where a call is queued before its request is read, if it would be queued anyway.

        Args:
            method: The name of the method.

        Returns:
            The context in which the call runs, which waits for a slot when it is entered. None if
            the call can start immediately, or may be answered without computation.
        """
        is_computed = method in _COMPUTED or (
            method == "Recommend" and self._stored_share < _FEW_STORED
        )
        if is_computed and self._computing.must_wait:
            return self._computing.early_slot(method)
        return None

    async def Recommend(  # type: ignore[override]  # the interceptor sends serialised responses
        self, request: pb.RecommendRequest, context: Context
    ) -> SerializedResponse:
        """Recommends items to one subject."""
        start = time.perf_counter()
        key = RequestKey.of(request)
        stored = self._stored_answers.single(request, key, start)
        if stored is not None:
            return self._stored(*stored)
        self._stored_share -= _SHARE_STEP * self._stored_share
        # Reasons cost about as much as the ranking, so they are left out first.
        without_reasons = self._computing.has_refused
        without_slow_models = (
            self._computing.is_exhausted and self._recommender.is_limited_by_models()
        )
        name = "RecommendWithReasons" if request.options.include_reasons else "Recommend"
        async with self._admitted(
            context, name, subject_cost(request), is_complete=not without_slow_models
        ):
            rated = RatedItems.of(request.subject)
            answer = await self._recommender.recommend(
                validate(request, rated),
                key,
                rated,
                self._deadline(context),
                leave_out_reasons=without_reasons,
                leave_out_models=without_slow_models,
            )
        self._computed.inc()
        return self._completed(answer, start)

    def recommend_again(self, request: bytes) -> SerializedResponse | None:
        """Answers a serialised Recommend request that had a stored answer before, if it still has.

        Returns:
            The serialised response; None if the request must be parsed.
        """
        found = self._stored_answers.again(request, time.perf_counter())
        if found is None:
            return None
        return self._stored(*found)

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
            self._batch_budget,
            self._settings.batch_parallel,
            lambda answer: self._completed(answer, start),
        ):
            yield message

    async def PredictRatings(
        self, request: pb.PredictRatingsRequest, context: Context
    ) -> pb.PredictRatingsResponse:
        """Predicts a subject's ratings of items."""
        start = time.perf_counter()
        async with self._admitted(context, "PredictRatings"):
            response = await self._predictor.predict(validate(request), self._deadline(context))
        self._finish(response.source, start)
        return response

    async def SimilarItems(
        self, request: pb.SimilarItemsRequest, context: Context
    ) -> pb.SimilarItemsResponse:
        """Finds the items that are most similar to an item."""
        start = time.perf_counter()
        async with self._admitted(context, "SimilarItems"):
            response = await self._similar_items.similar(validate(request), self._deadline(context))
        self._finish(response.source, start)
        return response

    async def SearchItems(
        self, request: pb.SearchItemsRequest, context: Context
    ) -> pb.SearchItemsResponse:
        """Searches items by the words of their titles."""
        return await self._lookups.search(validate(request))

    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> pb.GetItemResponse:
        """Returns the metadata and rating statistics of an item."""
        return self._lookups.item(validate(request))

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Returns the gateway's state."""
        return self._status.status()

    def _stored(self, message: SerializedResponse, origin: AnswerOrigin) -> SerializedResponse:
        """Counts a stored answer, and returns it."""
        self._stored_share += _SHARE_STEP * (1 - self._stored_share)
        self._answers[origin].inc()
        return message

    def _admitted(
        self, context: Context, name: str, cost: int = 1, is_complete: bool = True
    ) -> AbstractAsyncContextManager[None]:
        """Returns a context in which an answer is computed, once the call is admitted.

        Args:
            context: The call.
            name: The class of calls within which latencies are compared.
            cost: The cost of the answer.
            is_complete: Whether the answer is computed with all models.

        Raises:
            Busy: The call is refused because too many answers are being computed.
        """
        seconds = time_left(context, self._settings.default_deadline)
        return self._computing.admit(name, cost, seconds, is_complete)

    def _deadline(self, context: Context) -> Deadline:
        """Returns the time that the backends have for a call."""
        seconds = time_left(context, self._settings.default_deadline)
        return Deadline(seconds, self._settings.deadline_reserve)

    def _completed(self, answer: ComputedAnswer, start: float) -> SerializedResponse:
        """Serialises an answer with the time it took, and counts its degraded reasons."""
        self._count_degraded(answer.degraded_reasons)
        return answer.response(microseconds_since(start))

    def _finish(self, source: types_pb2.AnswerSource, start: float) -> None:
        """Sets the time that an answer took, and counts its degraded reasons."""
        source.server_time_us = microseconds_since(start)
        self._count_degraded(source.degraded_reasons)

    def _count_degraded(self, reasons: Iterable[types_pb2.DegradedReason.ValueType]) -> None:
        for reason in reasons:
            self._metrics.degraded.labels(types_pb2.DegradedReason.Name(reason)).inc()
