"""A backend in the gateway's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeAlias, TypeVar

from marquee.v1 import scoring_service_pb2 as pb
from marquee_core.arrays import Bool, Float32, Int32
from marquee_services.errors import ReleaseNotFound
from marquee_services.gateway.backends.failures import (
    BackendError,
    BackendFailure,
    Failure,
    LastError,
)
from marquee_services.gateway.backends.interface import AnyReplica
from marquee_services.gateway.backends.ranking import BackendRanking
from marquee_services.scoring.converters import explain_response
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.ranking import rank
from marquee_services.scoring.similarities import Comparison, Similarities, similarities_of
from marquee_services.server.admission.queue_metrics import QueueMetrics
from marquee_services.server.micro_batcher import MicroBatcher, QueueFullError
from marquee_services.server.releases.follower import ReleaseFollower

_T = TypeVar("_T")
_ScoreKey: TypeAlias = tuple[Engine, tuple[str, ...]]
_RankKey: TypeAlias = tuple[Engine, RankingPlan]

TARGET = "in this process"
"""The target of a local backend in `GetStatus`."""


class LocalBackend:
    """A backend of the gateway that scores in this process; implements `AnyBackend`.

    Attributes:
        name: The backend's name, `cf` or `inference`.
        target: The location of the backend, always this process.
        last_error: Always empty, because no call leaves the process.
        model_seconds: The seconds that each model has taken so far.
    """

    def __init__(
        self,
        name: str,
        follower: ReleaseFollower[Engine],
        executor: Executor,
        max_batch: int,
        max_waiting: int,
        mark_interval: float,
        timeout: float,
        model_seconds: Mapping[str, float],
        queues: QueueMetrics,
    ) -> None:
        """Creates a backend.

        Args:
            name: The backend's name.
            follower: Holds the backend's part of the loaded releases.
            executor: Runs the scoring, so that the event loop stays free.
            max_batch: The maximum number of users in one batch.
            max_waiting: The maximum number of queued users.
            mark_interval: Seconds between the times at which the release in service is marked as
                used, so that it stays loaded.
            timeout: The most seconds that a call may take.
            model_seconds: The seconds that each model has taken so far, by the model's name.
            queues: Measures the queues of users.
        """
        self.model_seconds = model_seconds
        self.name = name
        self.target = TARGET
        self.last_error = LastError()
        self._follower = follower
        self._replica = LocalReplica(
            name, follower, executor, max_batch, max_waiting, timeout, queues
        )
        self._mark_interval = mark_interval
        self._release_in_service = ""

    @property
    def healthy(self) -> bool:
        """Whether a release is loaded."""
        return bool(self._follower.releases)

    @property
    def is_idle(self) -> bool:
        """Always False, because the backends of a process take CPU time from each other."""
        return False

    @property
    def releases(self) -> tuple[str, ...]:
        """The ids of the loaded releases, newest first."""
        return tuple(engine.release_id for engine in self._follower.releases)

    @property
    def refused(self) -> Mapping[str, str]:
        """Why releases were refused, by release id."""
        return self._follower.refused

    def open_circuits(self) -> list[str]:
        """Returns no addresses, because there is no circuit breaker within a process."""
        return []

    def replica_states(self) -> list[tuple[str, bool]]:
        """Returns the only replica, and whether a release is loaded."""
        return [(TARGET, self.healthy)]

    def serves(self, release_id: str) -> bool:
        """Returns whether a release is loaded."""
        return release_id in self.releases

    def failure(self, release_id: str) -> BackendFailure | None:
        """Returns why the backend cannot answer with a release now; None if it can."""
        if self.serves(release_id):
            return None
        return BackendFailure(self.name, Failure.RELEASE_MISSING)

    def keep_loaded(self, release_id: str) -> None:
        """Keeps a release loaded."""
        self._release_in_service = release_id

    async def call(
        self,
        release_id: str,  # noqa: ARG002 - part of the interface
        timeout: float,
        call: Callable[[AnyReplica, float], Awaitable[_T]],
        preferred: AnyReplica | None = None,  # noqa: ARG002 - there is only one replica
    ) -> _T:
        """Calls the only replica; see `AnyBackend.call`."""
        return await call(self._replica, timeout)

    async def watch(self) -> None:
        """Marks the release in service as used periodically, until cancelled."""
        while True:
            self._follower.mark_used(self._release_in_service)
            await asyncio.sleep(self._mark_interval)

    async def close(self) -> None:
        """Does nothing, because there are no connections."""


class LocalReplica:
    """Scores with the engines of this process; implements `AnyReplica`.

    Queued users are scored in one batch, as in a scoring server.
    """

    def __init__(
        self,
        name: str,
        follower: ReleaseFollower[Engine],
        executor: Executor,
        max_batch: int,
        max_waiting: int,
        timeout: float,
        queues: QueueMetrics,
    ) -> None:
        """Creates a replica; see `LocalBackend` for the arguments."""
        self._name = name
        self._follower = follower
        self._executor = executor
        self._timeout = timeout
        self._scores: MicroBatcher[_ScoreKey, Query, dict[str, Float32]] = MicroBatcher(
            self._score_batch, max_batch, max_waiting, queues.meter(name, "score")
        )
        self._rankings: MicroBatcher[_RankKey, Query, BackendRanking] = MicroBatcher(
            self._rank_batch,
            max_batch,
            max_waiting,
            queues.meter(name, "rank"),
            gathers=True,
        )

    async def score(
        self, release_id: str, query: Query, models: tuple[str, ...], timeout: float
    ) -> dict[str, Float32]:
        """Scores a user's candidates with each model; see `Replica.score`."""
        engine = self._engine(release_id)
        return await self._bounded(
            self._scores.call((engine, models), query, self._limited(timeout))
        )

    async def rank(
        self,
        release_id: str,
        query: Query,
        plan: RankingPlan,
        timeout: float,
    ) -> BackendRanking:
        """Ranks a user's candidates with a blend of models; see `Replica.rank`."""
        engine = self._engine(release_id)
        return await self._bounded(
            self._rankings.call((engine, plan), query, self._limited(timeout))
        )

    async def retrieve(
        self,
        release_id: str,
        query: Query,
        models: tuple[str, ...],
        count: int,
        eligible: Bool,
        timeout: float,
    ) -> list[Int32]:
        """Retrieves each model's best eligible items; see `Replica.retrieve`."""
        engine = self._engine(release_id)
        best = await self._run(
            engine, lambda: engine.retrieve([query], models, count, eligible), timeout
        )
        return [items for rows in best.values() for items, _ in rows]

    async def compare(
        self, release_id: str, comparison: Comparison, timeout: float
    ) -> dict[str, Similarities]:
        """Returns the similarities of an item to the items of a release; see `Replica.compare`."""
        engine = self._engine(release_id)
        return await self._run(engine, lambda: similarities_of(engine, comparison), timeout)

    async def explain(
        self,
        release_id: str,
        query: Query,
        models: Sequence[str],
        count: int,
        timeout: float,
    ) -> Sequence[pb.ExplainItemsResponse.ItemEvidence]:
        """Returns the evidence for each candidate; see `Replica.explain`."""
        engine = self._engine(release_id)
        evidence = await self._run(engine, lambda: engine.explain(query, models, count), timeout)
        return explain_response(release_id, evidence).items

    def _limited(self, timeout: float) -> float:
        """Returns a call's timeout in seconds, limited to the backend timeout of the settings."""
        return max(0.001, min(timeout, self._timeout))

    def _engine(self, release_id: str) -> Engine:
        try:
            return self._follower.get(release_id)
        except ReleaseNotFound as error:
            raise BackendError(self._name, Failure.RELEASE_MISSING, str(error)) from error

    async def _score_batch(
        self, key: _ScoreKey, queries: Sequence[Query], timeout: float
    ) -> list[dict[str, Float32]]:
        engine, models = key
        return await self._run(
            engine, lambda: engine.score_requests([[query] for query in queries], models), timeout
        )

    async def _rank_batch(
        self, key: _RankKey, queries: Sequence[Query], timeout: float
    ) -> list[BackendRanking]:
        engine, plan = key

        def work() -> list[BackendRanking]:
            return [
                BackendRanking(
                    found.scores, dict(found.best), list(found.abstaining), found.stars, found.top
                )
                for found in rank(engine, queries, plan)
            ]

        return await self._run(engine, work, timeout)

    async def _run(self, engine: Engine, work: Callable[[], _T], timeout: float) -> _T:
        """Runs work in the scoring thread.

        Raises:
            BackendError: The work did not finish in time.
        """
        loop = asyncio.get_running_loop()
        watched = self._follower.watch_failures(
            engine.release_id, loop.run_in_executor(self._executor, work)
        )
        return await self._bounded(asyncio.wait_for(watched, self._limited(timeout)))

    async def _bounded(self, call: Awaitable[_T]) -> _T:
        """Awaits a call, and converts its errors to `BackendError`."""
        try:
            return await call
        except TimeoutError:
            detail = "no answer within the timeout"
            raise BackendError(self._name, Failure.TIMEOUT, detail) from None
        except QueueFullError:
            detail = "too many users are queued"
            raise BackendError(self._name, Failure.OVERLOADED, detail) from None
