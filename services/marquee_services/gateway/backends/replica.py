"""A replica (server process) of a backend: calls to it, its health and its loaded releases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import structlog

from marquee.v1 import scoring_service_pb2 as pb
from marquee_core.arrays import Bool, Float32, Int32
from marquee_services.gateway.backends.addresses import Address
from marquee_services.gateway.backends.answers import unpack_rankings, unpack_scores
from marquee_services.gateway.backends.circuit import Circuit
from marquee_services.gateway.backends.connection import Connection
from marquee_services.gateway.backends.failures import BackendError, Failure, LastError
from marquee_services.gateway.backends.latency import PeakLatency
from marquee_services.gateway.backends.monitor import BackendMonitor
from marquee_services.gateway.backends.queries import add_users, user_message
from marquee_services.gateway.backends.ranking import BackendRanking
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.scoring.plan import Query, RankingPlan
from marquee_services.scoring.similarities import Comparison, Similarities
from marquee_services.server.admission.priority import PRIORITY, Priority
from marquee_services.server.identity.certificates import Certificates
from marquee_services.server.micro_batcher import MicroBatcher, QueueFullError
from marquee_services.server.wire import pack_bits, pack_ints, unpack_floats, unpack_ints

_log = structlog.get_logger()

# The timeout of calls with batch priority, as a multiple of the backend timeout.
_BATCH_TIMEOUT_FACTOR = 20

_FAILURE_BY_STATUS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Failure.TIMEOUT,
    grpc.StatusCode.NOT_FOUND: Failure.RELEASE_MISSING,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Failure.OVERLOADED,
}


class Replica:
    """Calls a server of a backend, and tracks its health.

    Attributes:
        name: The backend's name, `cf` or `inference`.
        address: The server's gRPC target.
        healthy: Whether the last probe succeeded and no call since then has failed with
            UNAVAILABLE. Unhealthy servers are not called, so requests do not wait for a frozen one.
        releases: The ids of the releases that the server has loaded, newest first.
        refused: Why the server refused to load releases, by release id.
        model_seconds: The seconds that each model has taken since the server started.
        calls_in_flight: The number of calls that wait for the server's response.
        last_called_at: When the last call started, in seconds of the event loop's clock.
        latency: The latency of interactive calls.
        circuit: The circuit breaker, which is open while the server is late or fails.
        last_error: The most recent error.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        settings: GatewaySettings,
        certificates: Certificates | None,
        monitor: BackendMonitor,
    ) -> None:
        self.name = name
        self.address = address.target
        self.healthy = False
        self.releases: tuple[str, ...] = ()
        self.refused: Mapping[str, str] = {}
        self.model_seconds: Mapping[str, float] = {}
        self.calls_in_flight = 0
        self.last_called_at = 0.0
        self.latency = PeakLatency()
        self.circuit = Circuit()
        self.last_error = LastError()
        self._timeout = settings.backend_timeout
        self._monitor = monitor
        self._meters = [monitor.queues.meter(name, queue) for queue in ("score", "rank")]
        self._connection = Connection(address, certificates)
        self._scores: MicroBatcher[tuple[str, tuple[str, ...]], Query, dict[str, Float32]] = (
            MicroBatcher(
                self._score_batch, settings.max_batch, settings.max_waiting, self._meters[0]
            )
        )
        self._rankings: MicroBatcher[tuple[str, RankingPlan], Query, BackendRanking] = MicroBatcher(
            self._rank_batch,
            settings.max_batch,
            settings.max_waiting,
            self._meters[1],
            gathers=True,
        )

    def serves(self, release_id: str) -> bool:
        """Returns whether the server is connected and healthy and has loaded a release."""
        return self.healthy and release_id in self.releases and self._connection.is_ready

    async def score(
        self,
        release_id: str,
        query: Query,
        models: tuple[str, ...],
        timeout: float,
    ) -> dict[str, Float32]:
        """Scores a user's candidates, micro-batched with other queued users.

        Args:
            release_id: The release to which the query's indexes refer.
            query: The user and the candidates.
            models: The names of the models to score with; empty for all of the backend's models.
            timeout: Seconds to wait for the scores.

        Returns:
            The score of each candidate by model (float32, read-only).

        Raises:
            BackendError: The server did not answer in time or failed, or too many users are queued.
        """
        try:
            return await self._scores.call((release_id, models), query, self._limited(timeout))
        except (TimeoutError, QueueFullError) as error:
            raise self._not_answered(error) from None

    async def rank(
        self,
        release_id: str,
        query: Query,
        plan: RankingPlan,
        timeout: float,
    ) -> BackendRanking:
        """Ranks a user's candidates, micro-batched with other queued users.

        Args:
            release_id: The release to which the query's indexes refer.
            query: The user, and the candidates or the eligible items.
            plan: How to rank.
            timeout: Seconds to wait for the ranking.

        Raises:
            BackendError: The server did not answer in time or failed, or too many users are queued.
        """
        try:
            return await self._rankings.call((release_id, plan), query, self._limited(timeout))
        except (TimeoutError, QueueFullError) as error:
            raise self._not_answered(error) from None

    async def retrieve(
        self,
        release_id: str,
        query: Query,
        models: tuple[str, ...],
        count: int,
        eligible: Bool,
        timeout: float,
    ) -> list[Int32]:
        """Retrieves each model's best eligible items.

        Args:
            release_id: The release to which the query's indexes refer.
            query: The user.
            models: The names of the models to retrieve with; empty for all of the backend's.
            count: The number of items that each model retrieves.
            eligible: Whether each item of the catalogue may be retrieved (bool, items).
            timeout: Seconds to wait for the items.

        Returns:
            The item indexes of each model (int32, the best first).

        Raises:
            BackendError: The server did not answer in time, or failed.
        """
        request = pb.RetrieveItemsRequest(
            release_id=release_id,
            users=[user_message(query)],
            count=count,
            models=models,
            eligible=pack_bits(eligible),
        )
        response = await self._answer("RetrieveItems", request, self._limited(timeout))
        return [unpack_ints("items", model.items) for model in response.models]

    async def compare(
        self, release_id: str, comparison: Comparison, timeout: float
    ) -> dict[str, Similarities]:
        """Returns the similarities of an item to the items of a release.

        Args:
            release_id: The release to which the indexes refer.
            comparison: The item, and the items to compare it with.
            timeout: Seconds to wait for the similarities.

        Returns:
            The similarities by model.

        Raises:
            BackendError: The server did not answer in time, or failed.
        """
        request = pb.CompareItemsRequest(
            release_id=release_id,
            item_index=comparison.item,
            count=comparison.count,
            eligible=b"" if comparison.eligible is None else pack_bits(comparison.eligible),
            candidates=b"" if comparison.candidates is None else pack_ints(comparison.candidates),
        )
        candidates = comparison.candidates
        response = await self._answer("CompareItems", request, self._limited(timeout))
        return {
            model.model: Similarities(
                unpack_ints("items", model.items) if comparison.count else candidates,
                unpack_floats("similarities", model.similarities),
                model.highest,
            )
            for model in response.models
        }

    async def explain(
        self,
        release_id: str,
        query: Query,
        models: Sequence[str],
        count: int,
        timeout: float,
    ) -> Sequence[pb.ExplainItemsResponse.ItemEvidence]:
        """Fetches the rated items and similar users that support each candidate.

        Args:
            release_id: The release to which the query's indexes refer.
            query: The user and the candidates.
            models: Names of the models to explain.
            count: The most rated items to return for each candidate and model.
            timeout: Seconds to wait for the evidence.

        Returns:
            The evidence for each candidate, in the query's order.

        Raises:
            BackendError: The server did not answer in time, or failed.
        """
        request = pb.ExplainItemsRequest(
            release_id=release_id, user=user_message(query), evidence_count=count, models=models
        )
        response = await self._answer("ExplainItems", request, self._limited(timeout))
        items: Sequence[pb.ExplainItemsResponse.ItemEvidence] = response.items
        return items

    async def probe(self, release_in_service: str) -> None:
        """Lists the server's releases, and sets `healthy` depending on whether it answers.

        Args:
            release_in_service: The release in service, which the server then keeps loaded.
        """
        await self._connection.renew(was_working=self.healthy)
        try:
            response = await self._connection.stub.ListReleases(
                pb.ListReleasesRequest(release_in_service=release_in_service),
                timeout=self._timeout,
            )
        except grpc.aio.AioRpcError as error:
            self._record_error(error)
            self.healthy = False
            return
        self.releases = tuple(response.release_ids)
        self.refused = {refused.release_id: refused.why for refused in response.refused}
        self.model_seconds = dict(response.model_seconds)
        if not self.healthy:
            _log.info("backend_healthy", backend=self.name, address=self.address)
        self.healthy = True

    async def close(self) -> None:
        """Closes the connection."""
        for meter in self._meters:
            meter.forget()
        await self._connection.close()

    def _limited(self, timeout: float) -> float:
        """Returns a call's timeout in seconds, limited to the backend timeout of the settings.

        Calls with batch priority have a longer limit: they wait until the backend is idle.
        """
        is_batch = PRIORITY.get() is Priority.BATCH
        limit = _BATCH_TIMEOUT_FACTOR * self._timeout if is_batch else self._timeout
        return max(0.001, min(timeout, limit))

    def _not_answered(self, error: TimeoutError | QueueFullError) -> BackendError:
        """Returns the failure of a micro-batched call that was not answered."""
        if isinstance(error, QueueFullError):
            return BackendError(self.name, Failure.OVERLOADED, "too many users are queued")
        return BackendError(self.name, Failure.TIMEOUT, "no answer within the timeout")

    async def _rank_batch(
        self,
        key: tuple[str, RankingPlan],
        queries: Sequence[Query],
        timeout: float,
    ) -> list[BackendRanking]:
        release_id, plan = key
        request = pb.RankItemsRequest(
            release_id=release_id,
            models=[name for name, _ in plan.weights],
            weights=[weight for _, weight in plan.weights],
            best_count=plan.best_count,
            gateway_models=[name for name, _ in plan.gateway_weights],
            gateway_weights=[weight for _, weight in plan.gateway_weights],
            stars_models=plan.stars_models,
            stars_count=plan.stars_count,
            top_count=plan.top_count,
            retrieve_count=plan.retrieve_count,
        )
        add_users(request, queries)
        response = await self._answer("RankItems", request, timeout)
        try:
            return unpack_rankings(queries, response)
        except ValueError as error:
            raise BackendError(self.name, Failure.UNAVAILABLE, str(error)) from error

    async def _score_batch(
        self, key: tuple[str, tuple[str, ...]], queries: Sequence[Query], timeout: float
    ) -> list[dict[str, Float32]]:
        release_id, models = key
        request = pb.ScoreItemsRequest(release_id=release_id, models=models)
        add_users(request, queries)
        response = await self._answer("ScoreItems", request, timeout)
        try:
            return unpack_scores(queries, response)
        except ValueError as error:
            raise BackendError(self.name, Failure.UNAVAILABLE, str(error)) from error

    async def _answer(self, method: str, request: Any, timeout: float) -> Any:
        """Calls the server, and converts a gRPC error to `BackendError`."""
        try:
            return await self._monitor.call(
                self.name, self.address, self._connection.stub, method, request, timeout
            )
        except grpc.aio.AioRpcError as error:
            self._record_error(error)
            failure = _FAILURE_BY_STATUS.get(error.code(), Failure.UNAVAILABLE)
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                # The server is not called again until a probe succeeds.
                self.healthy = False
            raise BackendError(self.name, failure, error.details() or error.code().name) from error

    def _record_error(self, error: grpc.aio.AioRpcError) -> None:
        self.last_error = LastError.now(f"{error.code().name}: {error.details()}")
        if self.healthy:
            _log.warning(
                "backend_failed",
                backend=self.name,
                address=self.address,
                error=self.last_error.text,
            )
