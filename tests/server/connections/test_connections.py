"""Connections are closed at a maximum age, so that clients find new servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from marquee import AsyncClient
from toy.dns import NameServer


async def test_a_client_finds_a_new_gateway_and_no_call_fails(
    services: Any, free_port: Callable[[], int]
) -> None:
    """With connections of half a second, a client soon calls a gateway that was added."""
    port = free_port()
    ages: dict[str, Any] = {"max_connection_age": 0.5, "max_connection_age_grace": 30.0}
    first = await services.start_gateway(listen=f"127.0.0.2:{port}", **ages)
    await services.until_full(first)
    names = NameServer("127.0.0.2")
    transport = await names.start()
    target = f"dns://127.0.0.1:{names.port}/gateway.test:{port}"
    # By default, gRPC resolves the name at most every 30 seconds.
    options = [("grpc.dns_min_time_between_resolutions_ms", 100)]
    async with AsyncClient(target, timeout=60, hedge_after=0, channel_options=options) as client:
        await client.recommend("u7")
        second = await services.start_gateway(listen=f"127.0.0.3:{port}", **ages)
        await services.until_full(second)
        names.addresses.append("127.0.0.3")

        async def call_until_found() -> None:
            while not counted(second):
                await client.recommend("u7")

        async with asyncio.timeout(60):
            await asyncio.gather(*(call_until_found() for _ in range(4)))
        assert counted(first)
    transport.close()
    await first.stop(5)
    await second.stop(5)


def counted(gateway: Any) -> float:
    """Return how many Recommend calls a gateway has answered; fail if any has failed."""
    calls = {
        (sample.labels["method"], sample.labels["code"]): sample.value
        for metric in gateway.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "marquee_call_seconds_count"
    }
    assert {code for _, code in calls} <= {"OK"}
    found: float = calls.get(("Recommend", "OK"), 0.0)
    return found
