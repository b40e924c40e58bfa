"""Backends with several replicas: load balancing, promotions, lost replicas and name resolution."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from gateway.calls import TIMEOUT_S
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.gateway.backends.addresses import Address, resolve
from marquee_services.gateway.backends.monitor import BackendMonitor
from marquee_services.gateway.backends.replica import Replica
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.identity.certificates import Certificates
from marquee_services.server.telemetry.metrics import Metrics

pytestmark = pytest.mark.alone

REQUEST = pb.RecommendRequest(subject=types_pb2.Subject(user_id="u7"))


@pytest_asyncio.fixture
async def two_replicas(services: Any) -> AsyncIterator[Any]:
    """A gateway without answer cache in front of two CF replicas, a stub, and the replicas."""
    first = services.scoring["cf"]
    second = await services.start_backend("cf")
    services.scoring["cf-first"] = first
    gateway = await services.start_gateway(
        cf_target=f"ipv4:{first.address},{second.address}", answer_cache_mib=0
    )
    await services.until(lambda: sum(r.healthy for r in gateway.backends[0].replicas.values()) == 2)
    await services.until_full(gateway)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        yield gateway, RecommenderServiceStub(channel), (first, second)
    await gateway.stop(0.5)


async def test_calls_go_to_all_replicas(two_replicas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle replicas take turns, and the replica that ranks an answer also predicts its stars."""
    gateway, stub, _ = two_replicas
    called: dict[str, list[str]] = {"rank": [], "score": []}
    now = asyncio.get_running_loop().time()
    for replica in gateway.backends[0].replicas.values():
        # Equal latencies, so high that no call counts as late on a loaded machine.
        replica.latency.observe(TIMEOUT_S, now)
        monkeypatch.setattr(replica.latency, "observe", lambda *_: None)
        for name, addresses in called.items():
            method = getattr(replica, name)

            async def counted(
                *args: Any,
                method: Any = method,
                addresses: list[str] = addresses,
                at: str = replica.address,
            ) -> Any:
                addresses.append(at)
                return await method(*args)

            monkeypatch.setattr(replica, name, counted)
    for _ in range(10):
        await stub.Recommend(REQUEST, timeout=TIMEOUT_S)
    assert {called["rank"].count(at) for at in called["rank"]} == {5}
    assert called["score"] == called["rank"]


async def test_a_promotion_waits_for_every_replica(services: Any, two_replicas: Any) -> None:
    """While one replica lags behind, no answer is degraded; then all answers switch together."""
    gateway, stub, (_, late) = two_replicas
    late.task.cancel()
    seen, stop = [], asyncio.Event()

    async def call() -> None:
        while not stop.is_set():
            answer = await stub.Recommend(REQUEST, timeout=TIMEOUT_S)
            assert not answer.source.degraded
            seen.append(answer.source.release_id)

    caller = asyncio.create_task(call())
    second = await services.publish(1)
    backend = gateway.backends[0]
    await services.until(
        lambda: any(second.release_id in r.releases for r in backend.replicas.values())
    )
    await services.until(lambda: "cf has not loaded" in gateway.releases.pending_reason)
    assert gateway.releases.serving.release_id == services.first.release_id
    late.task = asyncio.create_task(late.follower.follow())
    await services.until(lambda: second.release_id in seen)
    stop.set()
    await caller
    switch = seen.index(second.release_id)
    assert set(seen[:switch]) == {services.first.release_id}
    assert set(seen[switch:]) == {second.release_id}


async def test_losing_a_replica_does_not_degrade_answers(services: Any, two_replicas: Any) -> None:
    """The other replicas answer, and the lost one is called again once it is back."""
    gateway, stub, (first, second) = two_replicas
    services.scoring["cf-second"] = second
    stop = asyncio.Event()

    async def call() -> int:
        answers = 0
        while not stop.is_set():
            answer = await stub.Recommend(REQUEST, timeout=TIMEOUT_S)
            assert not answer.source.degraded
            answers += 1
        return answers

    callers = [asyncio.create_task(call()) for _ in range(4)]
    await first.stop(0)
    lost = next(
        replica
        for replica in gateway.backends[0].replicas.values()
        if replica.address.endswith(first.address)
    )
    await services.until(lambda: not lost.healthy)
    await services.start_backend("cf", first.bound.port)
    await services.until(lambda: lost.healthy and lost.releases)
    stop.set()
    assert all(count > 0 for count in await asyncio.gather(*callers))


async def test_replicas_follow_the_addresses_of_the_host(
    services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas are added and removed as the name resolves to other addresses."""
    first = services.scoring["cf"]
    second = await services.start_backend("cf")
    services.scoring["cf-first"] = first
    answer = [first.bound.port]

    async def looked_up(target: str) -> frozenset[Address]:
        if not target.startswith("dns:"):
            return await resolve(target)
        if not answer:
            raise socket.gaierror("no such host")
        return frozenset(Address(f"ipv4:127.0.0.1:{port}") for port in answer)

    monkeypatch.setattr("marquee_services.gateway.backends.backend.resolve", looked_up)
    gateway = await services.start_gateway(cf_target="dns:///cf.test:1", resolve_interval=0.05)
    backend = gateway.backends[0]
    await services.until(lambda: len(backend.replicas) == 1)
    answer.append(second.bound.port)
    await services.until(lambda: len(backend.replicas) == 2)
    answer.clear()
    await services.until(lambda: "no such host" in backend.last_error.text)
    assert len(backend.replicas) == 2
    answer.append(first.bound.port)
    await second.stop(0)
    await services.until(lambda: len(backend.replicas) == 1)
    await gateway.stop(0.5)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("127.0.0.1:5", {Address("ipv4:127.0.0.1:5", "127.0.0.1:5")}),
        ("dns:///127.0.0.1:5", {Address("ipv4:127.0.0.1:5", "127.0.0.1:5")}),
        ("dns:127.0.0.1:5", {Address("ipv4:127.0.0.1:5", "127.0.0.1:5")}),
        ("[::1]:5", {Address("ipv6:[::1]:5", "[::1]:5")}),
        ("ipv4:1.2.3.4:5,6.7.8.9:10", {Address("ipv4:1.2.3.4:5"), Address("ipv4:6.7.8.9:10")}),
        ("ipv6:[::1]:5", {Address("ipv6:[::1]:5")}),
        ("unix:/run/cf.sock", {Address("unix:/run/cf.sock")}),
    ],
)
async def test_targets_are_parsed_like_those_of_grpc(target: str, found: set[Address]) -> None:
    """IP addresses need no look-up, and address lists and sockets are used unchanged."""
    assert await resolve(target) == found


@pytest.mark.parametrize("target", ["localhost", "dns:///localhost", "", ":5"])
async def test_a_target_without_host_and_port_is_refused(target: str) -> None:
    """The error shows the expected form."""
    with pytest.raises(ValueError, match="host:port"):
        await resolve(target)


@pytest.mark.parametrize(
    ("host", "code"), [("backend.test", "UNIMPLEMENTED"), ("other.test", "UNAVAILABLE")]
)
async def test_the_certificate_of_a_replica_is_checked_against_its_host(
    authority: Any, host: str, code: str
) -> None:
    """The channel dials an IP address.

    The server has no methods, so UNIMPLEMENTED means success.
    """
    certificate, key = authority.issue("backend.test")
    server = grpc.aio.server()
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    settings = GatewaySettings(store="none", backend_ca=str(authority.certificate))
    certificates = Certificates("backends", "", "", settings.backend_ca)
    address = Address(f"ipv4:127.0.0.1:{port}", f"{host}:50052")
    replica = Replica("cf", address, settings, certificates, BackendMonitor(Metrics()))
    await replica.probe("")
    assert replica.last_error.text.startswith(code)
    await replica.close()
    await server.stop(None)


async def test_a_late_call_is_hedged(two_replicas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a replica does not answer, another one is called long before the timeout."""
    gateway, stub, _ = two_replicas
    hung = 0

    async def hang(*_args: Any) -> Any:
        nonlocal hung
        hung += 1
        await asyncio.Event().wait()

    first, second = gateway.backends[0].replicas.values()
    # The other one counts as slow, however long the test takes, so the first is called first.
    monkeypatch.setattr(second.latency, "value", lambda _now: TIMEOUT_S)
    monkeypatch.setattr(first, "rank", hang)
    # The backends' timeout is longer than this deadline: only a hedge can answer.
    answer = await stub.Recommend(REQUEST, timeout=TIMEOUT_S)
    assert hung == 1
    assert answer.items
    assert not answer.source.degraded
    assert first.calls_in_flight == second.calls_in_flight == 0
    # The time that the first one took counts as its latency, so it is not called again.
    assert first.latency.value(asyncio.get_running_loop().time()) > 0


async def test_a_replica_that_is_late_repeatedly_is_avoided(
    two_replicas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica gets only trial calls until it recovers, and no answer is degraded."""
    gateway, stub, _ = two_replicas
    backend = gateway.backends[0]
    first, second = backend.replicas.values()
    rank, well = first.rank, asyncio.Event()
    called = 0

    async def hang(*arguments: Any) -> Any:
        nonlocal called
        called += 1
        await well.wait()
        return await rank(*arguments)

    monkeypatch.setattr(first, "rank", hang)
    # The first one appears fast and is preferred; the other appears so slow that no trial is late,
    # however long the test takes. Calls of the other one that a loaded machine delays do not count:
    # if both were late, neither would be avoided.
    monkeypatch.setattr(first.latency, "value", lambda _now: 0.0)
    monkeypatch.setattr(second.latency, "value", lambda _now: TIMEOUT_S)
    monkeypatch.setattr(second.circuit, "record", lambda **_: None)
    while not first.circuit.is_open:
        assert not (await stub.Recommend(REQUEST, timeout=TIMEOUT_S)).source.degraded
    assert backend.open_circuits() == [first.address]
    late = called
    assert late >= 3
    answer = await stub.Recommend(REQUEST, timeout=TIMEOUT_S)
    assert not answer.source.degraded
    well.set()
    while first.circuit.is_open:
        assert not (await stub.Recommend(REQUEST, timeout=TIMEOUT_S)).source.degraded
    assert called > late  # The trials.
    before = called
    await stub.Recommend(REQUEST, timeout=TIMEOUT_S)
    assert called == before + 1
