"""Which release is served: promotions, refused releases and health."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.calls import TIMEOUT_S, error_of, request_for
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub


async def test_a_promotion_is_served_without_a_failed_or_mixed_answer(
    stub: Any, services: Any
) -> None:
    """During a promotion and a rollback, each answer is complete and comes from one release."""
    seen, stop = [], asyncio.Event()

    async def call() -> None:
        while not stop.is_set():
            answer = await stub.Recommend(request_for(), timeout=TIMEOUT_S)
            assert not answer.source.degraded
            seen.append(answer.source.release_id)

    callers = [asyncio.create_task(call()) for _ in range(4)]
    second = await services.publish(1)
    await services.until_full()
    services.store.rollback()
    await services.until_full()
    stop.set()
    await asyncio.gather(*callers)
    assert set(seen) <= {services.first.release_id, second.release_id}
    assert second.release_id in seen
    answer = await stub.Recommend(request_for(), timeout=TIMEOUT_S)
    assert answer.source.release_id == services.first.release_id


async def test_a_damaged_release_is_refused_and_the_last_good_one_serves(
    stub: Any, services: Any
) -> None:
    """If a backend cannot load it, the gateway does not switch, and the status explains why."""
    bad = await services.publish(1, promote=False)
    folder = services.folder / "store" / "releases" / bad.release_id
    services.store.promote(bad.release_id)
    victim = folder / "models" / "mf" / "vectors.npy"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\xff")
    while True:
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
        if "inference refused" in status.pending_release_reason:
            break
        await asyncio.sleep(0.02)
    assert "SHA-256" in status.pending_release_reason
    answer = await stub.Recommend(request_for(), timeout=TIMEOUT_S)
    assert answer.source.release_id == services.first.release_id
    assert not answer.source.degraded


async def test_refused_promotions_do_not_unload_the_release_in_service(
    stub: Any, services: Any
) -> None:
    """The release stays loaded during several of them, even if no request uses it."""
    for seed in (1, 2, 3):
        bad = await services.publish(seed, promote=False)
        services.store.promote(bad.release_id)
        folder = services.folder / "store" / "releases" / bad.release_id
        (folder / "models" / "mf" / "vectors.npy").write_bytes(b"")
        await services.until(
            lambda bad=bad: bad.release_id in services.scoring["inference"].follower.refused
        )
        await services.until(
            lambda bad=bad: bad.release_id in services.gateway.backends[0].releases
        )
    # On a loaded machine, a probe may have failed meanwhile; the release must still be loaded.
    await services.until(
        lambda: all(b.serves(services.first.release_id) for b in services.gateway.backends)
    )
    for release_id in ("", services.first.release_id):
        answer = await stub.Recommend(request_for(release_id=release_id), timeout=TIMEOUT_S)
        assert answer.source.release_id == services.first.release_id
        assert not answer.source.degraded
    # A server that starts now falls back to the release that the others serve.
    inference = services.scoring["inference"]
    await inference.stop()
    started = await services.start_backend("inference", inference.bound.port)
    await services.until(lambda: started.follower.releases)
    assert started.follower.newest().release_id == services.first.release_id
    assert bad.release_id in started.follower.refused


@pytest.mark.parametrize("name", ["ensemble.json", "data/users.npy", "data/years.npy"])
async def test_a_release_that_lacks_a_file_is_refused(services: Any, name: str) -> None:
    """Its manifest does not list the file either, and loading is not retried forever."""
    manifest = await services.publish(1, promote=False)
    folder = services.folder / "store" / "releases" / manifest.release_id
    content = json.loads((folder / "manifest.json").read_text())
    del content["files"][name]
    (folder / "manifest.json").write_text(json.dumps(content))
    (folder / name).unlink()
    services.store.promote(manifest.release_id)
    await services.until(lambda: manifest.release_id in services.gateway.follower.refused)
    assert services.gateway.releases.serving.release_id == services.first.release_id


async def test_health_is_serving_only_once_a_release_is_loaded(
    services: Any, tmp_path: Path
) -> None:
    """A gateway without a release is alive but not ready, and answers NO_RELEASE."""
    gateway = await services.start_gateway(store=str(tmp_path / "empty"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "marquee.v1.RecommenderService"):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health.Check(request, timeout=TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        stub: Any = RecommenderServiceStub(channel)
        code, reason, _ = await error_of(stub.Recommend(request_for(), timeout=TIMEOUT_S))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "NO_RELEASE")
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
        assert not status.HasField("release")
        assert status.pending_release_reason == "no release has been promoted"
    await gateway.stop(0.5)
    async with grpc.aio.insecure_channel(services.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="marquee.v1.RecommenderService")
        answer = await health.Check(request, timeout=TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
