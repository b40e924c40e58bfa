"""One server of a backend as the gateway sees it: calls, health, releases, failures."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import structlog

from marquee.v1 import scoring_service_pb2 as pb
from marquee.v1 import scoring_service_pb2_grpc
from marquee_core.arrays import Bool, Float32, Int32
from marquee_services.gateway.backends.addresses import Address
from marquee_services.gateway.backends.failures import BackendError, Failure, LastError
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.micro_batcher import MicroBatcher, QueueFullError
from marquee_services.server.runtime import MAX_MESSAGE_BYTES
from marquee_services.server.wire import pack_bits, unpack_floats, unpack_ints

_log = structlog.get_logger()
_T = TypeVar("_T")

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A frozen backend is noticed by pings; keepalive's own timeout does not end its streams.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 1_000),
    ("grpc.http2.ping_timeout_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


_FAILURES = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Failure.TIMEOUT,
    grpc.StatusCode.NOT_FOUND: Failure.RELEASE_MISSING,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Failure.OVERLOADED,
}


class Replica:
    """Calls one server of a backend, and keeps an eye on it.

    Attributes:
        name: The backend: `cf` or `inference`.
        address: The server's gRPC target.
        healthy: Whether it answered when last asked. An unhealthy server is not called, so a
            frozen one costs no request its time.
        releases: The releases that it holds, newest first.
        refused: Why it refused releases, by id.
        calls: How many calls wait for its answer.
        called_at: When the last one began, in the event loop's time.
        last_error: The last error.
    """

    def __init__(self, name: str, address: Address, settings: GatewaySettings) -> None:
        self.name = name
        self.address = address.target
        self.healthy = False
        self.releases: tuple[str, ...] = ()
        self.refused: Mapping[str, str] = {}
        self.calls = 0
        self.called_at = 0.0
        self.last_error = LastError()
        self._timeout = settings.backend_timeout
        self._channel = _open_channel(address, settings.backend_ca)
        self._stub = scoring_service_pb2_grpc.ScoringServiceStub(self._channel)
        self._scores: MicroBatcher[
            tuple[str, tuple[str, ...]], pb.UserQuery, dict[str, Float32]
        ] = MicroBatcher(self._score_batch, settings.max_batch, settings.max_waiting)

    def serves(self, release_id: str) -> bool:
        """Whether the server is connected, healthy when last asked, and holds a release."""
        return (
            self.healthy
            and release_id in self.releases
            and self._channel.get_state() is grpc.ChannelConnectivity.READY
        )

    async def score(
        self,
        release_id: str,
        query: pb.UserQuery,
        models: tuple[str, ...],
        timeout: float,
    ) -> dict[str, Float32]:
        """Scores a user's candidates, together with whoever else waits.

        Args:
            release_id: The release that the query's indexes are of.
            query: The user and the candidates.
            models: The models; all of the backend's for none.
            timeout: Seconds.

        Returns:
            By model, the score of each candidate (float32, read-only).

        Raises:
            BackendError: There was no answer.
        """
        try:
            return await self._scores.call((release_id, models), query, self._bound(timeout))
        except TimeoutError:
            raise BackendError(self.name, Failure.TIMEOUT, "no answer in time") from None
        except QueueFullError:
            raise BackendError(self.name, Failure.OVERLOADED, "too many calls wait") from None

    async def retrieve(
        self,
        release_id: str,
        query: pb.UserQuery,
        models: tuple[str, ...],
        count: int,
        eligible: Bool,
        timeout: float,
    ) -> list[Int32]:
        """Each model's best items that qualify (int32, best first).

        Raises:
            BackendError: There was no answer.
        """
        request = pb.RetrieveItemsRequest(
            release_id=release_id,
            users=[query],
            count=count,
            models=models,
            eligible=pack_bits(eligible),
        )
        response = await self._guard(
            self._stub.RetrieveItems(request, timeout=self._bound(timeout))
        )
        return [unpack_ints("items", model.items) for model in response.models]

    async def compare(self, release_id: str, item: int, timeout: float) -> dict[str, Float32]:
        """By model, the similarity of an item to every item (float32, read-only).

        Raises:
            BackendError: There was no answer.
        """
        request = pb.CompareItemsRequest(release_id=release_id, item_index=item)
        response = await self._guard(self._stub.CompareItems(request, timeout=self._bound(timeout)))
        return {
            model.model: unpack_floats("similarities", model.similarities)
            for model in response.models
        }

    async def explain(
        self, release_id: str, query: pb.UserQuery, count: int, timeout: float
    ) -> Sequence[pb.ExplainItemsResponse.ItemEvidence]:
        """Evidence for each candidate of a query.

        Raises:
            BackendError: There was no answer.
        """
        request = pb.ExplainItemsRequest(release_id=release_id, user=query, evidence_count=count)
        response = await self._guard(self._stub.ExplainItems(request, timeout=self._bound(timeout)))
        return response.items

    async def probe(self, release_in_service: str) -> None:
        """Asks for the server's releases, which also tells its health.

        Args:
            release_in_service: The release that the gateway answers with, which the server keeps.
        """
        try:
            response = await self._stub.ListReleases(
                pb.ListReleasesRequest(release_in_service=release_in_service),
                timeout=self._timeout,
            )
        except grpc.aio.AioRpcError as error:
            self._fail(error)
            self.healthy = False
            return
        self.releases = tuple(response.release_ids)
        self.refused = {refused.release_id: refused.why for refused in response.refused}
        if not self.healthy:
            _log.info("backend_healthy", backend=self.name, address=self.address)
        self.healthy = True

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    def _bound(self, timeout: float) -> float:
        return max(0.001, min(timeout, self._timeout))

    async def _score_batch(
        self, key: tuple[str, tuple[str, ...]], queries: Sequence[pb.UserQuery], timeout: float
    ) -> list[dict[str, Float32]]:
        release_id, models = key
        request = pb.ScoreItemsRequest(release_id=release_id, users=queries, models=models)
        response = await self._guard(self._stub.ScoreItems(request, timeout=timeout))
        scores = {model.model: unpack_floats("scores", model.scores) for model in response.models}
        ends = self._ends(queries, scores)
        return [
            {name: values[start:end] for name, values in scores.items()}
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]

    def _ends(self, queries: Sequence[pb.UserQuery], scores: Mapping[str, Float32]) -> list[int]:
        """Where each user's scores end; whole-catalogue users share what the others leave."""
        if not scores:
            return [0] * len(queries)
        own = np.array([len(query.candidates) // 4 for query in queries])
        whole = np.array([not query.HasField("candidates") for query in queries])
        total = len(next(iter(scores.values())))
        if whole.any():
            own[whole] = (total - int(own.sum())) // int(whole.sum())
        ends: list[int] = np.cumsum(own).tolist()
        if any(len(values) != ends[-1] for values in scores.values()):
            raise BackendError(self.name, Failure.UNAVAILABLE, "scores of a wrong length")
        return ends

    async def _guard(self, call: Awaitable[_T]) -> _T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            self._fail(error)
            failure = _FAILURES.get(error.code(), Failure.UNAVAILABLE)
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                # Not called again until a probe succeeds.
                self.healthy = False
            raise BackendError(self.name, failure, error.details() or error.code().name) from error

    def _fail(self, error: grpc.aio.AioRpcError) -> None:
        self.last_error = LastError.now(f"{error.code().name}: {error.details()}")
        if self.healthy:
            _log.warning(
                "backend_failed",
                backend=self.name,
                address=self.address,
                error=self.last_error.text,
            )


def _open_channel(address: Address, ca_file: str) -> grpc.aio.Channel:
    options: Any = _CHANNEL_OPTIONS
    if address.authority:
        # An address is dialled; the certificate is that of the host.
        options += (("grpc.default_authority", address.authority),)
    if not ca_file:
        return grpc.aio.insecure_channel(address.target, options)
    credentials = grpc.ssl_channel_credentials(Path(ca_file).read_bytes())
    return grpc.aio.secure_channel(address.target, credentials, options)
