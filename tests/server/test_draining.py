"""A server that shuts down ends no call without saying why."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench import http2
from bench.connection import Call, Connection
from marquee._rpc_errors import from_rpc_error
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.service_names import GATEWAY
from marquee_services.gateway.main import SERVICE
from marquee_services.processes import ServiceProcess
from toy.waiting import until

_TIMEOUT_S = 60.0
# More calls than a gateway hands over in a turn of its event loop.
_CONNECTIONS, _IN_FLIGHT = 8, 32
_CANCELLED, _UNAVAILABLE = "1", "14"


def test_calls_beyond_the_grace_end_with_a_reason(tmp_path: Path) -> None:
    """A call that cannot finish ends with UNAVAILABLE and DRAINING, so that it is tried again.

    The calls here do not finish because the caller never sends their requests.
    """
    options = {"store": str(tmp_path / "empty"), "grace": "0.5", "receive-timeout": "60"}
    gateway = ServiceProcess(GATEWAY, options, tmp_path / "gateway.log")
    ended = threading.Event()

    def never() -> Iterator[pb.RecommendRequest]:
        ended.wait()
        yield from ()

    try:
        with grpc.insecure_channel(gateway.address) as channel:
            calls: list[Any] = [
                channel.stream_unary(
                    f"/{SERVICE}/{method}", pb.RecommendRequest.SerializeToString
                ).future(never(), timeout=_TIMEOUT_S)
                for method in ("Recommend", "GetItem", "BatchRecommend")
            ]
            # Calls of a connection arrive in order.
            with pytest.raises(grpc.RpcError, match="no release"):
                RecommenderServiceStub(channel).GetItem(pb.GetItemRequest(item_id="i1"))
            assert gateway.stop() == 0
            errors = [from_rpc_error(call.exception(timeout=_TIMEOUT_S)) for call in calls]
            ended.set()
        assert [(error.code, error.reason) for error in errors] == [("UNAVAILABLE", "DRAINING")] * 3
        assert all(error.request_id for error in errors)
    finally:
        ended.set()
        gateway.kill()


@pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])
async def test_a_gateway_that_is_called_without_pause_ends_no_call_without_a_reason(
    tmp_path: Path, is_unix: bool
) -> None:
    """Calls that the gateway has not begun end with UNAVAILABLE, never with a bare CANCELLED.

    The callers ignore the health status, and each calls again as soon as a call has ended.
    """
    socket = str(tmp_path / "socket")
    gateway = await asyncio.to_thread(
        ServiceProcess,
        GATEWAY,
        {"store": str(tmp_path / "empty")},
        tmp_path / "gateway.log",
        f"unix:{socket}" if is_unix else "127.0.0.1:0",
    )
    message = http2.grpc_message(pb.GetItemRequest(item_id="i1").SerializeToString())
    ended: Counter[str] = Counter()

    def end(connection: Connection, _call: Call, status: str) -> None:
        ended[status] += 1
        if not connection.lost:
            connection.start(message, time.perf_counter())

    def connection() -> Connection:
        return Connection("gateway", f"/{SERVICE}/GetItem", int(_TIMEOUT_S), 65_536, end)

    async def call_until_lost() -> None:
        loop = asyncio.get_running_loop()
        if is_unix:
            _, caller = await loop.create_unix_connection(connection, socket)
        else:
            host, _, port = gateway.address.rpartition(":")
            _, caller = await loop.create_connection(connection, host, int(port))
        for _ in range(_IN_FLIGHT):
            caller.start(message, time.perf_counter())
        caller.flush()
        await until(lambda: caller.lost and not caller.calls)
        await caller.close()

    try:
        callers = asyncio.gather(*(call_until_lost() for _ in range(_CONNECTIONS)))
        await until(lambda: ended[_UNAVAILABLE] > _CONNECTIONS * _IN_FLIGHT)
        assert await asyncio.to_thread(gateway.stop) == 0
        await callers
    finally:
        gateway.kill()
    assert not ended[_CANCELLED], ended
