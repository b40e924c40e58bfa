"""Starts and stops a gRPC server with health checks, reflection and the interceptor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from marquee_services.server import background
from marquee_services.server.interceptor import CallInterceptor
from marquee_services.server.metrics import Metrics
from marquee_services.server.settings import ServerSettings

_log = structlog.get_logger()

# Large enough for scores of the whole catalogue for a batch of users, which a backend returns.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MIN_PING_INTERVAL_MS = 500
_Status = health_pb2.HealthCheckResponse.ServingStatus


@dataclass(frozen=True)
class BoundServer:
    """A listening server with its health service and metrics.

    Attributes:
        server: The gRPC server.
        port: The port that the server listens on; 0 for a Unix socket.
        metrics: The server's metrics.
    """

    server: grpc.aio.Server
    port: int
    metrics: Metrics
    _health: Any
    _services: tuple[str, ...]

    async def set_serving(self, serving: bool) -> None:
        """Sets the health status to SERVING or NOT_SERVING."""
        status = _Status.SERVING if serving else _Status.NOT_SERVING
        for name in (*self._services, ""):
            await self._health.set(name, status)

    async def stop(self, grace: float) -> None:
        """Shuts the server down gracefully.

        Sets the health status to NOT_SERVING and refuses new calls, while calls in progress finish.

        Args:
            grace: Seconds until calls that are still in progress are cancelled.
        """
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace)


async def create_server(
    settings: ServerSettings,
    services: Sequence[str],
    add_servicers: Callable[[grpc.aio.Server], None],
    metrics: Metrics,
    max_receive_bytes: int = MAX_MESSAGE_BYTES,
) -> BoundServer:
    """Creates and starts a server with health checks, reflection and the interceptor.

    The health status is NOT_SERVING until `BoundServer.set_serving` is called.

    Args:
        settings: The server's address, limits and TLS files.
        services: Full names of the gRPC services.
        add_servicers: Adds their servicers to the server.
        metrics: Receives the metrics of calls.
        max_receive_bytes: Largest request that is accepted, in bytes.

    Raises:
        OSError: The server cannot listen on its address.
    """
    interceptor = CallInterceptor(
        tuple(f"/{service}/" for service in services),
        settings.max_calls,
        settings.default_deadline,
        metrics,
    )
    server = grpc.aio.server(
        interceptors=(interceptor,),
        options=(
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", max_receive_bytes),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # Clients send keepalive pings to detect a server that hangs; do not refuse them.
            ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
            ("grpc.http2.max_ping_strikes", 0),
        ),
    )
    add_servicers(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names: Sequence[str] = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    port = _listen(server, settings)
    bound = BoundServer(server, port, metrics, health_servicer, tuple(services))
    await bound.set_serving(False)
    metrics.serve(settings.metrics_port)
    await server.start()
    _log.info("listening", address=settings.listen, port=port)
    return bound


def _listen(server: grpc.aio.Server, settings: ServerSettings) -> int:
    try:
        if not settings.tls_certificate:
            return server.add_insecure_port(settings.listen)
        client_ca = Path(settings.tls_client_ca).read_bytes() if settings.tls_client_ca else None
        credentials = grpc.ssl_server_credentials(
            [(Path(settings.tls_key).read_bytes(), Path(settings.tls_certificate).read_bytes())],
            root_certificates=client_ca,
            require_client_auth=client_ca is not None,
        )
        return server.add_secure_port(settings.listen, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {settings.listen}: {error}") from error


async def until_signalled() -> None:
    """Waits for SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    _log.info("shutting_down")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a server's main coroutine on uvloop.

    With uvloop the calls from the gateway to its backends take half the CPU time.
    """
    uvloop.run(main)
    if background.is_busy():
        # A call that hangs, for example in a store that is away, must not keep the process alive.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
