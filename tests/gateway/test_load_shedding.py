"""Load beyond the limit of calls is shed."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from gateway.calls import TIMEOUT_S, request_for
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub


async def test_calls_beyond_the_limit_are_shed(services: Any) -> None:
    """They are refused at once with RESOURCE_EXHAUSTED; admitted calls are answered."""
    gateway = await services.start_gateway(max_calls=2)
    await services.until_full(gateway)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        calls = [stub.Recommend(request_for(f"u{n}"), timeout=TIMEOUT_S) for n in range(30)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    shed = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert shed
    assert len(shed) < len(results)
    assert {error.code() for error in shed} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    await gateway.stop(0.5)
