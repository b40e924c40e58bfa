"""Implements `ScoringService`: each method converts its request, calls the engine, and converts.

Errors are raised as `ServiceError`; `marquee_services.server.interceptor` ends the call with the
error's status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TypeAlias, TypeVar

from marquee.v1 import scoring_service_pb2 as pb
from marquee.v1 import scoring_service_pb2_grpc
from marquee_services.scoring.converters import (
    check_range,
    compare_response,
    explain_response,
    rank_response,
    releases_response,
    retrieve_response,
    score_response,
    to_comparison,
    to_eligible,
    to_plan,
    to_queries,
)
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.ranker import check_plan
from marquee_services.scoring.ranking import rank
from marquee_services.scoring.settings import ScoringSettings
from marquee_services.scoring.similarities import similarities_of
from marquee_services.server.admission.priority import PriorityExecutor
from marquee_services.server.admission.queue_metrics import QueueMetrics
from marquee_services.server.interceptor import Context, time_left
from marquee_services.server.micro_batcher import MicroBatcher
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.wire import MAX_RETRIEVED

_T = TypeVar("_T")
_MAX_EVIDENCE = 100
_RankKey: TypeAlias = tuple[Engine, RankingPlan]


class ScoringServicer(scoring_service_pb2_grpc.ScoringServiceServicer):
    """Scores with the releases that a follower keeps loaded.

    Scoring runs in a separate thread, so that the event loop is free for health checks. Queued
    requests for the same models of the same release are scored in one batch, which costs less per
    user. Requests with batch priority run after all others.
    """

    def __init__(
        self,
        follower: ReleaseFollower[Engine],
        settings: ScoringSettings,
        backend: str,
        queues: QueueMetrics,
        model_seconds: Mapping[str, float],
    ) -> None:
        """Creates a servicer.

        Args:
            follower: Loads the releases.
            settings: The settings of the service; the servicer uses the limits.
            backend: Name of the service, from `marquee_core.service_names`.
            queues: Measures the queues of calls that wait for a batch.
            model_seconds: The seconds that each model has taken so far, by the model's name.
        """
        self._follower = follower
        self._max_users = settings.max_users
        self._default_deadline = settings.default_deadline
        self._model_seconds = model_seconds
        self._thread = PriorityExecutor("scoring")
        self._batcher: MicroBatcher[
            tuple[Engine, tuple[str, ...]], list[Query], pb.ScoreItemsResponse
        ] = MicroBatcher(
            self._score_batch,
            settings.max_batch,
            settings.max_calls,
            queues.meter(backend, "score"),
        )
        self._rank_batcher: MicroBatcher[_RankKey, list[Query], pb.RankItemsResponse] = (
            MicroBatcher(
                self._rank_batch,
                settings.max_batch,
                settings.max_calls,
                queues.meter(backend, "rank"),
            )
        )

    async def ScoreItems(
        self, request: pb.ScoreItemsRequest, context: Context
    ) -> pb.ScoreItemsResponse:
        """Scores items for users."""
        engine = self._follower.get(request.release_id)
        models = tuple(request.models)
        # Checked before the request joins a batch, where an error would fail all requests.
        engine.select(models)
        queries = self._queries(engine, request.users)
        timeout = time_left(context, self._default_deadline)
        return await self._batcher.call((engine, models), queries, timeout, len(queries))

    async def RankItems(
        self, request: pb.RankItemsRequest, context: Context
    ) -> pb.RankItemsResponse:
        """Ranks items for users."""
        engine = self._follower.get(request.release_id)
        plan = to_plan(request)
        # Checked before the request joins a batch, where an error would fail all requests.
        check_plan(engine, plan)
        item_count = engine.data.matrix.item_count
        queries = to_queries(request.users, self._max_users, item_count)
        engine.check(queries)
        timeout = time_left(context, self._default_deadline)
        return await self._rank_batcher.call((engine, plan), queries, timeout, len(queries))

    async def RetrieveItems(
        self, request: pb.RetrieveItemsRequest, context: Context
    ) -> pb.RetrieveItemsResponse:
        """Retrieves each model's best items for users."""
        engine = self._follower.get(request.release_id)
        check_range("count", request.count, MAX_RETRIEVED)
        eligible = to_eligible(request.eligible, engine.data.matrix.item_count)
        queries = self._queries(engine, request.users)
        models = list(request.models)
        return await self._run(
            engine,
            lambda: retrieve_response(
                engine.release_id, engine.retrieve(queries, models, request.count, eligible)
            ),
        )

    async def CompareItems(
        self, request: pb.CompareItemsRequest, context: Context
    ) -> pb.CompareItemsResponse:
        """Compares an item with all items."""
        engine = self._follower.get(request.release_id)
        comparison = to_comparison(request, engine.data.matrix.item_count)
        similarities = await self._run(engine, lambda: similarities_of(engine, comparison))
        return compare_response(engine.release_id, similarities)

    async def ExplainItems(
        self, request: pb.ExplainItemsRequest, context: Context
    ) -> pb.ExplainItemsResponse:
        """Returns the evidence for items in a user's ratings."""
        engine = self._follower.get(request.release_id)
        check_range("evidence_count", request.evidence_count, _MAX_EVIDENCE)
        [query] = self._queries(engine, [request.user])
        models = list(request.models)
        return await self._run(
            engine,
            lambda: explain_response(
                engine.release_id, engine.explain(query, models, request.evidence_count)
            ),
        )

    async def ListReleases(
        self, request: pb.ListReleasesRequest, context: Context
    ) -> pb.ListReleasesResponse:
        """Lists the loaded releases, and marks the caller's release in service as used."""
        self._follower.mark_used(request.release_in_service)
        loaded = [engine.release_id for engine in self._follower.releases]
        return releases_response(loaded, self._follower.refused, self._model_seconds)

    def _queries(self, engine: Engine, users: Sequence[pb.UserQuery]) -> list[Query]:
        """Converts and checks the users of a request.

        Raises:
            InvalidFields: The users are not valid for the engine's release.
        """
        queries = to_queries(users, self._max_users)
        engine.check(queries)
        return queries

    async def _score_batch(
        self,
        key: tuple[Engine, tuple[str, ...]],
        requests: Sequence[list[Query]],
        timeout: float,
    ) -> list[pb.ScoreItemsResponse]:
        """Scores the users of several requests in one batch, and answers each request."""
        engine, models = key
        return await self._run(
            engine,
            lambda: [
                score_response(engine.release_id, scores)
                for scores in engine.score_requests(requests, models)
            ],
        )

    async def _rank_batch(
        self, key: _RankKey, requests: Sequence[list[Query]], timeout: float
    ) -> list[pb.RankItemsResponse]:
        """Ranks for the users of several requests in one batch, and answers each request."""
        engine, plan = key

        def work() -> list[pb.RankItemsResponse]:
            queries = [query for users in requests for query in users]
            rankings = iter(rank(engine, queries, plan))
            return [
                rank_response(engine.release_id, list(islice(rankings, len(users))), plan)
                for users in requests
            ]

        return await self._run(engine, work)

    async def _run(self, engine: Engine, work: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        return await self._follower.watch_failures(
            engine.release_id, loop.run_in_executor(self._thread, work)
        )
