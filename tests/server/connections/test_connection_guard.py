"""The connection guard closes connections whose calls are all wasted, and no others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench import http2
from bench.connection import Call, Connection
from faults.attacker import Resetting, Silent, connect
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import recommender_service_pb2_grpc as pb_grpc
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.runtime import BoundServer, create_server
from marquee_services.server.telemetry.metrics import Metrics
from toy.services import Services
from toy.waiting import until

SERVICE = "marquee.v1.RecommenderService"
RECOMMEND = f"/{SERVICE}/Recommend"
UNKNOWN = f"/{SERVICE}/NoSuchMethod"
HEALTH = "/grpc.health.v1.Health/Check"
REQUEST = http2.grpc_message(b"")
# More than two connections may reset before both have been ended.
MOST_RESETS = 2_000
MOST_CALLS = 2


class Servicer(pb_grpc.RecommenderServiceServicer):
    """Answers immediately."""

    async def Recommend(self, request: Any, context: Any) -> pb.RecommendResponse:  # noqa: D102, N802
        return pb.RecommendResponse()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[BoundServer]:
    """A server that answers immediately, but waits a minute for requests."""
    settings = GatewaySettings(
        store="unused", listen="127.0.0.1:0", max_calls=MOST_CALLS, receive_timeout=60
    )
    bound = await create_server(
        settings,
        (SERVICE,),
        lambda made: pb_grpc.add_RecommenderServiceServicer_to_server(
            cast("Any", Servicer)(), made
        ),
        Metrics((f"{SERVICE}/Recommend",)),
    )
    await bound.set_serving(True)
    yield bound
    await bound.stop(0)


class Ends:
    """Counts the statuses of the calls of a connection."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()

    def __call__(self, _connection: Connection, _call: Call, status: str) -> None:
        """Count one status."""
        self.statuses[status] += 1


def arguments(server: BoundServer, method: str, ends: Ends) -> tuple[str, str, int, int, Ends]:
    """Return the arguments that connections are created with."""
    return f"127.0.0.1:{server.port}", method, 300, 65_536, ends


def ended(server: BoundServer) -> float:
    """Return how many connections the server has closed."""
    found: float | None = server.metrics.registry.get_sample_value(
        "marquee_connections_ended_total"
    )
    assert found is not None
    return found


async def reset_until_ended(connection: Resetting, server: BoundServer, count: int) -> None:
    """Begin and reset calls until the server has closed so many connections."""
    begun = 0
    while ended(server) < count and begun < MOST_RESETS:
        for _ in range(20):
            connection.begin(REQUEST)
        begun += 20
        connection.flush()
        await asyncio.sleep(0.01)
    assert ended(server) == count


@pytest.mark.parametrize("method", [RECOMMEND, UNKNOWN, HEALTH])
async def test_connections_that_reset_their_calls_are_closed(
    server: BoundServer, method: str
) -> None:
    """The first is closed, the next from its address is ignored, and others are served."""
    address = f"127.0.0.1:{server.port}"
    first = await connect(Resetting(*arguments(server, method, Ends())), address)
    await reset_until_ended(first, server, 1)
    await until(lambda: first.lost)
    statuses = Ends()
    second = await connect(Resetting(*arguments(server, method, statuses)), address)
    await reset_until_ended(second, server, 2)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = pb_grpc.RecommenderServiceStub(channel)
        await stub.Recommend(pb.RecommendRequest(), timeout=60)
    assert not second.lost
    await second.close()


async def test_callers_whose_deadlines_expire_stay_connected(server: BoundServer) -> None:
    """Hundreds of expired calls and some cancelled ones are tolerated."""
    options = [("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        stub: Any = pb_grpc.RecommenderServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        for _ in range(10):
            late = [stub.Recommend(pb.RecommendRequest(), timeout=0.0005) for _ in range(30)]
            left = [health.Check(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(5)]
            await asyncio.sleep(0.001)
            for call in left:
                call.cancel()
            for call in (*late, *left):
                await call.code()
            await stub.Recommend(pb.RecommendRequest(), timeout=60)
    assert ended(server) == 0


async def test_clients_at_the_limit_of_streams_are_not_refused(server: BoundServer) -> None:
    """Streams that have ended but are not freed yet do not count against normal clients."""
    options = [("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)

        async def call() -> None:
            for _ in range(5):
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)

        await asyncio.gather(*(call() for _ in range(100)))


async def test_calls_without_a_request_make_room(server: BoundServer) -> None:
    """The oldest ones are ended, so other calls are answered and memory is bounded."""
    address = f"127.0.0.1:{server.port}"
    statuses = Ends()
    silent = await connect(Silent(*arguments(server, RECOMMEND, statuses)), address)
    waiting = "marquee_calls_waiting_for_request"
    most = 8 * MOST_CALLS
    for _ in range(most):
        silent.begin()
    silent.flush()
    read = server.metrics.registry.get_sample_value
    await until(lambda: read(waiting) == most)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = pb_grpc.RecommenderServiceStub(channel)

        async def one_has_ended() -> None:
            while not statuses.statuses:
                await stub.Recommend(pb.RecommendRequest(), timeout=60)

        async with asyncio.timeout(60):
            await one_has_ended()
    assert set(statuses.statuses) == {str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])}
    assert (read(waiting) or 0) <= most
    await silent.close()


async def test_a_gateway_can_leave_connections_to_a_proxy(services: Services) -> None:
    """Without the guard, hundreds of resets do not end a connection."""
    gateway = await services.start_gateway(connection_guard=False)
    shared = await connect(
        Resetting(*arguments(gateway.bound, RECOMMEND, Ends())), f"127.0.0.1:{gateway.bound.port}"
    )

    def resets() -> float:
        labels = {"method": "Recommend", "code": "CANCELLED"}
        read = gateway.bound.metrics.registry.get_sample_value
        return read("marquee_call_seconds_count", labels) or 0

    try:
        async with asyncio.timeout(60):
            while resets() < 500:
                for _ in range(20):
                    shared.begin(REQUEST)
                shared.flush()
                await asyncio.sleep(0.01)
        assert ended(gateway.bound) == 0
        assert not shared.lost
        await shared.close()
    finally:
        await gateway.stop(0)
