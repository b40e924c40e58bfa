"""Reflection, health checks and metrics of a running server."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "marquee.v1.RecommenderService"
# Deadline of calls in seconds: only a call that hangs reaches it.
TIMEOUT_S = 60


def recommend_from_descriptors(address: str) -> dict[str, Any]:
    """List the services and call Recommend, using only descriptors from reflection."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName(SERVICE).FindMethodByName("Recommend")
        request = json_format.ParseDict(
            {"subject": {"userId": "u7"}, "pageSize": 3},
            message_factory.GetMessageClass(method.input_type)(),
        )
        call: Any = channel.unary_unary(
            f"/{SERVICE}/Recommend",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        answer = json_format.MessageToDict(call(request, timeout=TIMEOUT_S))
    return {"services": services, "answer": answer}


async def test_a_tool_can_call_using_only_reflection(services: Any) -> None:
    """A tool such as grpcurl gets an answer without generated code."""
    found = await asyncio.to_thread(recommend_from_descriptors, services.address)
    assert {SERVICE, "grpc.health.v1.Health"} <= found["services"]
    assert len(found["answer"]["items"]) == 3


async def test_health_can_be_watched(services: Any) -> None:
    """The watch stream of a load balancer receives NOT_SERVING before the server stops."""
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        stream = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await stream.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(services.gateway.bound.stop(5))
        assert (await stream.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        stream.cancel()
        await stopping


async def test_metrics_count_calls_by_status(services: Any, free_port: Callable[[], int]) -> None:
    """Successful and failed calls are counted, and the release in service is labelled."""
    port = free_port()
    gateway = await services.start_gateway(metrics_port=port)
    await services.until_full(gateway)
    address = f"127.0.0.1:{gateway.bound.port}"
    await asyncio.to_thread(recommend_from_descriptors, address)
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Recommend")
        assert await call(b"", timeout=TIMEOUT_S).code() == grpc.StatusCode.INVALID_ARGUMENT

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            text: str = page.read().decode()
        return text

    text = await asyncio.to_thread(read)
    assert 'marquee_call_seconds_count{code="OK",method="Recommend"} 1.0' in text
    assert 'marquee_call_seconds_count{code="INVALID_ARGUMENT",method="Recommend"} 1.0' in text
    assert f'marquee_release_in_service{{release_id="{services.first.release_id}"}} 1.0' in text
    await gateway.stop(0.5)
