"""Calls that fail leave nothing in memory: not even until the next garbage collection."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, request_for
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.scoring import servicer
from toy.waiting import until

_CALLS = 40
# gRPC may still hold the calls that ended last.
_STILL_HELD = 4


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _errors() -> list[BaseException]:
    return [found for found in gc.get_objects() if isinstance(found, BaseException)]


async def _code_of(stub: Any, request: pb.RecommendRequest) -> grpc.StatusCode:
    try:
        await stub.Recommend(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _until_forgotten(before: set[int]) -> Any:
    """Wait until the errors that came after `before` (their ids) are gone."""

    def are_gone() -> bool:
        left = [error for error in _errors() if id(error) not in before]
        return len(left) <= _STILL_HELD

    return until(are_gone)


async def test_timeouts_of_a_backend_leave_no_errors(
    services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the cached lists nor the micro-batchers keep the errors and their tracebacks."""
    gateway = await services.start_gateway(backend_timeout=0.3)
    await services.until_full(gateway)
    is_over = threading.Event()
    monkeypatch.setattr(servicer, "rank", lambda *_: is_over.wait() and [])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        with _no_collection():
            before = {id(error) for error in _errors()}
            calls = (
                stub.Recommend(request_for(page_size=5), timeout=TIMEOUT_S) for _ in range(_CALLS)
            )
            answers = await asyncio.gather(*calls)
            assert all(a.source.degraded_reasons and a.next_page_token for a in answers)
            await _until_forgotten(before)
    is_over.set()
    await gateway.stop(0.5)


async def test_refused_calls_leave_no_errors(services: Any) -> None:
    """gRPC keeps the error of a refused call as long as the call, and must not form a cycle."""
    gateway = await services.start_gateway(max_calls=1, answer_cache_mib=0)
    await services.until_full(gateway)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        with _no_collection():
            before = {id(error) for error in _errors()}
            refused = 0
            while refused < _CALLS:
                codes = await asyncio.gather(*(_code_of(stub, request_for()) for _ in range(50)))
                refused += codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED)
            await _until_forgotten(before)
    await gateway.stop(0.5)


async def test_invalid_requests_leave_no_errors(services: Any, stub: Any) -> None:
    """The same for calls that the servicer rejects, whose frames hold the request."""
    with _no_collection():
        before = {id(error) for error in _errors()}
        for _ in range(_CALLS):
            code = await _code_of(stub, request_for(page_size=-1))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
        await _until_forgotten(before)
