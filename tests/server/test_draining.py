"""A server that shuts down ends no call without saying why."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from marquee._rpc_errors import from_rpc_error
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.service_names import GATEWAY
from marquee_services.gateway.main import SERVICE
from marquee_services.processes import ServiceProcess

_TIMEOUT_S = 60.0


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
