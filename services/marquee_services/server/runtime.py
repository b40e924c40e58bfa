"""Starts, watches and stops a gRPC server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from marquee_services.server.interceptor import CallInterceptor
from marquee_services.server.metrics import Metrics
from marquee_services.server.settings import ServerSettings

_log = structlog.get_logger()

# A whole-catalogue answer for a batch of users is the largest message between our own servers.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MIN_PING_INTERVAL_MS = 500
_Status = health_pb2.HealthCheckResponse.ServingStatus


@dataclass(frozen=True)
class BoundServer:
    """A server that listens, with its health and metrics.

    Attributes:
        server: The gRPC server.
        port: The port that it listens on; 0 on a Unix socket.
        metrics: Its metrics.
    """

    server: grpc.aio.Server
    port: int
    metrics: Metrics
    _health: Any
    _service: str

    async def set_serving(self, serving: bool) -> None:
        """Tells the health service whether calls will be answered."""
        status = _Status.SERVING if serving else _Status.NOT_SERVING
        await self._health.set(self._service, status)
        await self._health.set("", status)

    async def stop(self, grace: float) -> None:
        """Turns health to NOT_SERVING, refuses new calls and lets those in progress finish."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace)


async def create_server(
    settings: ServerSettings,
    service: str,
    add_servicer: Callable[[grpc.aio.Server], None],
    metrics: Metrics,
    max_receive_bytes: int = MAX_MESSAGE_BYTES,
) -> BoundServer:
    """Binds a server with health, reflection and our interceptor, and starts it.

    Health says NOT_SERVING until `set_serving`.

    Args:
        settings: The process's settings.
        service: The full name of the service.
        add_servicer: Adds the servicer to the server.
        metrics: The server's metrics.
        max_receive_bytes: The largest request.

    Raises:
        OSError: The address cannot be listened on.
    """
    interceptor = CallInterceptor(
        f"/{service}/", settings.max_calls, settings.default_deadline, metrics
    )
    server = grpc.aio.server(
        interceptors=(interceptor,),
        options=(
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", max_receive_bytes),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # Clients ping to notice a frozen server; see the keepalive settings of the clients.
            ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
            ("grpc.http2.max_ping_strikes", 0),
        ),
    )
    add_servicer(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names: Sequence[str] = (service, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    port = _listen(server, settings)
    bound = BoundServer(server, port, metrics, health_servicer, service)
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
    _log.info("stopping")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a server's main coroutine on uvloop, which halves the cost of the gateway's fan-out."""
    uvloop.run(main)
