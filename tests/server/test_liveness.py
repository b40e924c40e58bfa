"""Liveness: a frozen server fails its probe, and one without a release does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from marquee_services.server.health import LIVE

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def probe(address: str, name: str, timeout: float = 30.0) -> int:
    """Request a health status over a separate connection, as a kubelet does."""
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        stub = health_pb2_grpc.HealthStub(channel)
        status: int = stub.Check(request, timeout=timeout).status
    return status


def test_a_frozen_gateway_fails_its_liveness_probe(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """SIGSTOP leaves the port open, so a TCP check would succeed."""
    health_port = free_port()
    options = {"store": str(tmp_path / "empty"), "health-port": str(health_port)}
    gateway = ServiceProcess(GATEWAY, options, tmp_path / "gateway.log")
    try:
        for address in (gateway.address, f"127.0.0.1:{health_port}"):
            assert probe(address, LIVE) == _SERVING
            assert probe(address, "") == _NOT_SERVING, "it has no release"
            gateway.suspend()
            with pytest.raises(grpc.RpcError) as error:
                probe(address, LIVE, timeout=0.5)
            assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            gateway.resume()
            assert probe(address, LIVE) == _SERVING
        assert gateway.stop() == 0
    finally:
        gateway.kill()
