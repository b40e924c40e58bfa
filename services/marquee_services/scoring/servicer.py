"""`ScoringService` over gRPC: convert, call the engine, convert."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from marquee.v1 import scoring_service_pb2 as pb
from marquee.v1 import scoring_service_pb2_grpc
from marquee_services.errors import FieldViolation, InvalidFields, Overloaded
from marquee_services.scoring.engine import Engine, Evidence, Query
from marquee_services.scoring.settings import CFSettings
from marquee_services.server.follower import ReleaseFollower
from marquee_services.server.interceptor import Context, time_left
from marquee_services.server.micro_batcher import MicroBatcher, QueueFullError
from marquee_services.server.wire import (
    MAX_RETRIEVED,
    pack_floats,
    pack_ints,
    unpack_bits,
    unpack_floats,
    unpack_ints,
)

_T = TypeVar("_T")
_MAX_EVIDENCE = 100


class ScoringServicer(scoring_service_pb2_grpc.ScoringServiceServicer):
    """Serves the releases that a follower keeps loaded.

    Scoring runs in one thread, so the event loop goes on answering health checks; requests wait
    for it in a queue that the server's limit of calls bounds. What waits to be scored by the same
    models is scored at once: a user costs a model less in company.
    """

    def __init__(self, follower: ReleaseFollower[Engine], settings: CFSettings) -> None:
        """Takes the follower and the limits of the settings."""
        self._follower = follower
        self._max_users = settings.max_users
        self._max_waiting = settings.max_calls
        self._default_deadline = settings.default_deadline
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._scores: MicroBatcher[
            tuple[Engine, tuple[str, ...]], list[Query], pb.ScoreItemsResponse
        ] = MicroBatcher(self._score_together, settings.max_batch, self._max_waiting)

    async def ScoreItems(
        self, request: pb.ScoreItemsRequest, context: Context
    ) -> pb.ScoreItemsResponse:
        """Scores items for users."""
        engine = self._follower.get(request.release_id)
        models = tuple(request.models)
        engine.pick(models)
        queries = self._queries(engine, request.users)
        timeout = time_left(context, self._default_deadline)
        try:
            return await self._scores.call((engine, models), queries, timeout, len(queries))
        except QueueFullError:
            raise Overloaded(str(self._max_waiting)) from None

    async def RetrieveItems(
        self, request: pb.RetrieveItemsRequest, context: Context
    ) -> pb.RetrieveItemsResponse:
        """Retrieves each model's best items for users."""
        engine = self._follower.get(request.release_id)
        _check_range("count", request.count, MAX_RETRIEVED)
        items = engine.data.matrix.item_count
        eligible = unpack_bits("eligible", request.eligible, items) if request.eligible else None
        queries = self._queries(engine, request.users)

        def retrieve() -> pb.RetrieveItemsResponse:
            best = engine.retrieve(queries, list(request.models), request.count, eligible)
            return pb.RetrieveItemsResponse(
                release_id=engine.release_id,
                models=[
                    pb.RetrieveItemsResponse.ModelItems(
                        model=name,
                        items=b"".join(pack_ints(top) for top, _ in rows),
                        scores=b"".join(pack_floats(scores) for _, scores in rows),
                        counts=pack_ints(np.array([len(top) for top, _ in rows])),
                    )
                    for name, rows in best.items()
                ],
            )

        return await self._run(retrieve)

    async def CompareItems(
        self, request: pb.CompareItemsRequest, context: Context
    ) -> pb.CompareItemsResponse:
        """Compares an item with every item."""
        engine = self._follower.get(request.release_id)
        rows = await self._run(lambda: engine.compare(request.item_index))
        return pb.CompareItemsResponse(
            release_id=engine.release_id,
            models=[
                pb.CompareItemsResponse.ModelSimilarities(model=name, similarities=pack_floats(row))
                for name, row in rows.items()
            ],
        )

    async def ExplainItems(
        self, request: pb.ExplainItemsRequest, context: Context
    ) -> pb.ExplainItemsResponse:
        """Tells what in a user's profile speaks for items."""
        engine = self._follower.get(request.release_id)
        _check_range("evidence_count", request.evidence_count, _MAX_EVIDENCE)
        [query] = self._queries(engine, [request.user])

        def explain() -> pb.ExplainItemsResponse:
            return pb.ExplainItemsResponse(
                release_id=engine.release_id,
                items=[
                    _evidence_message(evidence)
                    for evidence in engine.explain(query, request.evidence_count)
                ],
            )

        return await self._run(explain)

    async def ListReleases(
        self, request: pb.ListReleasesRequest, context: Context
    ) -> pb.ListReleasesResponse:
        """Lists the releases held, and keeps the one that the caller answers with."""
        self._follower.touch(request.release_in_service)
        return pb.ListReleasesResponse(
            release_ids=[engine.release_id for engine in self._follower.releases],
            refused=[
                pb.ListReleasesResponse.RefusedRelease(release_id=release_id, why=why)
                for release_id, why in self._follower.refused.items()
            ],
        )

    async def _score_together(
        self,
        key: tuple[Engine, tuple[str, ...]],
        requests: Sequence[list[Query]],
        timeout: float,
    ) -> list[pb.ScoreItemsResponse]:
        engine, models = key

        def score() -> list[pb.ScoreItemsResponse]:
            scores = engine.score([query for queries in requests for query in queries], models)
            responses, start = [], 0
            for queries in requests:
                end = start + sum(engine.candidate_count(query) for query in queries)
                responses.append(
                    pb.ScoreItemsResponse(
                        release_id=engine.release_id,
                        models=[
                            pb.ScoreItemsResponse.ModelScores(
                                model=name, scores=pack_floats(values[start:end])
                            )
                            for name, values in scores.items()
                        ],
                    )
                )
                start = end
            return responses

        return await self._run(score)

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _queries(self, engine: Engine, users: Any) -> list[Query]:
        """The users of a request, checked.

        Raises:
            InvalidFields: There are none or too many, their arrays are damaged, or they are not
                of the engine's release.
        """
        _check_range("users", len(users), self._max_users)
        queries = [
            Query(
                user.user_index if user.HasField("user_index") else -1,
                unpack_ints(f"users[{place}].rated_items", user.rated_items),
                unpack_floats(f"users[{place}].ratings", user.ratings),
                unpack_ints(f"users[{place}].candidates", user.candidates)
                if user.HasField("candidates")
                else None,
            )
            for place, user in enumerate(users)
        ]
        engine.check(queries)
        return queries


def _check_range(field: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise InvalidFields([FieldViolation(field, f"{value} is not in 1 to {most}")])


def _evidence_message(evidence: Evidence) -> pb.ExplainItemsResponse.ItemEvidence:
    message = pb.ExplainItemsResponse.ItemEvidence()
    if evidence.rated:
        message.rated_items = pack_ints(evidence.rated.items)
        message.similarities = pack_floats(evidence.rated.similarities)
        message.contributions = pack_floats(evidence.rated.contributions)
    if evidence.neighbours:
        message.neighbour_count = evidence.neighbours.count
        message.neighbour_mean_stars = evidence.neighbours.mean_stars
        message.neighbour_contribution = evidence.neighbours.contribution
    return message
